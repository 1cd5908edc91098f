"""A saved image as a table of its members: checked once, then read in any order, never unpacked."""

import hashlib
import io
import os
import posixpath
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

from containers.errors import (
    ArchiveChangedError,
    ArchiveFormatError,
    ArchiveSizeError,
    MemberKindError,
    MissingArchiveError,
    MissingBlobError,
    TruncatedArchiveError,
    UnsafeNameError,
)
from containers.limits import Limits
from containers.tar import CHUNK, Entry, TarReader, check_new, path_parts

WHAT = "the archive"

ALLOWED_KINDS = frozenset({"file", "directory", "symbolic link"})
"""Symbolic links are followed for repeated layers alone; some engines add more of them, for readers
of an older layout."""


class _FileSource:
    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        return self._file.read(size)

    def skip(self, size: int) -> None:
        self._file.seek(size, io.SEEK_CUR)


class MemberNames:
    """The members of an archive by name, as they come: each name once, and none ambiguous."""

    def __init__(self) -> None:
        self._files: dict[str, Entry] = {}
        self._folders: set[str] = set()

    def __contains__(self, name: str) -> bool:
        """Tell whether there is a file or link of that name."""
        return name in self._files

    def add(self, entry: Entry) -> str:
        """Take the next member, and return its name without anything superfluous.

        Raises:
            UnsafeNameError: the name is not plain.
            DuplicateMemberError: another member has it.
            MemberKindError: the member is neither file nor folder nor symbolic link.
        """
        name = _plain_name(entry)
        check_new(name, self._files, WHAT)
        if entry.kind == "directory":
            self._folders.add(name)
        else:
            check_new(name, self._folders, WHAT)
            self._files[name] = entry
        return name

    def file(self, name: str) -> Entry:
        """Return the file of a name.

        Raises:
            MissingBlobError: there is no such file.
            MemberKindError: it is a link.
        """
        entry = self._entry(name)
        if entry.kind != "file":
            raise MemberKindError(
                f"expected {name[:200]!r} in the archive to be a file, found a {entry.kind}; save "
                "the image as an OCI layout, for instance with `skopeo copy`"
            )
        return entry

    def layer(self, name: str) -> str:
        """Return the name of the file that holds a layer.

        Engines save a layer that an image has twice as a link from its second place to its first
        one. One link is followed, and only to a file of the archive.

        Raises:
            MissingBlobError: there is no such file, or the link leads to none.
            MemberKindError: the link leads to a link.
        """
        entry = self._entry(name)
        if entry.kind == "symbolic link":
            name = posixpath.normpath(posixpath.join(posixpath.dirname(name), entry.link))
        self.file(name)
        return name

    def check_folders(self) -> None:
        """Check, once all members are known, that no file is used as a folder.

        Raises:
            UnsafeNameError: one is.
        """
        # Sorted by components, what lies in a folder follows it at once.
        paths = sorted(tuple(name.split("/")) for name in (*self._files, *self._folders))
        for outer, inner in pairwise(paths):
            name = "/".join(outer)
            if name in self._files and inner[: len(outer)] == outer:
                raise UnsafeNameError(
                    f"{name[:200]!r} is a file of the archive and the folder of "
                    f"{'/'.join(inner)[:200]!r}; expected one or the other"
                )

    def _entry(self, name: str) -> Entry:
        if name not in self._files:
            raise MissingBlobError(
                f"the archive names {name[:200]!r} and does not contain it; save the image again, "
                "complete and for one platform"
            )
        return self._files[name]


