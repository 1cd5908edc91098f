"""A tar reader that refuses whatever two readers could understand differently.

It reads the ustar and pax formats (IEEE Std 1003.1, `pax`, section "Extended Description") and the
long names and large numbers of GNU tar, which is what image builders write. The standard library's
reader stops silently at a damaged header and holds extended headers of any size in memory, so that
a saved image read with it can be shorter than the one an engine loads.
"""

import hashlib
import re
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, Protocol

from containers.errors import (
    ArchiveFormatError,
    ArchiveSizeError,
    DuplicateMemberError,
    MemberKindError,
    TruncatedArchiveError,
    UnsafeNameError,
)

BLOCK = 512
CHUNK = 64 * 1024
ZERO_BLOCK = bytes(BLOCK)

MAX_EXTENSION_BYTES = 2**20
"""Largest extended header: names have at most 4,096 bytes, extended attributes 64 KiB each."""

MAX_ENTRY_BYTES = 2**50
"""Largest size that a member may claim; far above what the limits on archives and layers allow."""

MAX_NAME_CHARACTERS = 4096
MAX_PART_CHARACTERS = 255
"""Longest path, and longest component of one, as on Linux."""

Kind = Literal[
    "file", "directory", "symbolic link", "hard link", "character device", "block device", "fifo"
]
KINDS: MappingProxyType[bytes, Kind] = MappingProxyType(
    {
        b"\0": "file",
        b"0": "file",
        b"1": "hard link",
        b"2": "symbolic link",
        b"3": "character device",
        b"4": "block device",
        b"5": "directory",
        b"6": "fifo",
    }
)
EXTENSIONS = frozenset(b"xgLK")
PAX_RECORD_LENGTH = re.compile(rb"([1-9][0-9]{0,6}) ")
ATTRIBUTE_PREFIX = "SCHILY.xattr."


class Source(Protocol):
    """Where an archive comes from, byte after byte."""

    def read(self, size: int) -> bytes:
        """Return the next `size` bytes, or fewer at the end."""

    def skip(self, size: int) -> None:
        """Leave out the next `size` bytes."""


