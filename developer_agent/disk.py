"""Writing files so that a crash at any moment leaves either the old content or the new."""

import contextlib
import os
import secrets
from pathlib import Path

from developer_agent.errors import DiskWriteError

PUBLIC_MODE = 0o644
PRIVATE_MODE = 0o600  # keys: readable by their owner only


_TEMPORARY_SUFFIX = ".being-written"


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable: creation, renaming and removal of its files."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_durably(path: Path) -> None:
    """Remove a file, which may be missing, so that it stays removed.

    Raises:
        DiskWriteError: it can't be removed, or not durably; calling again is safe.
    """
    try:
        path.unlink(missing_ok=True)
        sync_folder(path.parent)
    except OSError as error:
        raise DiskWriteError(
            f"cannot remove {path}: {error.strerror}; check the disk and the folder's permissions, "
            "then try again"
        ) from error


def write_all(descriptor: int, data: bytes) -> None:
    """Write every byte; one `write` call takes at most 2 GiB, and less on a full disk.

    Raises:
        OSError: not all bytes could be written.
    """
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def write_atomically(path: Path, data: bytes, mode: int = PUBLIC_MODE) -> None:
    """Replace a file: temporary file, fsync, rename, fsync of the folder.

    Raises:
        DiskWriteError: the disk is full or the folder not writable; the old content is intact.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}{_TEMPORARY_SUFFIX}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.rename(path)
        sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):  # what is left of it goes when the run is next locked
            temporary.unlink(missing_ok=True)
        raise DiskWriteError(
            f"cannot write {len(data)} bytes to {path}: {error.strerror}. The file's previous "
            "content is intact; make room or check the folder's permissions, then try again"
        ) from error


def is_temporary(path: Path) -> bool:
    """Tell whether a file is what an unfinished write leaves."""
    return path.name.startswith(".") and path.name.endswith(_TEMPORARY_SUFFIX)


def remove_temporaries(folder: Path) -> None:
    """Remove what a crash left of unfinished writes; nobody else may be writing there.

    Raises:
        DiskWriteError: one can't be removed.
    """
    for temporary in folder.glob(f".*{_TEMPORARY_SUFFIX}"):
        remove_durably(temporary)
