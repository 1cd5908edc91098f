"""What one sees while an image is built, and where its files are prepared."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)

from auditkit.cli.bars import Bars
from auditkit.cli.errors import UsageError
from auditkit.cli.output import error_console

CACHE_VARIABLE = "XDG_CACHE_HOME"
CACHE_FOLDER = "auditkit"
PREFIX = "image-"

WorkOption = Annotated[
    Path | None,
    typer.Option(
        "--work",
        help="Folder for large temporary files. Default: auditkit's own in your cache folder.",
    ),
]


class BuildProgress(Bars):
    """Implements `containers.progress.Progress`: a bar for each phase; a line without terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        super().__init__(progress)
        self._phase: str | None = None
        self._task = TaskID(0)

    def __call__(self, phase: str, done: int = 0, total: int = 0) -> None:
        """Show how far a phase is; a new one replaces the one before."""
        if phase != self._phase:
            if self._phase is not None:
                self._progress.remove_task(self._task)
            self._task = self._progress.add_task(phase, total=None)
            self._phase = phase
            if not self._console.is_terminal:
                self._console.print(phase, soft_wrap=True)
        self._progress.update(self._task, completed=done, total=total or None)


def check_writable(output: Path) -> None:
    """Look first whether an archive can be written, so that minutes of work are not in vain.

    Raises:
        UsageError: its folder is not there, or cannot be written to.
    """
    if not os.access(output.resolve().parent, os.W_OK):
        raise UsageError(f"cannot write {output}: make the folder {output.parent} first")


@contextmanager
def work_place(chosen: Path | None, *, keep: bool = False) -> Iterator[Path]:
    """Give a new folder for large temporary files, removed in the end unless it is to be kept.

    Args:
        chosen: the folder to make it in; None for the user's cache.
        keep: whether to leave it there.

    Raises:
        OSError: it cannot be made.
    """
    if chosen is None:
        cache = os.environ.get(CACHE_VARIABLE)
        chosen = (Path(cache) if cache else Path.home() / ".cache") / CACHE_FOLDER
    chosen.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix=PREFIX, dir=chosen)).resolve()
    try:
        yield place
    finally:
        if not keep:
            shutil.rmtree(place)


def build_trainer_image(output: Path) -> None:
    """Build the trainer's image on a base from Debian packages, or on the published one.

    Raises:
        OSError: a file cannot be written.
        ContainerError: a step failed; the subclass says which, and what to do.
    """
    from containers.base import build_base
    from containers.build import build_trainer, default_recipe
    from containers.pull import pull_base

    with work_place(None) as place, BuildProgress(error_console) as progress:
        base = place / "base.tar"
        if shutil.which("mmdebstrap"):
            build_base(base, place, progress=progress)
        else:
            pull_base(default_recipe().default_base, base, progress)
        build_trainer(base, output, place, progress)
