"""What all displays with progress bars share."""

from typing import Self

from rich.progress import Progress


class Bars:
    """Bars that are shown from `__enter__` to `__exit__`."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