class PieceSource:
    """An archive that comes in pieces of any size, from another program."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        """Take the pieces."""
        self._pieces = iter(pieces)
        self._piece = memoryview(b"")

    def read(self, size: int) -> bytes:
        """Return the next `size` bytes, or fewer at the end."""
        parts = []
        while size and self._fill():
            part = self._piece[:size]
            self._piece = self._piece[len(part) :]
            size -= len(part)
            parts.append(part)
        return b"".join(parts)

    def skip(self, size: int) -> None:
        """Leave out the next `size` bytes."""
        while size and self._fill():
            step = min(size, len(self._piece))
            self._piece = self._piece[step:]
            size -= step

    def _fill(self) -> bool:
        while not self._piece:
            piece = next(self._pieces, None)
            if piece is None:
                return False
            self._piece = memoryview(piece)
        return True


@dataclass(frozen=True)
class Entry:
    """One member. Text that is not UTF-8 is kept with surrogate escapes (PEP 383)."""

    name: str
    kind: Kind
    size: int
    mode: int
    user: int
    group: int
    link: str = ""
    device: tuple[int, int] | None = None
    attributes: tuple[tuple[str, str], ...] = ()
    offset: int = field(default=0, compare=False)


class TarReader:
    """Goes through an archive once. The data of an entry is read before the next one, or never."""

    def __init__(self, source: Source, what: str, most_entries: int) -> None:
        """Take the source, what to call it in errors, and how many entries to accept."""
        self._source = source
        self._what = what
        self._most = most_entries
        self._position = 0
        self._data_left = 0
        self._padding = 0

    def __iter__(self) -> Iterator[Entry]:
        """Return the entries in order, and check that the archive ends as it should.

        Raises:
            ArchiveFormatError: the subclass says why.
            ArchiveSizeError: more entries, or a larger extended header, than is accepted.
        """
        count = 0
        extension: dict[str, str] = {}
        extension_flags: set[int] = set()
        while (header := self._read_exactly(BLOCK)) != ZERO_BLOCK:
            count += 1
            if count > self._most:
                raise ArchiveSizeError(f"{self._what} has more than {self._most} members")
            self._check_header(header)
            if header[156] in EXTENSIONS:
                if header[156] in extension_flags:
                    raise ArchiveFormatError(f"a member of {self._what} is extended repeatedly")
                extension_flags.add(header[156])
                self._add_extension(header, extension)
                continue
            entry = self._entry(header, extension)
            extension, extension_flags = {}, set()
            self._begin_data(entry.size)
            yield entry
            self._skip_data()
        if extension:
            raise ArchiveFormatError(f"{self._what} ends with a header that belongs to nothing")
        self._check_end()

    def data(self) -> Iterator[bytes]:
        """Return the bytes of the entry that was returned last, in pieces.

        Raises:
            TruncatedArchiveError: the archive ends before them.
        """
        while self._data_left:
            piece = self._read_exactly(min(CHUNK, self._data_left))
            self._data_left -= len(piece)
            yield piece

    def data_digest(self) -> str:
        """Return the SHA-256 of the entry's bytes, in lower-case hexadecimal."""
        digest = hashlib.sha256()
        for piece in self.data():
            digest.update(piece)
        return digest.hexdigest()

    def _begin_data(self, size: int) -> None:
        self._data_left = size
        self._padding = -size % BLOCK

    def _skip_data(self) -> None:
        self._source.skip(self._data_left + self._padding)
        self._position += self._data_left + self._padding
        self._data_left = self._padding = 0

    def _read_exactly(self, size: int) -> bytes:
        data = self._source.read(size)
        self._position += len(data)
        if len(data) != size:
            raise TruncatedArchiveError(
                f"{self._what} ends after {self._position} bytes, without the end that every tar "
                "archive has; save the image again"
            )
        return data

    def _check_end(self) -> None:
        rest = self._read_exactly(BLOCK)
        while rest:
            if any(rest):
                raise ArchiveFormatError(
                    f"{self._what} goes on after its end; expected nothing but zeros there"
                )
            rest = self._source.read(CHUNK)

    def _check_header(self, header: bytes) -> None:
        found = sum(header[:148]) + 8 * ord(" ") + sum(header[156:])
        if self._number(header[148:156]) != found:
            raise ArchiveFormatError(
                f"expected a tar archive in {self._what}; the header before byte {self._position} "
                "is damaged, or this is something else (a compressed archive has to be "
                "decompressed first)"
            )
        if header[257:263] == b"ustar\0" and header[508:512] == b"tar\0":
            raise ArchiveFormatError(f"{self._what} is in the format of star; expected pax or GNU")

    def _add_extension(self, header: bytes, extension: dict[str, str]) -> None:
        size = self._number(header[124:136])
        if size > MAX_EXTENSION_BYTES:
            raise ArchiveSizeError(
                f"an extended header in {self._what} has {size} bytes; expected at most "
                f"{MAX_EXTENSION_BYTES}"
            )
        self._begin_data(size)
        data = b"".join(self.data())
        self._skip_data()
        match header[156:157]:
            case b"L":
                self._add(extension, "path", _text(data))
            case b"K":
                self._add(extension, "linkpath", _text(data))
            case b"x":
                for key, value in self._pax_records(data):
                    self._add(extension, key, value)
            case _:
                for key, _ in self._pax_records(data):
                    if key != "comment":
                        # Engines ignore what global headers say, other readers do not.
                        raise ArchiveFormatError(
                            f"a global header in {self._what} sets {key!r}; expected comments only"
                        )

    def _add(self, extension: dict[str, str], key: str, value: str) -> None:
        if key in extension:
            raise ArchiveFormatError(f"a member of {self._what} is given two values of {key!r}")
        if key.startswith("GNU.sparse."):
            raise MemberKindError(f"{self._what} has a sparse member; write it without --sparse")
        extension[key] = value

    def _pax_records(self, data: bytes) -> Iterator[tuple[str, str]]:
        position = 0
        while position < len(data):
            match = PAX_RECORD_LENGTH.match(data, position)
            end = position + int(match[1]) if match else 0
            key, equals, value = data[match.end() if match else 0 : end - 1].partition(b"=")
            if not (match and key and equals and data[end - 1 : end] == b"\n"):
                raise ArchiveFormatError(f"an extended header in {self._what} is damaged")
            yield _decode(key), _decode(value)
            position = end

    def _entry(self, header: bytes, extension: dict[str, str]) -> Entry:
        flag = header[156:157]
        if flag not in KINDS:
            raise MemberKindError(
                f"{self._what} has a member of kind {flag!r}; expected files, directories, links "
                "and devices (no sparse files)"
            )
        kind = KINDS[flag]
        name = extension.get("path") or self._short_name(header)
        if flag == b"\0" and name.endswith("/"):
            kind = "directory"  # how it was written before directories had a flag
        size = self._extended_number(extension, "size", header[124:136])
        if size > MAX_ENTRY_BYTES:
            raise ArchiveSizeError(f"{name[:200]!r} in {self._what} claims to have {size} bytes")
        if kind != "file" and size:
            # Some readers skip these bytes as data, others read them as the next header.
            raise ArchiveFormatError(
                f"the {kind} {name[:200]!r} in {self._what} has data; expected none"
            )
        if kind == "file" and name.endswith("/"):
            raise UnsafeNameError(f"the file {name[:200]!r} in {self._what} is named like a folder")
        link = (extension.get("linkpath") or _text(header[157:257])) if "link" in kind else ""
        if len(link) > MAX_NAME_CHARACTERS:
            raise UnsafeNameError(f"{name[:200]!r} in {self._what} is a link to an endless name")
        is_device = kind in {"character device", "block device"}
        return Entry(
            name=name,
            kind=kind,
            size=size,
            mode=self._number(header[100:108]) & 0o7777,
            user=self._extended_number(extension, "uid", header[108:116]),
            group=self._extended_number(extension, "gid", header[116:124]),
            link=link,
            device=(self._number(header[329:337]), self._number(header[337:345]))
            if is_device
            else None,
            attributes=tuple(
                sorted(
                    (key.removeprefix(ATTRIBUTE_PREFIX), value)
                    for key, value in extension.items()
                    if key.startswith(ATTRIBUTE_PREFIX)
                )
            ),
            offset=self._position,
        )

    def _short_name(self, header: bytes) -> str:
        name, prefix = _text(header[:100]), _text(header[345:500])
        return f"{prefix}/{name}" if header[257:263] == b"ustar\0" and prefix else name

    def _extended_number(self, extension: dict[str, str], key: str, stored: bytes) -> int:
        text = extension.get(key)
        if text is None:
            return self._number(stored)
        if not re.fullmatch(r"[0-9]{1,19}", text, re.ASCII):
            raise ArchiveFormatError(f"{self._what} has the {key} {text[:40]!r}; expected digits")
        return int(text)

    def _number(self, stored: bytes) -> int:
        if stored[0] == 0x80:  # the base-256 form of GNU tar, for what octal digits cannot hold
            return int.from_bytes(stored[1:], "big")
        digits = stored.strip(b" \0")
        if not re.fullmatch(rb"[0-7]*", digits):
            raise ArchiveFormatError(
                f"expected a tar archive in {self._what}, found {stored!r} in place of a number "
                f"before byte {self._position}"
            )
        return int(digits or b"0", 8)


def path_parts(name: str, what: str) -> tuple[str, ...]:
    """Return the components of a member's path; none for the root itself.

    Raises:
        UnsafeNameError: the path leads upwards, is empty or too long, or has a zero byte.
    """
    parts = tuple(part for part in name.split("/") if part not in {"", "."})
    is_short = len(name) <= MAX_NAME_CHARACTERS and all(
        len(part) <= MAX_PART_CHARACTERS for part in parts
    )
    if not name or ".." in parts or "\0" in name or not is_short:
        raise UnsafeNameError(
            f"{what} has a member named {name[:200]!r}; expected a path that stays inside"
        )
    return parts


def check_new(name: str, names: Container[str], what: str) -> None:
    """Return when no member has had this name.

    Raises:
        DuplicateMemberError: one has.
    """
    if name in names:
        raise DuplicateMemberError(
            f"{what} has two members named {name[:200]!r}; expected one, since readers differ in "
            "which of the two they take. Save the image again, and ask where this file comes from"
        )


def _text(stored: bytes) -> str:
    return _decode(stored.partition(b"\0")[0])


def _decode(stored: bytes) -> str:
    return stored.decode("utf-8", "surrogateescape")
