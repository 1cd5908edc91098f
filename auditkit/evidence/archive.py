"""ZIP archives of exactly one form: stored, fixed times, sorted names, nothing around them.

The format is APPNOTE.TXT of the ZIP specification, sections 4.3.7 (local header), 4.3.12 (central
directory) and 4.3.16 (end record). Ordinary tools open these archives; reading accepts no others.
Because one list of members has one archive, a reader cannot be shown what another one is not.
"""

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import BinaryIO

from auditkit.evidence.errors import (
    BundleChecksumError,
    BundleFormatError,
    BundleMemberError,
    BundleSizeError,
)

MAX_ARCHIVE_BYTES = 2**31 - 1
"""Largest archive. Below it no tool needs the ZIP64 extension, which is therefore refused."""

MAX_MEMBERS = 60_000
"""Most members; the end record counts them in 16 bits."""

VERSION = 20
"""Version 2.0 of the format is needed, as every tool writes."""

MADE_ON_UNIX = 3 << 8 | VERSION
ATTRIBUTES = 0o100644 << 16
"""A plain file, readable by all, when a tool unpacks it on Unix."""

DATE = 1 << 5 | 1
"""1 January 1980, the zero of the format: archives carry no clock."""

_LOCAL = struct.Struct("<4sHHHHHLLLHH")
_CENTRAL = struct.Struct("<4sHHHHHHLLLHHHHHLL")
_END = struct.Struct("<4sHHHHLLH")


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
        return (
            _LOCAL.pack(
                b"PK\x03\x04", VERSION, 0, 0, 0, DATE, self.checksum, self.size, self.size,
                len(name), 0,
            )
            + name
        )  # fmt: skip

    def central_header(self) -> bytes:
        """Return the entry in the central directory, for which no other spelling is accepted."""
        name = self.name.encode("ascii")
        return (
            _CENTRAL.pack(
                b"PK\x01\x02", MADE_ON_UNIX, VERSION, 0, 0, 0, DATE, self.checksum, self.size,
                self.size, len(name), 0, 0, 0, 0, ATTRIBUTES, self.offset,
            )
            + name
        )  # fmt: skip

    @property
    def end(self) -> int:
        """Offset of the first byte after the data."""
        return self.offset + _LOCAL.size + len(self.name) + self.size


def write(members: dict[str, bytes], file: BinaryIO) -> None:
    """Write the archive of these members, sorted by name.

    Raises:
        BundleSizeError: the archive or the number of members would be too large.
    """
    directory: list[Member] = []
    offset = 0
    for name in sorted(members):
        data = members[name]
        member = Member(name, offset, len(data), zlib.crc32(data))
        _check_size(member.end, len(directory) + 1)
        file.write(member.local_header())
        file.write(data)
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
    size = file.seek(0, io.SEEK_END)
    _check_size(size, 0)
    directory = _read_directory(file, size)
    for member in directory:
        check_member_size(member.name, member.size, limit(member.name))
    return _read_members(file, directory)


def check_member_size(name: str, size: int, limit: int) -> None:
    """Return when a member of `size` bytes is within its limit.

    Raises:
        BundleSizeError: it is larger.
    """
    if size > limit:
        raise BundleSizeError(f"expected {name} to have at most {limit} bytes, found {size}")


def _read_members(file: BinaryIO, directory: list[Member]) -> Iterator[tuple[str, bytes]]:
    for member in directory:
        header = member.local_header()
        if _read_at(file, member.offset, len(header)) != header:
            raise BundleFormatError(f"the header of {member.name} differs from the directory")
        data = file.read(member.size)
        if len(data) != member.size or zlib.crc32(data) != member.checksum:
            raise BundleChecksumError(f"the bytes of {member.name} have been changed")
        yield member.name, data


def _read_directory(file: BinaryIO, size: int) -> list[Member]:
    if size < _END.size:
        raise BundleFormatError(
            f"expected an evidence bundle (a ZIP archive), found {size} other bytes"
        )
    _, _, _, _, count, length, start, _ = _END.unpack(_read_at(file, size - _END.size, _END.size))
    if start + length + _END.size != size or count > MAX_MEMBERS:
        raise BundleFormatError(
            "expected a ZIP archive that ends with its directory; the file is cut off, damaged, "
            "or has something attached"
        )
    tail = _read_at(file, start, length + _END.size)
    directory = _parse_directory(tail, count)
    _check_layout(directory, start)
    if _directory_and_end(directory) != tail:
        raise BundleFormatError("expected one directory and a plain end record, without a comment")
    return directory


def _parse_directory(tail: bytes, count: int) -> list[Member]:
    directory: list[Member] = []
    position = 0
    for _ in range(count):
        if position + _CENTRAL.size > len(tail):
            raise BundleFormatError(f"expected {count} members, found {len(directory)}")
        fields = _CENTRAL.unpack_from(tail, position)
        checksum, stored_size, name_length, offset = fields[7], fields[8], fields[10], fields[16]
        end = position + _CENTRAL.size + name_length
        name = tail[position + _CENTRAL.size : end]
        if not name.isascii():
            raise BundleFormatError(f"expected a name in ASCII, found {name[:80]!r}")
        member = Member(name.decode("ascii"), offset, stored_size, checksum)
        # Only one spelling of an entry is accepted, so that compression, encryption, extra fields,
        # comments and foreign attributes have no place to stand.
        if member.central_header() != tail[position:end]:
            raise BundleFormatError(
                f"{member.name[:80]!r} is compressed, encrypted, or has an extra field, a comment "
                "or attributes; expected it as auditkit writes it"
            )
        directory.append(member)
        position = end
    return directory


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
    return entries + _END.pack(b"PK\x05\x06", 0, 0, count, count, len(entries), start, 0)


def _check_size(size: int, count: int) -> None:
    if size > MAX_ARCHIVE_BYTES or count > MAX_MEMBERS:
        raise BundleSizeError(
            f"a bundle has at most {MAX_ARCHIVE_BYTES} bytes and {MAX_MEMBERS} members"
        )


def _read_at(file: BinaryIO, offset: int, length: int) -> bytes:
    file.seek(offset)
    return file.read(length)
