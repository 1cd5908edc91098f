"""What one sees while a closed container is prepared and started."""

from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn

from auditkit.cli.bars import Bars
from containers.engine import EngineFacts
from schemas import ContainerDescription

GIB = 2**30


class LaunchProgress(Bars):
    """Implements the launcher's display: bars for what takes long, a line for what is proven."""

    def __init__(self, console: Console) -> None:
        self._console = console
        progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            DownloadColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        super().__init__(progress)
        self._tasks: dict[str, TaskID] = {}

    def identifying(self, archive: Path) -> None:
        """Say that the archive is being hashed."""
        self._progress.add_task(f"hashing every byte of {archive.name}", total=None)

    def loading(self, done: int, total: int) -> None:
        """Move the bar of the engine's taking in."""
        self._move("the engine takes the image in", done, total)

    def checking(self, done: int, total: int) -> None:
        """Move the bar of the comparison of the container's files with the image's."""
        self._move("comparing the container's files with the image", done, total)

    def removed(self, container_id: str) -> None:
        """Say that a container was left behind."""
        self._console.print(f"removed container {container_id[:12]}, which an earlier run left")

    def started(self, engine: EngineFacts, description: ContainerDescription) -> None:
        """Say what was verified, and stop the bars: the container's own output follows."""
        self._progress.stop()
        self._console.print(
            f"container [bold]{description.container_id[:12]}[/bold] of image "
            f"{description.image_id[:16]}…, checked after its start: no network, read-only root, "
            f"no capabilities, {description.memory_bytes / GIB:g} GiB, {description.cpus:g} cores "
            f"({engine.name} {engine.version})",
            soft_wrap=True,
        )

    def stopping(self) -> None:
        """Say that the stop was understood."""
        self._console.print("stopping; once more to kill the container")

    def killed(self, *, out_of_memory: bool) -> None:
        """Say that the container was killed, and why if that is known."""
        why = (
            "its memory was used up; raise container.memory_gib"
            if out_of_memory
            else "by somebody, or by the system"
        )
        self._console.print(
            f"[bold red]error:[/bold red] the container was killed: {why}. What the auditor has "
            "acknowledged is safe; go on with [cyan]auditkit train --resume[/cyan]",
            soft_wrap=True,
        )

    def _move(self, what: str, done: int, total: int) -> None:
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what)
        self._progress.update(self._tasks[what], completed=done, total=total or None)
