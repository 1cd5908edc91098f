"""What all displays with progress bars share."""

from types import TracebackType
from typing import Self

from rich.progress import Progress


class Bars:
    """Bars that are shown from `__enter__` to `__exit__`."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()
