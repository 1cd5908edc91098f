"""ZIP archives of exactly one form: stored, fixed times, sorted names, nothing around them.

The format is APPNOTE.TXT of the ZIP specification, sections 4.3.7 (local header), 4.3.12 (central
directory), 4.3.14 to 4.3.16 (end records) and 4.5.3 (ZIP64, which is used where a number needs it
and nowhere else). Ordinary tools open these archives; reading accepts no others. Because one list
of members has one archive, a reader cannot be shown what another one is not.
"""

import io
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import BinaryIO

from auditkit.evidence.errors import (
    BundleChecksumError,
    BundleFormatError,
    BundleMemberError,
    BundleSizeError,
)

MAX_ARCHIVE_BYTES = 2**37
"""Largest archive: 128 GiB."""

MAX_MEMBERS = 60_000
"""Most members."""

MAX_DIRECTORY_BYTES = 2**23
"""Largest directory; an entry of a bundle takes about 75 bytes."""

PIECE_BYTES = 2**18
"""How much of a member is read at a time."""

PLAIN_VERSION = 20
"""Version 2.0 of the format is needed, as every tool writes."""

ZIP64_VERSION = 45
"""Version 4.5 of the format is needed for numbers that 32 bits do not hold."""

MADE_ON_UNIX = 3 << 8
ATTRIBUTES = 0o100644 << 16
"""A plain file, readable by all, when a tool unpacks it on Unix."""

DATE = 1 << 5 | 1
"""1 January 1980, the zero of the format: archives carry no clock."""

_IN_ZIP64 = 2**32 - 1
"""Stands for a number that is told in a ZIP64 field, so it cannot be told itself."""

_LOCAL = struct.Struct("<4sHHHHHLLLHH")
_CENTRAL = struct.Struct("<4sHHHHHHLLLHHHHHLL")
_END = struct.Struct("<4sHHHHLLH")
_ZIP64_END = struct.Struct("<4sQHHLLQQQQ")
_ZIP64_LOCATOR = struct.Struct("<4sLQL")
_ZIP64_TAIL_BYTES = _ZIP64_END.size + _ZIP64_LOCATOR.size

Pieces = Callable[[], Iterable[bytes]]
"""Gives the content of a member piece by piece, from its start at every call."""


@dataclass(frozen=True)
class Member:
    """Where one member lies in the archive, and what its bytes must sum to (CRC-32)."""

    name: str
    offset: int
    size: int
    checksum: int

    def local_header(self) -> bytes:
        """Return the header before the data, for which no other spelling is accepted."""
        name = self.name.encode("ascii")
        extra = b"" if self.size < _IN_ZIP64 else _zip64_field(self.size, self.size)
        size = min(self.size, _IN_ZIP64)
        return (
            _LOCAL.pack(
                b"PK\x03\x04", _version(extra), 0, 0, 0, DATE, self.checksum, size, size,
                len(name), len(extra),
            )
            + name
            + extra
        )  # fmt: skip

    def central_header(self) -> bytes:
        """Return the entry in the central directory, for which no other spelling is accepted."""
        name = self.name.encode("ascii")
        large = [size for size in (self.size, self.size, self.offset) if size >= _IN_ZIP64]
        extra = _zip64_field(*large) if large else b""
        size, offset = min(self.size, _IN_ZIP64), min(self.offset, _IN_ZIP64)
        version = _version(extra)
        return (
            _CENTRAL.pack(
                b"PK\x01\x02", MADE_ON_UNIX | version, version, 0, 0, 0, DATE, self.checksum, size,
                size, len(name), len(extra), 0, 0, 0, ATTRIBUTES, offset,
            )
            + name
            + extra
        )  # fmt: skip

    @property
    def start(self) -> int:
        """Offset of the first byte of the data."""
        return self.offset + len(self.local_header())

    @property
    def end(self) -> int:
        """Offset of the first byte after the data."""
        return self.start + self.size


