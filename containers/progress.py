"""How long work says how far it is, to whoever wants to know."""

from collections.abc import Iterable, Iterator
from typing import Protocol


class Progress(Protocol):
    """Is told, again and again, what is being done."""

    def __call__(self, phase: str, done: int = 0, total: int = 0) -> None:
        """Take the name of a phase, and how much of it is done; a total of 0 is unknown."""


def silent(phase: str, done: int = 0, total: int = 0) -> None:
    """Tell nobody."""


class Counter:
    """Counts bytes of one phase as they pass."""

    def __init__(self, progress: Progress, phase: str, total: int) -> None:
        """Take whom to tell, the name of the phase, and how many bytes are expected."""
        self._progress = progress
        self._phase = phase
        self._total = total
        self._done = 0

    def count(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Return the pieces unchanged."""
        for piece in pieces:
            self._done += len(piece)
            self._progress(self._phase, self._done, self._total)
            yield piece
