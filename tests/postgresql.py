"""A real PostgreSQL of the tests' own, started for them and stopped after them.

Debian's package `postgresql` brings the programs. Where they are missing, tests that need them are
skipped; in continuous integration (`CI` is set) they fail instead.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import psycopg
import pytest

PROGRAMS = "/usr/lib/postgresql/*/bin"
# The server refuses to run as root; Debian's package makes this user.
UNPRIVILEGED_USER = "postgres"
SUPERUSER = "auditor"
SETTINGS = {"listen_addresses": "", "max_connections": "200"}
UNUSUAL_SETTINGS = {
    # Another one than ours, so that a time without its zone is found out.
    "timezone": "Asia/Kolkata",
    "default_transaction_isolation": "serializable",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """`pytest --database postgresql --workers 4 tests/server`: the shared server, run like that."""
    group = parser.getgroup("server")
    group.addoption("--database", choices=("sqlite", "postgresql"), default="sqlite")
    group.addoption("--workers", type=int, default=1)


@dataclass(frozen=True)
class PostgreSQL:
    """A running server, reached through a socket in a folder of its own."""

    folder: Path
    programs: Path
    settings: dict[str, str]

    @property
    def _as(self) -> str | None:
        return UNPRIVILEGED_USER if os.geteuid() == 0 else None

    def run(self, program: str, *arguments: str) -> None:
        finished = subprocess.run(
            [self.programs / program, *arguments],
            user=self._as,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert finished.returncode == 0, finished.stdout

    @property
    def data(self) -> str:
        return str(self.folder / "data")

    def start(self) -> None:
        options = " ".join(f"-c {name}={value}" for name, value in self.settings.items())
        log = str(self.folder / "log")
        self.run(
            "pg_ctl", "-D", self.data, "-w", "-l", log, "-o", f"-k {self.folder} {options}", "start"
        )

    def stop(self) -> None:
        # Nobody needs the data any more: nothing is written back.
        self.run("pg_ctl", "-D", self.data, "-w", "-m", "immediate", "stop")

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://{SUPERUSER}@/{database}?host={self.folder}"

    def execute(self, statement: str, database: str = "postgres") -> None:
        with psycopg.connect(
            host=str(self.folder), user=SUPERUSER, dbname=database, autocommit=True
        ) as connection:
            connection.execute(statement)  # type: ignore[call-overload]


@contextmanager
def private_postgresql(**settings: str) -> Iterator[PostgreSQL]:
    """Start a server in a new folder; stop it and remove the folder at the end of the block.

    Args:
        settings: besides Debian's own and `SETTINGS`.

    Raises:
        FileNotFoundError: its programs are missing.

    """
    found = sorted(Path("/").glob(f"{PROGRAMS.removeprefix('/')}/initdb"))
    if not found:
        raise FileNotFoundError(f"no {PROGRAMS}/initdb; install Debian's package `postgresql`")
    # Not pytest's own folder: no other user may enter that one, and a socket's path must be short.
    folder = Path(tempfile.mkdtemp(prefix="postgresql-"))
    server = PostgreSQL(folder, found[-1].parent, {**SETTINGS, **settings})
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, UNPRIVILEGED_USER)
        server.run(
            "initdb", "-D", server.data, "-U", SUPERUSER, "--auth=trust", "--no-sync", "-E", "UTF8"
        )
        server.start()
        yield server
        server.stop()
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """The server; it lives as long as the tests."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(private_postgresql(**UNUSUAL_SETTINGS))
        except FileNotFoundError as error:
            if os.environ.get("CI"):
                pytest.fail(str(error))
            pytest.skip(str(error))
        yield server


@pytest.fixture(scope="session")
def new_postgresql_database(postgresql: PostgreSQL) -> Callable[[], str]:
    """Makes an empty database and returns its URL."""
    numbers = count()

    def make() -> str:
        name = f"auditor_{next(numbers)}"
        postgresql.execute(f"CREATE DATABASE {name}")
        return postgresql.url(name)

    return make


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database; the test runs once on each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'auditor.sqlite3'}"
    make: Callable[[], str] = request.getfixturevalue("new_postgresql_database")
    return make()
