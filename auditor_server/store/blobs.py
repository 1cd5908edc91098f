"""Content-addressed files: the name of a blob is its SHA-256, so a blob never changes."""

import hashlib
import os
import tempfile
from pathlib import Path
from typing import BinaryIO

CHUNK_BYTES = 2**20


def write_durably(path: Path, data: bytes) -> None:
    """Replace a file as a whole: after a crash the old content is there, or the new one."""
    temporary = path.with_name(f".{path.name}.incoming")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Let the names in a folder survive a power cut; a rename does so only then."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class BlobStore:
    """A folder of blobs. A blob is either there in full and durable, or not there at all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def folder(self) -> Path:
        """Where the blobs lie."""
        return self._folder

    def write(self, source: BinaryIO) -> str:
        """Store everything that `source` yields and return its SHA-256 in hex.

        Writing a blob that is there already is harmless.
        """
        digest = hashlib.sha256()
        descriptor, name = tempfile.mkstemp(dir=self._folder, prefix=".incoming-")
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                while chunk := source.read(CHUNK_BYTES):
                    digest.update(chunk)
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(self.path(digest.hexdigest()))
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(self._folder)
        return digest.hexdigest()

    def path(self, digest: str) -> Path:
        """Where the blob lies, or would lie."""
        return self._folder / digest

    def read(self, digest: str) -> bytes:
        """Return the whole blob.

        Raises:
            FileNotFoundError: there is no such blob.

        """
        return self.path(digest).read_bytes()
