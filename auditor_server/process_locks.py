"""Work that only one thread of all of a server's processes may do at a time.

The lock belongs to the open file, so the system takes it back from a process that dies.
"""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

LOCKS_FOLDER = "locks"
RETENTION = "retention"
"""Whoever deletes stored files does so alone; whoever stores or copies them, together."""

POLL_SECONDS = 0.1


class LockTimeoutError(Exception):
    """Others were inside all the time; it never leaves the server's own code."""


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
def alone_within(home: Path, name: str, seconds: float) -> Iterator[None]:
    """As `alone`, without waiting for ever.

    Raises:
        LockTimeoutError: others were inside all the time.
    """
    deadline = time.monotonic() + seconds
    with _file(home, name) as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise LockTimeoutError(
                        f"others were served all the time, for {seconds:g} s"
                    ) from None
                time.sleep(POLL_SECONDS)
        yield


@contextmanager
def together(home: Path, name: str) -> Iterator[None]:
    """Wait until nobody is `alone` inside under this name, then keep those out who want to be."""
    with _locked(home, name, fcntl.LOCK_SH):
        yield


@contextmanager
def _locked(home: Path, name: str, kind: int) -> Iterator[None]:
    with _file(home, name) as file:
        fcntl.flock(file, kind)
        yield


def _file(home: Path, name: str) -> BinaryIO:
    folder = home / LOCKS_FOLDER
    folder.mkdir(exist_ok=True)
    return (folder / name).open("wb")
