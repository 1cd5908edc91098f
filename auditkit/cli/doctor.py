"""`doctor`: what is missing on this machine, and how to get it."""

import importlib.metadata
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from auditkit.cli.output import console, print_json, quoted

if TYPE_CHECKING:
    from containers.engine import EngineFacts
    from containers.engine_errors import EngineError

LEAST_PYTHON = (3, 11)
LEAST_FREE_BYTES = 2 * 10**9  # states, log and model of a mid-sized run
LEAST_MEMORY_BYTES = 4 * 10**9
EXIT_MISSING = 1

IMAGE_BYTES = 6_200_000_000  # with the CUDA build of torch
IMAGE_COPIES = 3  # the archive, what the engine unpacks it to, and its files
LEAST_ENGINE_BYTES = IMAGE_COPIES * IMAGE_BYTES
GIB = 2**30
NVIDIA_CONTROL = Path("/dev/nvidiactl")  # the driver makes it when it finds a GPU
BASE_BUILDER = "mmdebstrap"

Outcome = Literal["ok", "missing", "optional"]
MARKS = {"ok": "[green]✔[/green]", "missing": "[bold red]✘[/bold red]", "optional": "[dim]–[/dim]"}


@dataclass(frozen=True)
class Diagnosis:
    """One thing that was looked at."""

    subject: str
    outcome: Outcome
    found: str
    advice: str = ""


@dataclass(frozen=True)
class EngineOnMachine:
    """A container engine, and what there is of the machine for it.

    Args:
        facts: what the engine says about itself.
        free_bytes: on the disk of the engine's folder; None when it cannot be looked at.
        has_nvidia_gpu: whether the machine has a GPU with its driver.
    """

    facts: "EngineFacts"
    free_bytes: int | None
    has_nvidia_gpu: bool


