"""A tar writer whose output depends on its input alone.

It writes the ustar format with pax headers for long or non-ASCII names (IEEE Std 1003.1, `pax`,
sections "ustar Interchange Format" and "pax Extended Header"), and sizes of 8 GiB and more in
GNU tar's base-256 form. The standard library's writer may change its headers between releases,
and with them the identity of every image.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from containers.errors import SourceChangedError
from containers.tar import BLOCK

SOURCE_DATE_EPOCH = 1_767_225_600
"""The time of everything in our images, in seconds since 1970: 2026-01-01T00:00:00Z."""

CREATED = "2026-01-01T00:00:00Z"
"""The same time as text (RFC 3339)."""

END = bytes(2 * BLOCK)
MAX_HEADER_NAME = 100
"""Bytes that a header has for a name; longer ones go to a pax header."""

MAX_OCTAL_SIZE = 8**11
"""Sizes from here on do not fit eleven octal digits."""

WritableKind = Literal["file", "hard link", "symbolic link", "directory"]
FLAGS: MappingProxyType[WritableKind, bytes] = MappingProxyType(
    {"file": b"0", "hard link": b"1", "symbolic link": b"2", "directory": b"5"}
)
PAX_FLAG = b"x"
PAX_NAME = b"././@PaxHeader"
PAX_MODE = 0o644


def nothing() -> Iterator[bytes]:
    """Return the content of what has none."""
    return iter(())


@dataclass(frozen=True)
class Member:
    """One file, folder or link to be written; paths have no leading slash."""

    name: str
    kind: WritableKind
    mode: int
    size: int = 0
    content: Callable[[], Iterator[bytes]] = nothing
    link: str = ""
    user: int = 0
    group: int = 0


def tar(members: Iterable[Member]) -> Iterator[bytes]:
    """Return a tar archive of these members, in this order, in pieces.

    Raises:
        OSError: a file cannot be read.
        SourceChangedError: a file has another size than its member says.
    """
    for member in members:
        yield member_header(member)
        written = 0
        for piece in member.content():
            written += len(piece)
            yield piece
        if written != member.size:
            raise SourceChangedError(
                f"expected {member.size} bytes for /{member.name}, found {written}; do not change "
                "the files of an image while it is built"
            )
        yield bytes(-member.size % BLOCK)
    yield END


def member_header(member: Member) -> bytes:
    """Return the blocks that stand before a member's content."""
    name = member.name.encode() + (b"/" if member.kind == "directory" else b"")
    link = member.link.encode()
    records = b"".join(
        _pax_record(key, value)
        for key, value in ((b"linkpath", link), (b"path", name))
        if len(value) > MAX_HEADER_NAME or not value.isascii()
    )
    extension = b""
    if records:
        extension = header(PAX_NAME, PAX_FLAG, PAX_MODE, len(records))
        extension += records + bytes(-len(records) % BLOCK)
    return extension + header(
        name,
        FLAGS[member.kind],
        member.mode,
        member.size,
        link=link,
        user=member.user,
        group=member.group,
    )


def header(
    name: bytes,
    flag: bytes,
    mode: int,
    size: int,
    *,
    link: bytes = b"",
    user: int = 0,
    group: int = 0,
) -> bytes:
    """Return one header block. Names are cut to what it can hold."""
    fields = (
        _ascii(name).ljust(MAX_HEADER_NAME, b"\0"),
        b"%07o\0%07o\0%07o\0" % (mode, user, group),
        _size(size),
        b"%011o\0" % SOURCE_DATE_EPOCH,
        b" " * 8,
        flag,
        _ascii(link).ljust(MAX_HEADER_NAME, b"\0"),
        b"ustar\x0000",
        bytes(64),
        b"%07o\0%07o\0" % (0, 0),
    )
    block = b"".join(fields).ljust(BLOCK, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _ascii(name: bytes) -> bytes:
    return name.decode("ascii", "replace").encode("ascii", "replace")[:MAX_HEADER_NAME]


def _size(size: int) -> bytes:
    if size < MAX_OCTAL_SIZE:
        return b"%011o\0" % size
    return b"\x80" + size.to_bytes(11, "big")


def _pax_record(key: bytes, value: bytes) -> bytes:
    """Return `length key=value`, where the length counts its own digits."""
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest)
    while len(rest) + len(str(length)) != length:
        length = len(rest) + len(str(length))
    return str(length).encode() + rest
