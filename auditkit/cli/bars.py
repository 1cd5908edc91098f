"""What all displays with progress bars share."""

from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class Bars:
    """Bars that are shown from `__enter__` to `__exit__`."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


class TrainingBar(Bars):
    """How many of a study's trainings are done; plain lines where there is no terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(compact=True),
            console=console,
            disable=not console.is_terminal,
        )
        super().__init__(progress)
        self._task = progress.add_task("trainings", total=None)

    def started(self, title: str) -> None:
        """Name the training that runs now."""
        self._progress.update(self._task, description=title)

    def finished(self, done: int, total: int, line: str) -> None:
        """Move the bar; `line` says what is done where there is no bar."""
        self._progress.update(self._task, completed=done, total=total)
        if not self._console.is_terminal:
            self._console.print(f"  {done}/{total} {line}")