class Archive:
    """An archive that is open for reading. Its members are read when they are asked for.

    The directory and every header are checked at once, and nothing else is read.

    Args:
        file: seekable, at any position; it must stay open as long as members are read.
        limit: largest accepted size of a member by its name; raises for a name it does not know.

    Raises:
        BundleFormatError: not an archive, or one of any other form than `write` gives it.
        BundleMemberError: a name that `limit` refuses, or names repeated or out of order.
        BundleSizeError: the archive or a member is too large.
    """

    def __init__(self, file: BinaryIO, limit: Callable[[str], int]) -> None:
        self._file = file
        size = file.seek(0, io.SEEK_END)
        _check_size(size, 0)
        directory = _read_directory(file, size)
        for member in directory:
            check_member_size(member.name, member.size, limit(member.name))
        for member in directory:
            header = member.local_header()
            if _read_at(file, member.offset, len(header)) != header:
                raise BundleFormatError(f"the header of {member.name} differs from the directory")
        self.members = {member.name: member for member in directory}

    def pieces(self, name: str) -> Iterator[bytes]:
        """Yield the content of a member piece by piece.

        Raises:
            BundleChecksumError: the bytes have been changed; known only after the last piece.
        """
        member = self.members[name]
        checksum = 0
        for position in range(member.start, member.end, PIECE_BYTES):
            piece = _read_at(self._file, position, min(PIECE_BYTES, member.end - position))
            checksum = zlib.crc32(piece, checksum)
            yield piece
        if checksum != member.checksum:
            raise BundleChecksumError(f"the bytes of {name} have been changed")

    def read(self, name: str) -> bytes:
        """Return the whole content of a member.

        Raises:
            BundleChecksumError: the bytes have been changed.
        """
        return b"".join(self.pieces(name))


def write(members: Mapping[str, bytes | Pieces], file: BinaryIO) -> None:
    """Write the archive of these members, sorted by name.

    Args:
        members: content by name; pieces when it is too large to be held.
        file: at the place where the archive shall begin; seekable if there are pieces.

    Raises:
        BundleSizeError: the archive or the number of members would be too large.
    """
    directory: list[Member] = []
    offset = 0
    for name in sorted(members):
        content = members[name]
        if isinstance(content, bytes):
            member = Member(name, offset, len(content), zlib.crc32(content))
            _check_size(member.end, len(directory) + 1)
            file.write(member.local_header())
            file.write(content)
        else:
            member = _write_pieces(name, offset, content, file)
            _check_size(member.end, len(directory) + 1)
        directory.append(member)
        offset = member.end
    file.write(_directory_and_end(directory))


def read(file: BinaryIO, limit: Callable[[str], int]) -> Iterator[tuple[str, bytes]]:
    """Return the members one by one, in order of their names.

    Args:
        file: seekable, at any position.
        limit: largest accepted size of a member by its name; raises for a name it does not know.

    Raises:
        BundleFormatError: not an archive, or one of any other form than `write` gives it.
        BundleMemberError: a name that `limit` refuses, or names repeated or out of order.
        BundleSizeError: the archive or a member is too large.
        BundleChecksumError: the bytes of a member have been changed.
    """
    archive = Archive(file, limit)
    return ((name, archive.read(name)) for name in archive.members)


def check_member_size(name: str, size: int, limit: int) -> None:
    """Return when a member of `size` bytes is within its limit.

    Raises:
        BundleSizeError: it is larger.
    """
    if size > limit:
        raise BundleSizeError(f"expected {name} to have at most {limit} bytes, found {size}")


def _write_pieces(name: str, offset: int, pieces: Pieces, file: BinaryIO) -> Member:
    """Write a member whose size and checksum are known only at its end."""
    begin = file.tell()
    draft = Member(name, offset, 0, 0)
    while True:
        header = draft.local_header()
        file.seek(begin + len(header))
        size = checksum = 0
        for piece in pieces():
            file.write(piece)
            checksum = zlib.crc32(piece, checksum)
            size += len(piece)
        member = Member(name, offset, size, checksum)
        end = file.tell()
        if len(member.local_header()) == len(header):
            break
        # Only now is it known that the header has a ZIP64 field, and so where the data begin.
        draft = member
    file.seek(begin)
    file.write(member.local_header())
    file.seek(end)
    return member


