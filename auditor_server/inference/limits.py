"""What a worker may take of the machine; it limits itself before it opens anything of others."""

import math
import resource
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

# Standard streams, the connection, one file at a time, and what libraries keep open.
MOST_OPEN_FILES = 64


class WorkerKind(StrEnum):
    """What a worker is for; each kind runs in processes of its own."""

    IMAGES = "images"
    MODELS = "models"


class WorkerSettings(BaseModel):
    """What the server tells a worker when it starts it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: WorkerKind
    memory_bytes: int = Field(gt=0, description="beyond what a worker takes to be ready")
    models: int = Field(default=1, gt=0, description="how many models are kept loaded")
    blobs: Path = Field(description="folder of submitted files")


def limit_files() -> None:
    """Write no file, leave no memory image behind, and hold few files open."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (MOST_OPEN_FILES, MOST_OPEN_FILES))


def limit_memory(more_bytes: int) -> None:
    """Let the address space grow by so much and no more, for good."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    most = pages * resource.getpagesize() + more_bytes
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def limit_processor_time(more_seconds: float) -> None:
    """Be stopped after so much more processor time, also if the server is not there to do it."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    most = math.ceil(used.ru_utime + used.ru_stime + more_seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (most, hard))
