"""What can be said to the server when it is started, however it is started."""

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from auditor_server.settings import (
    BLOBS_VARIABLE,
    DATABASE_PASSWORD_VARIABLE,
    DATABASE_URL_VARIABLE,
    DEFAULT_HOST,
    DEFAULT_PORT,
    MEBIBYTE,
    MODEL_WORKERS,
    MOST_MODEL_MEMORY_MIB,
    MOST_MODEL_SECONDS,
    MOST_TRAIL_DAYS,
    MOST_WORKERS,
    TRAIL_DAYS,
    Listening,
    LogFormat,
    ServerSettings,
)

MOST_PORT = 65_535
# One query of this length would hold a proxy's connection for a day.
MOST_SECONDS = 86_400.0
MOST_MEMORY_MIB = 2**20  # a tebibyte
LEAST_MEMORY_MIB = 512  # torch alone takes most of it


@dataclass(frozen=True)
class Flag:
    """One option.

    Attributes:
        name: as it is typed.
        help: what it is for, in a sentence.
        default: what holds without it; its type is the option's, text where there is none.
        least: of a number.
        most: of a number.
        choices: of a word.
        variable: of the environment, which counts where the option is not given.
    """

    name: str
    help: str
    default: str | int | float | None = None
    least: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()
    variable: str | None = None

    @property
    def field(self) -> str:
        """Its name in code."""
        return self.name.removeprefix("--").replace("-", "_")


HOST = Flag("--host", "Address to listen on. Put TLS in front of any other.", DEFAULT_HOST)
PORT = Flag("--port", "Port; 0 takes a free one.", DEFAULT_PORT, 0, MOST_PORT)
WORKERS = Flag("--workers", "Processes that serve.", 1, 1, MOST_WORKERS)
DATABASE = Flag(
    "--database-url",
    "The database, postgresql+psycopg://USER:PASSWORD@HOST/NAME, instead of SQLite in the home. "
    "Others on this machine can read a command line: rather set the variable.",
    variable=DATABASE_URL_VARIABLE,
)
BLOBS = Flag(
    "--blobs",
    "Where submitted files lie, s3://BUCKET/PREFIX, instead of a folder in the home. Credentials "
    "and endpoint come from AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and "
    "AWS_ENDPOINT_URL.",
    variable=BLOBS_VARIABLE,
)
TRAIL = Flag(
    "--trail-days", "How long the audit trail keeps who asked what.", TRAIL_DAYS, 1, MOST_TRAIL_DAYS
)
LOG_FORMAT = Flag(
    "--log-format",
    "How the log on standard error is written, one line for each request.",
    LogFormat.TEXT.value,
    choices=tuple(LogFormat),
)
MODEL_WORKERS_FLAG = Flag(
    "--model-workers",
    "Processes that run models, in each process that serves.",
    MODEL_WORKERS,
    1,
    MOST_WORKERS,
)
MODEL_MEMORY = Flag(
    "--model-memory-mib",
    "Memory that a process or a container may take that runs models, in MiB.",
    MOST_MODEL_MEMORY_MIB,
    LEAST_MEMORY_MIB,
    MOST_MEMORY_MIB,
)
MODEL_SECONDS = Flag(
    "--model-seconds",
    "How long one call may have models run.",
    MOST_MODEL_SECONDS,
    1,
    MOST_SECONDS,
)
METRICS_HOST = Flag(
    "--metrics-host",
    "Address of the metrics. Whoever reaches it may read them, without a token.",
    DEFAULT_HOST,
)
METRICS_PORT = Flag(
    "--metrics-port",
    "Serve metrics for Prometheus at this port of their own; 0 takes a free one. Without it there "
    "are none.",
    least=0,
    most=MOST_PORT,
)
FLAGS = (
    HOST,
    PORT,
    WORKERS,
    DATABASE,
    BLOBS,
    TRAIL,
    LOG_FORMAT,
    MODEL_WORKERS_FLAG,
    MODEL_MEMORY,
    MODEL_SECONDS,
    METRICS_HOST,
    METRICS_PORT,
)


def read(program: str, description: str | None, words: Sequence[str]) -> argparse.Namespace:
    """Return what a command line and the environment say; ends the program where they can't."""
    parser = argparse.ArgumentParser(prog=program, description=description)
    parser.add_argument("--home", type=Path, required=True, help="The auditor's home folder.")
    for flag in FLAGS:
        default = os.environ.get(flag.variable or "", flag.default)
        kind = _number(flag) if flag.least is not None else str
        help_text, choices = flag.help.replace("%", "%%"), flag.choices or None
        parser.add_argument(flag.name, type=kind, default=default, choices=choices, help=help_text)
    return parser.parse_args(words)


def settings_of(home: Path, said: Mapping[str, Any]) -> ServerSettings:
    """Return the server's settings from what was said, by the flags' names in code."""
    return ServerSettings(
        home=home,
        database_url=database_secret(said[DATABASE.field]),
        blobs_url=said[BLOBS.field] or None,
        trail_days=said[TRAIL.field],
        log_format=said[LOG_FORMAT.field],
        model_workers=said[MODEL_WORKERS_FLAG.field],
        most_model_memory_bytes=said[MODEL_MEMORY.field] * MEBIBYTE,
        most_model_seconds=said[MODEL_SECONDS.field],
    )


def database_secret(url: str | None) -> SecretStr | None:
    """Return the URL of a database so that no message can show its password; empty: none.

    The password may lie in a file, whose name is in the environment.

    Raises:
        DatabaseUrlError: the URL can't be read.
        OSError: the file can't be read.

    """
    if not url:
        return None
    file = os.environ.get(DATABASE_PASSWORD_VARIABLE)
    if file:
        from auditor_server.store.engine import read_url

        password = Path(file).read_text(encoding="utf-8").rstrip("\n")
        url = read_url(url).set(password=password).render_as_string(hide_password=False)
    return SecretStr(url)


def listening_of(said: Mapping[str, Any]) -> Listening:
    """Return where the server is reached from what was said."""
    return Listening(
        **{
            flag.field: said[flag.field]
            for flag in (HOST, PORT, WORKERS, METRICS_HOST, METRICS_PORT)
        }
    )


def _number(flag: Flag) -> Any:  # noqa: ANN401 - argparse takes what makes a value of a word
    least, most = flag.least or 0.0, flag.most or 0.0

    def number(word: str) -> float:
        value = float(word) if isinstance(flag.default, float) else int(word)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"expected from {least:g} to {most:g}, found {word}")
        return value

    return number
