"""`doctor`: what is missing on this machine, and how to get it."""

import importlib.metadata
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Table

from auditkit.cli.output import console, print_json

LEAST_PYTHON = (3, 11)
LEAST_FREE_BYTES = 2 * 10**9  # states, log and model of a mid-sized run
LEAST_MEMORY_BYTES = 4 * 10**9
EXIT_MISSING = 1

Outcome = Literal["ok", "missing", "optional"]
MARKS = {"ok": "[green]✔[/green]", "missing": "[bold red]✘[/bold red]", "optional": "[dim]–[/dim]"}


@dataclass(frozen=True)
class Diagnosis:
    """One thing that was looked at."""

    subject: str
    outcome: Outcome
    found: str
    advice: str = ""


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
        _engine,
    ]
    found = [check() for check in checks]
    if server is not None:
        found.append(_server(server))
    if as_json:
        print_json([asdict(diagnosis) for diagnosis in found])
    else:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
        for diagnosis in found:
            advice = f"\n[yellow]→ {diagnosis.advice}[/yellow]" if diagnosis.advice else ""
            table.add_row(MARKS[diagnosis.outcome], diagnosis.subject, diagnosis.found + advice)
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


def _engine() -> Diagnosis:
    for path in (Path("/var/run/docker.sock"), Path(f"/run/user/{os.getuid()}/podman/podman.sock")):
        if path.exists() and os.access(path, os.R_OK | os.W_OK):
            return Diagnosis("container engine", "ok", f"socket {path}")
    return Diagnosis(
        "container engine",
        "optional",
        "none found; runs are then recorded as outside a container, at assurance level L1",
        "on Debian: `apt-get install docker.io`, and add yourself to the group docker",
    )


def _server(url: str) -> Diagnosis:
    from developer_agent.client import ServerClient
    from developer_agent.errors import ServerError

    try:
        with ServerClient(url) as client:
            client.healthy()
    except ServerError as error:
        return Diagnosis(
            "auditor's server", "missing", str(error), "check the address and start it"
        )
    return Diagnosis("auditor's server", "ok", url)