def _read_directory(file: BinaryIO, size: int) -> list[Member]:
    if size < _END.size:
        raise BundleFormatError(
            f"expected an evidence bundle (a ZIP archive), found {size} other bytes"
        )
    _, _, _, _, count, length, start, _ = _END.unpack(_read_at(file, size - _END.size, _END.size))
    tail_size = length + _END.size
    if start == _IN_ZIP64:
        tail_size += _ZIP64_TAIL_BYTES
        start = size - tail_size
    if start + tail_size != size or start < 0 or count > MAX_MEMBERS:
        raise BundleFormatError(
            "expected a ZIP archive that ends with its directory; the file is cut off, damaged, "
            "or has something attached"
        )
    check_member_size("the directory of the archive", length, MAX_DIRECTORY_BYTES)
    tail = _read_at(file, start, tail_size)
    directory = _parse_directory(tail[:length], count)
    _check_layout(directory, start)
    if _directory_and_end(directory) != tail:
        raise BundleFormatError("expected one directory and a plain end record, without a comment")
    return directory


def _parse_directory(entries: bytes, count: int) -> list[Member]:
    directory: list[Member] = []
    position = 0
    for _ in range(count):
        if position + _CENTRAL.size > len(entries):
            raise BundleFormatError(f"expected {count} members, found {len(directory)}")
        fields = _CENTRAL.unpack_from(entries, position)
        checksum, size, name_length, extra_length, offset = (
            fields[place] for place in (7, 8, 10, 11, 16)
        )
        name_end = position + _CENTRAL.size + name_length
        end = name_end + extra_length
        name = entries[position + _CENTRAL.size : name_end]
        if not name.isascii():
            raise BundleFormatError(f"expected a name in ASCII, found {name[:80]!r}")
        size, offset = _unfold_zip64(size, offset, entries[name_end:end])
        member = Member(name.decode("ascii"), offset, size, checksum)
        # Only one spelling of an entry is accepted, so that compression, encryption, extra fields,
        # comments and foreign attributes have no place to stand.
        if member.central_header() != entries[position:end]:
            raise BundleFormatError(
                f"{member.name[:80]!r} is compressed, encrypted, or has an extra field, a comment "
                "or attributes; expected it as auditkit writes it"
            )
        directory.append(member)
        position = end
    return directory


def _unfold_zip64(size: int, offset: int, extra: bytes) -> tuple[int, int]:
    """Return size and offset with the numbers of a ZIP64 field, if there is one, in their place."""
    count = max(0, len(extra) - 4) // 8
    numbers = struct.unpack_from(f"<{count}Q", extra, 4) if count else ()
    if len(numbers) > 1:
        size = numbers[0]
    if len(numbers) % 2:
        offset = numbers[-1]
    return size, offset


def _check_layout(directory: list[Member], start: int) -> None:
    for earlier, later in pairwise(directory):
        if earlier.name >= later.name:
            raise BundleMemberError(
                f"members must be sorted and different; {later.name!r} follows {earlier.name!r}"
            )
    offsets = [0, *(member.end for member in directory)]
    if offsets != [*(member.offset for member in directory), start]:
        raise BundleFormatError("expected members that follow each other without gap or overlap")


def _directory_and_end(directory: list[Member]) -> bytes:
    entries = b"".join(member.central_header() for member in directory)
    start = directory[-1].end if directory else 0
    count = len(directory)
    tail = b""
    if start >= _IN_ZIP64:
        tail = _ZIP64_END.pack(
            b"PK\x06\x06", _ZIP64_END.size - 12, MADE_ON_UNIX | ZIP64_VERSION, ZIP64_VERSION, 0, 0,
            count, count, len(entries), start,
        ) + _ZIP64_LOCATOR.pack(b"PK\x06\x07", 0, start + len(entries), 1)  # fmt: skip
        start = _IN_ZIP64
    end = _END.pack(b"PK\x05\x06", 0, 0, count, count, len(entries), start, 0)
    return entries + tail + end


def _zip64_field(*numbers: int) -> bytes:
    return struct.pack(f"<HH{len(numbers)}Q", 1, 8 * len(numbers), *numbers)


def _version(zip64_field: bytes) -> int:
    return ZIP64_VERSION if zip64_field else PLAIN_VERSION


def _check_size(size: int, count: int) -> None:
    if size > MAX_ARCHIVE_BYTES or count > MAX_MEMBERS:
        raise BundleSizeError(
            f"a bundle has at most {MAX_ARCHIVE_BYTES} bytes and {MAX_MEMBERS} members"
        )


def _read_at(file: BinaryIO, offset: int, length: int) -> bytes:
    file.seek(offset)
    return file.read(length)
