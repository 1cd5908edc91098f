"""Content-addressed files: the name of a blob is its SHA-256, so a blob never changes."""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from auditor_server.errors import BlobDamagedError, BlobMissingError, BlobStoreUnavailableError

CHUNK_BYTES = 2**20
# What lies there under this name is no blob, and is gone a moment later.
INCOMING_PREFIX = ".incoming-"


def write_durably(path: Path, data: bytes) -> None:
    """Replace a file as a whole: after a crash the old content is there, or the new one."""
    temporary = path.with_name(f".{path.name}.incoming")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Let a file, or the names in a folder, survive a power cut; a rename does so only then."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class BlobStore(Protocol):
    """Where blobs lie. A blob is either there in full and durable, or not there at all.

    Every method raises BlobStoreUnavailableError when the store can't be reached or used.
    """

    @property
    def folder(self) -> Path:
        """Where those blobs lie that were fetched, for processes that see nothing but it."""

    def write(self, source: BinaryIO) -> str:
        """Store everything from the beginning of `source` on, and return its SHA-256 in hex.

        It is durable when this returns. Writing a blob that is there already is harmless.
        """

    def read(self, digest: str) -> bytes:
        """Return the whole blob, which is what its name says.

        Raises:
            BlobMissingError: there is no such blob.
            BlobDamagedError: what lies there under its name is something else.

        """

    def fetch(self, digest: str) -> None:
        """See to it that a blob lies in `folder`, where whoever reads it checks it.

        Raises:
            BlobMissingError, BlobDamagedError: see `read`.

        """

    def check(self, digest: str) -> None:
        """Read a blob piece by piece, and compare it with its name.

        Raises:
            BlobMissingError, BlobDamagedError: see `read`.

        """

    def delete(self, digest: str) -> None:
        """Delete a blob; one that is not there is no fault."""

    def probe(self) -> None:
        """Write something and read it back."""


class BlobFolder:
    """A folder of blobs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def folder(self) -> Path:
        """Where the blobs lie, all of them."""
        return self._folder

    def write(self, source: BinaryIO) -> str:
        """See `BlobStore.write`."""
        source.seek(0)
        with _usable(self._folder), incoming(self._folder) as new:
            digest = hashlib.sha256()
            for chunk in chunks_of(source):
                digest.update(chunk)
                new.file.write(chunk)
            new.publish(self.path(digest.hexdigest()))
        return digest.hexdigest()

    def path(self, digest: str) -> Path:
        """Where the blob lies, or would lie."""
        return self._folder / digest

    def read(self, digest: str) -> bytes:
        """See `BlobStore.read`."""
        with self._open(digest) as file:
            data = file.read()
        check_content(digest, hashlib.sha256(data).hexdigest())
        return data

    def fetch(self, digest: str) -> None:
        """See `BlobStore.fetch`."""
        with self._open(digest):
            return

    def check(self, digest: str) -> None:
        """See `BlobStore.check`."""
        with self._open(digest) as file:
            check_content(digest, digest_of(chunks_of(file)))

    def delete(self, digest: str) -> None:
        """See `BlobStore.delete`."""
        with _usable(self._folder):
            self.path(digest).unlink(missing_ok=True)
            sync(self._folder)

    def probe(self) -> None:
        """See `BlobStore.probe`."""
        with _usable(self._folder), incoming(self._folder) as new:
            new.file.write(b"\n")
            new.file.flush()
            new.path.read_bytes()
            new.path.unlink()

    @contextmanager
    def _open(self, digest: str) -> Iterator[BinaryIO]:
        with _usable(self._folder):
            try:
                file = self.path(digest).open("rb")
            except FileNotFoundError as error:
                raise missing(digest, str(self._folder)) from error
            with file:
                yield file


@dataclass(frozen=True)
class Incoming:
    """A file that has no name of its own yet."""

    file: BinaryIO
    path: Path

    def publish(self, path: Path) -> None:
        """Give it its name, with all its content, also after a power cut."""
        self.file.flush()
        os.fsync(self.file.fileno())
        self.path.rename(path)
        sync(path.parent)


@contextmanager
def incoming(folder: Path) -> Iterator[Incoming]:
    """Open a new file in a folder, which is gone if what is done with it fails."""
    descriptor, name = tempfile.mkstemp(dir=folder, prefix=INCOMING_PREFIX)
    path = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield Incoming(file, path)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def chunks_of(source: BinaryIO) -> Iterator[bytes]:
    """Yield a file piece by piece from where it stands."""
    while chunk := source.read(CHUNK_BYTES):
        yield chunk


def digest_of(chunks: Iterator[bytes]) -> str:
    """Return the SHA-256 of what comes in pieces, in hex."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


def check_content(digest: str, found: str) -> None:
    """Check that a blob is what its name says.

    Raises:
        BlobDamagedError: it is not.

    """
    if found != digest:
        raise BlobDamagedError(
            f"expected a blob that hashes to {digest}, its name; found one that hashes to {found}; "
            "restore it from a backup"
        )


def missing(digest: str, place: str) -> BlobMissingError:
    """Return the error that says that a blob is not where it should be."""
    return BlobMissingError(f"there is no blob {digest} in {place}; restore it from a backup")


@contextmanager
def _usable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BlobStoreUnavailableError(
            f"the folder of blobs {folder} can't be used: {error.strerror}; see to its disk"
        ) from error
