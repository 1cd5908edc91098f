"""Work that only one thread of all of a server's processes may do at a time.

The lock belongs to the open file, so the system takes it back from a process that dies.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCKS_FOLDER = "locks"
RETENTION = "retention"
"""Whoever deletes stored files does so alone; whoever stores or copies them, together."""


@contextmanager
def alone(home: Path, name: str) -> Iterator[None]:
    """Wait until nobody else is inside under this name, then keep all others out.

    Args:
        home: the auditor's home, which all processes share.
        name: of the work; one that can be a file's name.
    """
    with _locked(home, name, fcntl.LOCK_EX):
        yield


@contextmanager
def together(home: Path, name: str) -> Iterator[None]:
    """Wait until nobody is `alone` inside under this name, then keep those out who want to be."""
    with _locked(home, name, fcntl.LOCK_SH):
        yield


@contextmanager
def _locked(home: Path, name: str, kind: int) -> Iterator[None]:
    folder = home / LOCKS_FOLDER
    folder.mkdir(exist_ok=True)
    with (folder / name).open("wb") as file:
        fcntl.flock(file, kind)
        yield
