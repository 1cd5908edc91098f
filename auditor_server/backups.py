"""A copy of an auditor's home that can take its place, made while the server runs.

The database comes first and everything else after it: a file is always stored before the row that
names it, and none is deleted meanwhile. So the copy has at least what its database names.
"""

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path

from auditor_server.errors import BackupError
from auditor_server.home import (
    BLOBS_FOLDER,
    COPIES_FOLDER,
    DATABASE_FILE,
    KEYS_FOLDER,
    PRIVATE_FOLDER_MODE,
    Home,
    write_private,
)
from auditor_server.process_locks import LOCKS_FOLDER, RETENTION, together
from auditor_server.store.blobs import INCOMING_PREFIX, sync, write_durably

MARK_FILE = "backup.json"
"""Written last: a folder with it is a whole backup."""

# Of one process of the server, or needed by nobody.
NOT_COPIED = {LOCKS_FOLDER, COPIES_FOLDER, DATABASE_FILE, MARK_FILE}
NOT_COPIED |= {f"{DATABASE_FILE}-wal", f"{DATABASE_FILE}-shm"}
OnFile = Callable[[str], None]


def back_up(home: Home, destination: Path, now: datetime, on_file: OnFile) -> bool:
    """Copy a home, and return whether its database is in the copy.

    A database that is not in the home, PostgreSQL, has tools of its own and must have been copied
    before.

    Args:
        home: that of a server which may be running.
        destination: folder to make; it may exist if it is empty.
        now: goes into the copy.
        on_file: called with each file's name before it is copied.

    Raises:
        BackupError: something lies at `destination`.
        OSError, sqlite3.Error: it can't be written, or the home can't be read.

    """
    _make_empty(destination)
    has_database = (home.path / DATABASE_FILE).exists()
    with together(home.path, RETENTION):
        if has_database:
            on_file(DATABASE_FILE)
            _copy_database(home.path / DATABASE_FILE, destination / DATABASE_FILE)
        _copy(home.path, destination, on_file)
    mark = {"made_at": now.isoformat(), "database": has_database}
    write_durably(destination / MARK_FILE, json.dumps(mark).encode())
    return has_database


def restore(backup: Path, home: Path, on_file: OnFile) -> None:
    """Make a home from a backup.

    Args:
        backup: that `back_up` has made.
        home: folder to make; it may exist if it is empty.
        on_file: see `back_up`.

    Raises:
        BackupError: this is no backup or not a whole one, or something lies at `home`.
        OSError: it can't be written, or the backup can't be read.

    """
    if not (backup / MARK_FILE).is_file():
        raise BackupError(
            f"{backup} is no whole backup ({MARK_FILE} not found, which is written last); take "
            "another one"
        )
    _make_empty(home)
    if (backup / DATABASE_FILE).exists():
        on_file(DATABASE_FILE)
        write_private(home / DATABASE_FILE, b"")
        shutil.copyfile(backup / DATABASE_FILE, home / DATABASE_FILE)
        sync(home / DATABASE_FILE)
    _copy(backup, home, on_file)


def _make_empty(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BackupError(f"{folder} is not empty; choose another folder, nothing is overwritten")
    # Private keys are in it.
    folder.mkdir(mode=PRIVATE_FOLDER_MODE, parents=True, exist_ok=True)
    folder.chmod(PRIVATE_FOLDER_MODE)


def _copy_database(source: Path, destination: Path) -> None:
    """Copy a database as it is at one moment, also while others write."""
    write_private(destination, b"")
    with closing(sqlite3.connect(source)) as reader, closing(sqlite3.connect(destination)) as copy:
        reader.backup(copy)  # in one go: it would begin anew with each change in between
    sync(destination)


def _copy(source: Path, destination: Path, on_file: OnFile) -> None:
    for path in _files(source):
        name = path.relative_to(source)
        on_file(str(name))
        target = destination / name
        for folder in reversed(target.relative_to(destination).parents):
            (destination / folder).mkdir(mode=PRIVATE_FOLDER_MODE, exist_ok=True)
        try:
            write_private(target, b"")
            shutil.copyfile(path, target)
            shutil.copystat(path, target)
        except FileNotFoundError:
            # What a training with an auditor's T no longer needs goes away while it runs.
            target.unlink()
            continue
        sync(target)
    for empty in (KEYS_FOLDER, BLOBS_FOLDER):
        (destination / empty).mkdir(mode=PRIVATE_FOLDER_MODE, exist_ok=True)


def _files(folder: Path) -> Iterator[Path]:
    for found in sorted(folder.iterdir()):
        if found.name in NOT_COPIED or found.name.startswith(INCOMING_PREFIX):
            continue
        if found.is_dir():
            yield from _files(found)
        elif found.is_file():
            yield found
