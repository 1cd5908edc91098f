"""Everything that a process does to one folder, counted; and the one call that goes wrong.

What is counted are the calls that change a folder on disk: creating, writing, syncing, cutting,
renaming and removing files, and what SQLite is told to write and to commit. The path of a call is
looked up when it is made, so only the folder that is watched is harmed.
"""

import builtins
import errno
import io
import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple
from unittest.mock import patch

from sqlalchemy import event
from sqlalchemy.engine import Engine

from auditor_server import home as auditor_home

Action = Literal["EIO", "ENOSPC", "short", "die", "torn", "power"]
"""What happens at the call that is struck.

`EIO`, `ENOSPC`: it fails and changes nothing. `short`: a write takes half of its bytes and says so.
`die`: the process ends before the call. `torn`: it ends when half of a write is done. `power`: the
machine ends before the call; what was not synced is lost.

A commit is two calls: failing or dying at `committed` means that it was made and nobody was told.
"""
_RANDOM = re.compile(r"\.[0-9a-f]{16}(?=\.being-written)|(?<=\.incoming-).*|[0-9a-f]{64}")
_WRITING_STATEMENT = re.compile(r"\s*(BEGIN IMMEDIATE|INSERT|UPDATE|DELETE)", re.IGNORECASE)


class Call(NamedTuple):
    """One call that changes the folder."""

    operation: str
    name: str
    """The file, relative to the folder, without what is random in its name."""


class PowerCut(BaseException):
    """The process is no more: whatever it tries to write from here on does not happen."""


