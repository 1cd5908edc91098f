"""The training process: what it runs on, which code it runs, and how it is made deterministic."""

import ctypes
import hashlib
import importlib.metadata
import platform
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from schemas import Environment

PACKAGES = ("schemas", "auditkit", "developer_agent")

PROCESSORS = Path("/proc/cpuinfo")
UNKNOWN_PROCESSOR = "cpu"

# glibc's mallopt (malloc.h). Keeping freed memory instead of returning it to the kernel after each
# step saves most page faults of a CPU training.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
TRIM_THRESHOLD_BYTES = 2**31 - 1

# Each is a vectorised function whose first call picks an implementation; under load that choice
# has been seen to differ between two threads of one process.
WARM_UP_FUNCTIONS = (
    torch.exp,
    torch.log,
    torch.log1p,
    torch.sqrt,
    torch.rsqrt,
    torch.sigmoid,
    torch.tanh,
    torch.erf,
)


@dataclass(frozen=True)
class SourceFile:
    """One of the developer's own source files, and what it is called wherever it lies."""

    name: str
    path: Path


def make_deterministic(threads: int) -> None:
    """Fix threads and algorithms so that the same session gives the same weights, bit for bit.

    Must run before the first tensor operation of the process.
    """
    _keep_freed_memory()
    torch.set_num_threads(1)
    for dtype in (torch.float32, torch.float64):
        small = torch.linspace(0.1, 1.0, 64, dtype=dtype)
        for function in WARM_UP_FUNCTIONS:
            function(small)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(mode=True)


def _keep_freed_memory() -> None:
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_MAX, 0)
    libc.mallopt(M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES)


def describe_environment(threads: int) -> Environment:
    """Return what a replay must match to be exact."""
    return Environment(
        python=platform.python_version(),
        torch=torch.__version__,
        torchvision=importlib.metadata.version("torchvision"),
        timm=importlib.metadata.version("timm"),
        auditkit=importlib.metadata.version("auditkit"),
        platform=platform.platform(),
        cpu_capability=torch.backends.cpu.get_cpu_capability(),
        threads=threads,
        device=_processor(),
    )


def _processor() -> str:
    """Return the model of the processor: libraries choose their code by more than its features."""
    try:
        lines = PROCESSORS.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return (names[0] if names else platform.processor() or platform.machine()) or UNKNOWN_PROCESSOR


def code_digest(extra_files: Iterable[SourceFile] = ()) -> str:
    """Digest of the training code as it lies on disk: this toolkit and the developer's own files.

    SHA-256 over the sorted lines `<sha256 of file>  <name>`, so that anyone can recompute it with
    `sha256sum`. The developer's files are called `user/<name>`.
    """
    lines = []
    for package in PACKAGES:
        module_file = sys.modules[package].__file__ if package in sys.modules else None
        if module_file is None:
            continue
        root = Path(module_file).parent
        lines += [_line(path, f"{package}/{path.relative_to(root)}") for path in root.rglob("*.py")]
    lines += [_line(file.path, f"user/{file.name}") for file in extra_files]
    return hashlib.sha256("".join(sorted(set(lines))).encode()).hexdigest()


def _line(path: Path, name: str) -> str:
    return f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {name}\n"