def doctor(
    server: Annotated[
        str | None,
        typer.Option("--server", envvar="AUDITKIT_SERVER", help="Also ask this server."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Say what is missing on this machine, and how to get it.

    Exit code 1 when something that is needed is missing.
    """
    checks: list[Callable[[], Diagnosis]] = [
        _python,
        _torch_pair,
        _timm,
        _memory,
        _disk,
        _gpu,
    ]
    found = [check() for check in checks]
    found += engine_diagnoses(_engine())
    found.append(_base_builder())
    if server is not None:
        found.append(_server(server))
    if as_json:
        print_json([asdict(diagnosis) for diagnosis in found])
    else:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
        for diagnosis in found:
            advice = f"\n[yellow]→ {quoted(diagnosis.advice)}[/yellow]" if diagnosis.advice else ""
            table.add_row(
                MARKS[diagnosis.outcome], diagnosis.subject, quoted(diagnosis.found) + advice
            )
        console.print(table)
    if any(diagnosis.outcome == "missing" for diagnosis in found):
        sys.exit(EXIT_MISSING)


def _python() -> Diagnosis:
    version = ".".join(str(part) for part in sys.version_info[:3])
    if sys.version_info >= LEAST_PYTHON:
        return Diagnosis("Python", "ok", version)
    return Diagnosis("Python", "missing", version, "install Python 3.11 or newer")


def _torch_pair() -> Diagnosis:
    advice = "install a matching pair with `pip install --upgrade torch torchvision`"
    try:
        import torch
        import torchvision

        torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except (ImportError, RuntimeError) as error:
        return Diagnosis(
            "torch and torchvision", "missing", f"do not work together: {error}", advice
        )
    return Diagnosis(
        "torch and torchvision",
        "ok",
        f"{torch.__version__} and {torchvision.__version__}, "
        f"{torch.backends.cpu.get_cpu_capability()}, {os.cpu_count()} CPU cores",
    )


def _timm() -> Diagnosis:
    try:
        return Diagnosis("timm", "ok", importlib.metadata.version("timm"))
    except importlib.metadata.PackageNotFoundError:
        return Diagnosis("timm", "missing", "not installed", "`pip install timm`")


def _memory() -> Diagnosis:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    text = f"{total / 1e9:.0f} GB"
    if total >= LEAST_MEMORY_BYTES:
        return Diagnosis("memory", "ok", text)
    return Diagnosis("memory", "missing", text, "training wants 4 GB or more")


def _disk() -> Diagnosis:
    here = Path.cwd()
    free = shutil.disk_usage(here).free
    try:
        with tempfile.TemporaryFile(dir=here):
            writable = True
    except OSError:
        writable = False
    text = f"{free / 1e9:.0f} GB free in this folder"
    if not writable:
        return Diagnosis(
            "disk", "missing", "this folder is not writable", "work in a folder that you own"
        )
    if free < LEAST_FREE_BYTES:
        return Diagnosis("disk", "missing", text, "runs keep states and logs: free 2 GB")
    return Diagnosis("disk", "ok", text)


def _gpu() -> Diagnosis:
    import torch

    if torch.cuda.is_available():
        return Diagnosis("GPU", "ok", torch.cuda.get_device_name(0))
    return Diagnosis("GPU", "optional", "none found; training runs on the CPU")


def engine_diagnoses(found: "EngineOnMachine | EngineError") -> list[Diagnosis]:
    """Say what a container engine lacks for running a training, and how to get it.

    Nothing of it is necessary: without an engine, `auditkit train --no-container` still works.

    Args:
        found: the engine and the machine that it runs on, or why there is none.
    """
    if not isinstance(found, EngineOnMachine):
        return [
            Diagnosis(
                "container engine",
                "optional",
                "none that can be used; runs are then recorded as outside a container, at "
                "assurance level L1",
                str(found),
            )
        ]
    checks = (_which_engine, _limits, _engine_disk, _engine_memory, _engine_gpus)
    return [diagnosis for check in checks if (diagnosis := check(found)) is not None]


def _engine() -> "EngineOnMachine | EngineError":
    from containers.engine import Engine
    from containers.engine_errors import EngineError

    try:
        with Engine.connect() as engine:
            facts = engine.facts()
    except EngineError as error:
        return error
    try:
        free = shutil.disk_usage(facts.root_folder).free
    except OSError:
        free = None
    return EngineOnMachine(facts, free, has_nvidia_gpu=NVIDIA_CONTROL.exists())


def _which_engine(found: EngineOnMachine) -> Diagnosis:
    facts = found.facts
    text = f"{facts} at {facts.address}{', rootless' if facts.rootless else ''}"
    if facts.experimental:
        return Diagnosis(
            "container engine",
            "ok",
            text,
            f"support for {facts.name} is experimental: what is tested is Docker",
        )
    return Diagnosis("container engine", "ok", text)


def _limits(found: EngineOnMachine) -> Diagnosis | None:
    facts = found.facts
    if facts.enforces_limits:
        return None
    return Diagnosis(
        "limits of containers",
        "optional",
        f"not enforced by {facts.name} with cgroup v{facts.cgroup_version}; it will not be used",
        "boot with cgroup v2 (kernel option `systemd.unified_cgroup_hierarchy=1`), or use an "
        "engine that runs as root",
    )


def _engine_disk(found: EngineOnMachine) -> Diagnosis:
    folder = found.facts.root_folder
    needed = f"{LEAST_ENGINE_BYTES / 1e9:.0f} GB"
    if found.free_bytes is None:
        return Diagnosis(
            "disk of the engine",
            "optional",
            f"cannot be looked at: {folder}",
            f"see that {needed} are free there",
        )
    text = f"{found.free_bytes / 1e9:.0f} GB free in {folder}"
    if found.free_bytes >= LEAST_ENGINE_BYTES:
        return Diagnosis("disk of the engine", "ok", text)
    return Diagnosis(
        "disk of the engine",
        "optional",
        text,
        f"an image with CUDA takes {IMAGE_BYTES / 1e9:.1f} GB, {IMAGE_COPIES} times over while it "
        f"is loaded: free {needed} (`docker system df` shows what takes space), or move the "
        "engine's folder (`data-root` in /etc/docker/daemon.json)",
    )


def _engine_memory(found: EngineOnMachine) -> Diagnosis | None:
    from developer_agent.run_config import DEFAULT_MEMORY_GIB

    if found.facts.memory_bytes >= DEFAULT_MEMORY_GIB * GIB:
        return None
    return Diagnosis(
        "memory of containers",
        "optional",
        f"{found.facts.memory_bytes / GIB:.1f} GiB in all, less than the {DEFAULT_MEMORY_GIB:.0f} "
        "GiB that a container is given by default",
        "set `memory_gib` in the configuration's section [container]",
    )


def _engine_gpus(found: EngineOnMachine) -> Diagnosis | None:
    from containers.lockdown import GPU_ADVICE

    if not found.has_nvidia_gpu:
        return None
    if found.facts.gpu_support is not None:
        return Diagnosis("GPUs in containers", "ok", f"by the engine's {found.facts.gpu_support}")
    return Diagnosis(
        "GPUs in containers",
        "optional",
        "the machine has one, and the engine cannot pass it on",
        GPU_ADVICE,
    )


def _base_builder() -> Diagnosis:
    found = shutil.which(BASE_BUILDER)
    if found is not None:
        return Diagnosis("builder of bases", "ok", found)
    return Diagnosis(
        "builder of bases",
        "optional",
        f"{BASE_BUILDER} not found; only `auditkit image base` needs it",
        f"on Debian or Ubuntu: `sudo apt-get install {BASE_BUILDER}`",
    )


def _server(url: str) -> Diagnosis:
    from auditkit.client import AuditorClient, ClientError

    try:
        with AuditorClient(url, retries=0) as client:
            client.health()
    except ClientError as error:
        return Diagnosis(
            "auditor's server", "missing", str(error), "check the address and start it"
        )
    return Diagnosis("auditor's server", "ok", url)