@dataclass
class Faults:
    """Counts the calls on a folder, and lets call number `strike` go wrong.

    Use as `with faults.watching():`.
    """

    folder: Path
    strike: int | None = None
    action: Action = "die"
    target: Call | None = None
    """Instead of a number: the next call like this one goes wrong."""
    kill: Callable[[], None] | None = None
    """Ends a real process; None: `PowerCut` is raised, now and at each later call."""
    calls: list[Call] = field(default_factory=list)
    dead: bool = False
    _connections: list[sqlite3.Connection] = field(default_factory=list)
    _disk: "Disk | None" = None
    _real: dict[str, Any] = field(default_factory=dict)

    @property
    def struck(self) -> Call | None:
        """The call that went wrong, if it was reached."""
        reached = self.strike is not None and self.strike < len(self.calls)
        return self.calls[self.strike] if reached and self.strike is not None else None

    @contextmanager
    def watching(self) -> Iterator["Faults"]:
        """Watch the folder until the block ends; then, if power was cut, lose what was unsynced."""
        self.folder = self.folder.resolve()
        names = (
            *("open", "write", "fsync", "fdatasync", "ftruncate"),
            *("rename", "replace", "unlink", "mkdir"),
        )
        self._real = {name: getattr(os, name) for name in names}
        self._real["io.open"] = io.open
        if self.action == "power":
            self._disk = Disk(self.folder)
        patches = [
            patch.object(os, "open", self._open),
            patch.object(os, "write", self._write),
            patch.object(os, "mkdir", self._by_path("mkdir")),
            patch.object(os, "unlink", self._by_path("unlink")),
            patch.object(os, "rename", self._by_path("rename")),
            patch.object(os, "replace", self._by_path("replace")),
            patch.object(os, "ftruncate", self._by_descriptor("ftruncate")),
            patch.object(os, "fsync", self._by_descriptor("fsync")),
            patch.object(os, "fdatasync", self._by_descriptor("fdatasync")),
            patch.object(io, "open", self._open_file),
            patch.object(builtins, "open", self._open_file),
            patch.object(auditor_home, "make_engine", self._watched(auditor_home.make_engine)),
        ]
        for one in patches:
            one.start()
        try:
            yield self
        finally:
            for one in reversed(patches):
                one.stop()
            if self.dead:
                self._abandon()

    def revive(self) -> None:
        """Begin the next process: nothing of the one before is left but its files."""
        if self.dead:
            self._abandon()
            self.dead = False

    def _abandon(self) -> None:
        for connection in self._connections:
            connection.close()  # rolls back what was not committed, as opening it after a kill does
        self._connections.clear()
        if self._disk is not None:
            self._disk.lose_unsynced()

    # What every counted call goes through

    def _strikes(self, operation: str, name: str) -> Action | None:
        """Count a call; say what goes wrong with it; end the process if that is to happen now."""
        if self.dead:
            raise PowerCut
        call = Call(operation, _RANDOM.sub("", name))
        self.calls.append(call)
        if call != self.target and self.strike != len(self.calls) - 1:
            return None
        if self.action in ("die", "power"):
            self._die()
        if self.action in ("EIO", "ENOSPC"):
            number = getattr(errno, self.action)
            raise OSError(number, os.strerror(number))
        return self.action

    def _die(self) -> None:
        self.dead = True
        if self.kill is not None:
            self.kill()
        raise PowerCut

    def _relative(self, path: Any) -> str | None:
        """Return a path under the folder, relative to it; None: it lies elsewhere."""
        absolute = Path(path).absolute()
        inside = absolute == self.folder or self.folder in absolute.parents
        return str(absolute.relative_to(self.folder)) if inside else None

    def _name_of(self, descriptor: int) -> str | None:
        return self._relative(Path(f"/proc/self/fd/{descriptor}").readlink())

    # The calls of `os`

    def _open(self, path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        creates = flags & os.O_CREAT and not os.path.lexists(path)
        if creates and (name := self._relative(path)) is not None:
            self._strikes("create", name)
        return int(self._real["open"](path, flags, *arguments, **options))

    def _write(self, descriptor: int, data: Any) -> int:
        name = self._name_of(descriptor)
        if name is None:
            return int(self._real["write"](descriptor, data))
        return self._half_or_all(name, data, lambda part: self._real["write"](descriptor, part))

    def _half_or_all(self, name: str, data: Any, write: Callable[[Any], int]) -> int:
        action = self._strikes("write", name)
        if action not in ("short", "torn"):
            return int(write(data))
        written = int(write(memoryview(data)[: len(data) // 2]))
        if action == "torn":
            self._die()
        return written

    def _by_path(self, operation: str) -> Callable[..., Any]:
        def call(path: Any, *arguments: Any, **options: Any) -> Any:
            name = self._relative(path)
            if name is not None:
                self._strikes(operation, name)
            return self._real[operation](path, *arguments, **options)

        return call

    def _by_descriptor(self, operation: str) -> Callable[..., Any]:
        def call(descriptor: int, *arguments: Any) -> Any:
            name = self._name_of(descriptor)
            if name is not None:
                self._strikes(operation, name)
            answer = self._real[operation](descriptor, *arguments)
            if self._disk is not None and name is not None and operation != "ftruncate":
                self._disk.synced(self.folder / name)
            return answer

        return call

    # Files that Python buffers

    def _open_file(self, file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        writes = mode in ("wb", "xb", "ab")
        name = None
        if writes:
            name = self._name_of(file) if isinstance(file, int) else self._relative(file)
        if name is None:
            return self._real["io.open"](file, mode, *arguments, **options)
        if not isinstance(file, int) and not os.path.lexists(file):
            self._strikes("create", name)
        faults = self

        class Watched(io.FileIO):
            def write(self, data: Any) -> int:
                return faults._half_or_all(name, data, super().write)

        return io.BufferedWriter(Watched(file, mode))

    # SQLite

    def _watched(self, make_engine: Callable[[str], Engine]) -> Callable[[str], Engine]:
        def make(url: str) -> Engine:
            engine = make_engine(url)
            event.listen(engine, "do_connect", self._connect)
            return engine

        return make

    def _connect(self, _dialect: object, _record: object, _given: object, options: Any) -> None:
        options["factory"] = _watched_connection(self._database, self._connections)
        options["check_same_thread"] = False

    def _database(self, operation: str) -> None:
        try:
            self._strikes(operation, "database")
        except OSError as error:
            full = error.errno == errno.ENOSPC
            reason = "database or disk is full" if full else "disk I/O error"
            raise sqlite3.OperationalError(reason) from error


def _announce(cursor: sqlite3.Cursor, statement: str, count: Callable[[str], None]) -> None:
    if found := _WRITING_STATEMENT.match(statement):
        count(found[1].split()[0].lower())
        cursor.connection.writes = True  # type: ignore[attr-defined]


def _watched_connection(
    count: Callable[[str], None], opened: list[sqlite3.Connection]
) -> type[sqlite3.Connection]:
    """A connection that counts the statements and commits of transactions that write."""

    class WatchedCursor(sqlite3.Cursor):
        def execute(self, statement: str, *parameters: Any) -> Any:
            _announce(self, statement, count)
            return super().execute(statement, *parameters)

        def executemany(self, statement: str, *parameters: Any) -> Any:
            _announce(self, statement, count)
            return super().executemany(statement, *parameters)

    class WatchedConnection(sqlite3.Connection):
        writes = False

        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            opened.append(self)

        def cursor(self, factory: Any = WatchedCursor) -> Any:
            return super().cursor(factory)

        def commit(self) -> None:
            if not self.writes:
                super().commit()
                return
            self.writes = False
            count("commit")
            super().commit()
            count("committed")

        def rollback(self) -> None:
            self.writes = False
            super().rollback()

    return WatchedConnection


class Disk:
    """What of a folder would still be there if the power went now.

    A file's content is what it was at its last sync, and a name is what it was when its folder was
    synced. Folders themselves stay.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: dict[Path, dict[str, int]] = {}
        self._contents: dict[int, bytes] = {}
        self._held: dict[int, int] = {}  # an open file's inode number is not given to another
        for path in [folder, *folder.rglob("*")]:
            if path.is_file():
                self.synced(path)
        for path in [folder, *folder.rglob("*")]:
            if path.is_dir():
                self.synced(path)

    def synced(self, path: Path) -> None:
        """A file or folder was synced."""
        if path.is_dir():
            self._names[path] = {
                entry.name: self._hold(Path(entry.path))
                for entry in os.scandir(path)
                if entry.is_file(follow_symlinks=False)
            }
        elif path.exists():
            self._contents[self._hold(path)] = path.read_bytes()

    def _hold(self, path: Path) -> int:
        number = path.stat().st_ino
        if number not in self._held:
            self._held[number] = os.open(path, os.O_RDONLY)
        return number

    def lose_unsynced(self) -> None:
        """Make the folder what it would be."""
        folders = [self._folder, *(path for path in self._folder.rglob("*") if path.is_dir())]
        for folder in filter(Path.is_dir, folders):
            for path in [entry for entry in folder.iterdir() if entry.is_file()]:
                path.unlink()
            # A folder that was never synced has no names that would last.
            for name, number in self._names.get(folder, {}).items():
                (folder / name).write_bytes(self._contents.get(number, b""))
        for descriptor in self._held.values():
            os.close(descriptor)
