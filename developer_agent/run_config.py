"""The file a developer writes: where the data lie, which order, and what to train."""

from pathlib import Path
from typing import Any

from pydantic import Field

from auditkit.data.pools import DataSource
from developer_agent.errors import AgentError
from schemas import TrainingConfig, settings
from schemas.base import FiniteFloat, Name, Schema
from schemas.settings import SettingsError

DEFAULT_MEMORY_GIB = 8.0  # a mid-sized network and its pool


class RunConfigError(AgentError):
    """The configuration file is missing, no TOML, or breaks the schema."""


class ServerConfig(Schema):
    """The auditor's server, and what the auditor handed over. Paths are relative to the file."""

    url: str = Field(pattern=r"^https?://[^\s]+$")
    order: Name = Field(description="identifier of the order")
    trust_root: str = Field(description="path of the auditor's trust root")
    token_file: str | None = Field(
        default=None, description="path of the developer's token; else the variable AUDITKIT_TOKEN"
    )


class CodeConfig(Schema):
    """The developer's own training code. Paths are relative to the file."""

    loop: str = Field(description="Python file whose function `train` is the training loop")
    files: tuple[str, ...] = Field(
        default=(), description="further files and folders that the loop imports"
    )


class ContainerConfig(Schema):
    """The container that `auditkit train` runs in."""

    image: str = Field(description="path of the image's archive, from `auditkit package`")
    signature: str | None = Field(
        default=None, description="path of what `cosign download signature` gave for the image"
    )
    memory_gib: FiniteFloat = Field(default=DEFAULT_MEMORY_GIB, gt=0.0)
    cpus: FiniteFloat | None = Field(default=None, gt=0.0, description="None: all of the engine's")
    gpus: str | None = Field(
        default=None, description="`all`, or identifiers of GPUs with commas between them"
    )


class RunConfig(Schema):
    """One supervised run. Only `training` is sent to the auditor; paths stay here."""

    developer: str = Field(min_length=1, max_length=200)
    output: str = Field(description="folder of the run; is made if missing")
    server: ServerConfig
    pool: DataSource
    test: DataSource
    training: TrainingConfig
    code: CodeConfig | None = Field(default=None, description="None: the built-in training loop")
    container: ContainerConfig | None = Field(
        default=None, description="None: only `auditkit train --no-container` can run this"
    )


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        RunConfigError: it cannot be read, or is no TOML.
    """
    try:
        return settings.read_toml(path)
    except SettingsError as error:
        raise RunConfigError(str(error)) from error


def parse_run_config(document: dict[str, Any], source: str) -> RunConfig:
    """Validate a configuration that was read from `source`.

    Raises:
        RunConfigError: with the place of each mistake, and the likely correct name for a typo.
    """
    try:
        return settings.parse_settings(RunConfig, document, source)
    except SettingsError as error:
        raise RunConfigError(str(error)) from error