class Archive:
    """The files of a saved image by name."""

    def __init__(self, file: io.BufferedReader, limits: Limits) -> None:
        """Read all headers of the archive.

        Args:
            file: seekable, at its beginning.
            limits: bounds on the number of members and on the size of documents.

        Raises:
            ArchiveFormatError: not a tar archive of files with plain, different names.
            ArchiveSizeError: too many members.
        """
        self._file = file
        self._limits = limits
        self._names = MemberNames()
        for entry in TarReader(_FileSource(file), WHAT, limits.members):
            self._names.add(entry)
        self._names.check_folders()

    def __contains__(self, name: str) -> bool:
        """Tell whether there is a file of that name, or what reading it will refuse."""
        return name in self._names

    def size(self, name: str) -> int:
        """Return the size of a file in bytes.

        Raises:
            MissingBlobError: there is no such file.
            MemberKindError: it is a link.
        """
        return self._names.file(name).size

    def chunks(self, name: str) -> Iterator[bytes]:
        """Return the bytes of a file in pieces.

        Raises:
            MissingBlobError: there is no such file.
            MemberKindError: it is a link.
            TruncatedArchiveError: the archive has become shorter.
        """
        entry = self._names.file(name)
        position, end = entry.offset, entry.offset + entry.size
        while position < end:
            self._file.seek(position)
            piece = self._file.read(min(CHUNK, end - position))
            if not piece:
                raise TruncatedArchiveError(f"the archive ends within {name[:200]!r}")
            position += len(piece)
            yield piece

    def layer_chunks(self, name: str) -> Iterator[bytes]:
        """Return the bytes of a layer in pieces, which may be stored under another name.

        Raises:
            MissingBlobError: there is no such file.
            MemberKindError: it is a link to something that is no file of the archive.
            TruncatedArchiveError: the archive has become shorter.
        """
        return self.chunks(self._names.layer(name))

    def document(self, name: str) -> bytes:
        """Return a file that is small enough to be held in memory.

        Raises:
            MissingBlobError: there is no such file.
            MemberKindError: it is a link.
            ArchiveSizeError: it is too large for a document.
        """
        size, most = self.size(name), self._limits.document_bytes
        if size > most:
            raise ArchiveSizeError(
                f"expected the document {name[:200]!r} to have at most {most} bytes, found {size}"
            )
        return b"".join(self.chunks(name))

    def digest(self) -> str:
        """Return the SHA-256 of the archive itself, in lower-case hexadecimal."""
        self._file.seek(0)
        return hashlib.file_digest(self._file, "sha256").hexdigest()


def check_present(path: Path, what: str, advice: str) -> None:
    """Look first whether there is a saved image to work on.

    Args:
        path: of the archive.
        what: which image it should contain.
        advice: where such an image comes from.

    Raises:
        OSError: its folder cannot be searched.
        MissingArchiveError: there is none.
    """
    if not path.exists():
        raise MissingArchiveError(f"expected {what} at {path}, found nothing; {advice}")


@contextmanager
def open_archive(path: Path, limits: Limits) -> Iterator[Archive]:
    """Open a saved image, and check at the end that nobody has written to it meanwhile.

    Raises:
        OSError: the file cannot be read.
        ArchiveFormatError: not a tar archive of files with plain, different names.
        ArchiveSizeError: the archive is too large.
        ArchiveChangedError: it was changed while it was read.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise ArchiveFormatError(f"expected the file of a saved image, found {path}, which is none")
    with path.open("rb") as file:
        before = os.fstat(file.fileno())
        if before.st_size > limits.archive_bytes:
            raise ArchiveSizeError(
                f"expected an archive of at most {limits.archive_bytes} bytes, found "
                f"{before.st_size}"
            )
        yield Archive(file, limits)
        after = os.fstat(file.fileno())
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise ArchiveChangedError(f"{path} was changed while it was read; try again with a copy")


def _plain_name(entry: Entry) -> str:
    name = "/".join(path_parts(entry.name, WHAT))
    plain = entry.name.isprintable() and "\\" not in entry.name and entry.name[0] != "/"
    if not plain or (not name and entry.kind != "directory"):
        raise UnsafeNameError(
            f"the archive has a member named {entry.name[:200]!r}; expected a relative path of "
            "printable characters"
        )
    if entry.kind not in ALLOWED_KINDS:
        raise MemberKindError(
            f"{name[:200]!r} in the archive is a {entry.kind}; expected files and directories. "
            "Save the image again"
        )
    return name
