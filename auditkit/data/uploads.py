"""The images of an uploaded ZIP archive, one after the other, within limits.

Nothing is unpacked to disk, and no byte is decompressed before the archive's own table is known to
keep the limits. The table may lie, so what comes out is counted as well.
"""

import io
import stat
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import BinaryIO

from auditkit.data.errors import (
    ArchiveEntryError,
    ArchiveFormatError,
    ArchiveNameError,
    ArchiveTooLargeError,
    NestedArchiveError,
)
from auditkit.data.layouts.files import IMAGE_SUFFIXES
from auditkit.data.names import shown

MEBIBYTE = 2**20

# A phone's camera roll; each image takes a call of the model.
MOST_FILES = 10_000
# A 24-megapixel photograph as PNG.
MOST_FILE_BYTES = 64 * MEBIBYTE
MOST_TOTAL_BYTES = 2048 * MEBIBYTE
# Images hardly shrink, drawings a lot; the best that DEFLATE can do is about 1000.
LARGEST_RATIO = 200

ARCHIVE_SUFFIXES = frozenset(
    {".7z", ".bz2", ".gz", ".jar", ".rar", ".tar", ".tgz", ".xz", ".zip", ".zst"}
)
ARCHIVE_OPENINGS = (
    b"PK\x03\x04",
    b"PK\x05\x06",
    b"\x1f\x8b",
    b"BZh",
    b"\xfd7zXZ",
    b"7z\xbc\xaf",
    b"Rar!",
)

# What desktop systems add to an archive without being asked.
FOREIGN_FOLDERS = frozenset({"__MACOSX"})
FOREIGN_FILES = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})

COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# ZIP's specification (APPNOTE), sections 4.3.15, 4.3.16 and 4.4.4.
ENCRYPTED = 0x1
END = struct.Struct("<4s4H2LH")
END_SIGNATURE = b"PK\x05\x06"
LARGE_ARCHIVE_LOCATOR, LARGE_ARCHIVE_SIGNATURE = 20, b"PK\x06\x07"
# What one file takes in the table: 46 bytes, a name, and times to the nanosecond.
MOST_TABLE_BYTES_PER_FILE = 512
CHUNK_BYTES = 2**16


@dataclass(frozen=True)
class UploadLimits:
    """How much an archive may hold."""

    most_files: int = MOST_FILES
    most_file_bytes: int = MOST_FILE_BYTES
    most_total_bytes: int = MOST_TOTAL_BYTES
    largest_ratio: int = LARGEST_RATIO
    """Of what comes out of a file to what it takes in the archive."""


@dataclass(frozen=True)
class UploadedImage:
    """An image file of an archive, not decoded."""

    name: str
    """As it may be shown."""
    data: bytes


DEFAULT_LIMITS = UploadLimits()


def images_in_zip(file: BinaryIO, limits: UploadLimits = DEFAULT_LIMITS) -> Iterator[UploadedImage]:
    """Yield the image files of a ZIP archive in the order of their names, one in memory at a time.

    Everything that the archive's table says is checked before the first one is read. Folders and
    what desktop systems add are passed over; any other file that is no image by its name is
    refused, so that nobody believes it was looked at.

    Args:
        file: the archive, with `seek`.
        limits: how much it may hold.

    Raises:
        ArchiveFormatError: no ZIP archive, a damaged one, or one compressed or encrypted in a way
            that is not read.
        ArchiveTooLargeError: more files or bytes than allowed, or too much out of too little.
        ArchiveNameError: a name that leads elsewhere, or that two files have.
        ArchiveEntryError: a link or a device, or a file that is no image by its name.
        NestedArchiveError: an archive in the archive.

    """
    size = _check_table(file, limits)
    try:
        archive = zipfile.ZipFile(file)
    except Exception as error:
        # The parser meets hostile bytes here.
        raise ArchiveFormatError(
            f"expected a ZIP archive of images, found none that can be read ({error}); pack it anew"
        ) from error
    with archive:
        entries = _checked(archive.infolist(), limits)
        if sum(entry.compress_size for entry in entries) > size:
            raise ArchiveFormatError("files of the archive overlap; pack it anew")
        for entry in sorted(entries, key=lambda entry: entry.filename):
            yield UploadedImage(shown(entry.filename), _read(archive, entry))


def _check_table(file: BinaryIO, limits: UploadLimits) -> int:
    """Check how large the archive's table is, before it is read; return the archive's size."""
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - END.size - LARGE_ARCHIVE_LOCATOR))
    ending = file.read()
    end = ending[-END.size :]
    if len(end) < END.size or not end.startswith(END_SIGNATURE) or END.unpack(end)[-1] != 0:
        raise ArchiveFormatError(
            "expected a whole ZIP archive of images, without a comment, found something else; "
            "pack it anew"
        )
    if ending.startswith(LARGE_ARCHIVE_SIGNATURE):
        raise ArchiveTooLargeError(
            "expected an ordinary ZIP archive, found one of the kind for more than 4 GB; send "
            "several archives"
        )
    table_bytes = END.unpack(end)[5]
    if table_bytes > limits.most_files * MOST_TABLE_BYTES_PER_FILE:
        raise ArchiveTooLargeError(
            f"expected at most {limits.most_files:,} files in the archive, found a table of "
            f"{table_bytes:,} bytes; send several archives, or shorten the names"
        )
    return size


def _checked(entries: list[zipfile.ZipInfo], limits: UploadLimits) -> list[zipfile.ZipInfo]:
    """Return the entries that are images, once everything in the table keeps the rules."""
    if len(entries) > limits.most_files:
        raise ArchiveTooLargeError(
            f"expected at most {limits.most_files:,} files in the archive, found {len(entries):,}; "
            "send several archives"
        )
    for entry in entries:
        _check_name(entry.filename)
    names = [entry.filename for entry in entries]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ArchiveNameError(f"{shown(twice)}: two files have this name; rename one of them")
    images = [entry for entry in entries if not entry.is_dir() and not is_foreign(entry.filename)]
    for entry in images:
        _check_entry(entry, limits)
    total = sum(entry.file_size for entry in images)
    if total > limits.most_total_bytes:
        raise ArchiveTooLargeError(
            f"expected at most {limits.most_total_bytes:,} bytes in the archive once unpacked, "
            f"found {total:,}; send several archives"
        )
    return images


def _check_name(name: str) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
        raise ArchiveNameError(
            f"{shown(name)}: expected a name inside the archive, found one that may lead out of "
            "it; pack the folder anew"
        )


def is_foreign(name: str) -> bool:
    """Tell whether a desktop system has added a file by itself, by the file's path in a folder."""
    path = PurePosixPath(name)
    return path.name in FOREIGN_FILES or not FOREIGN_FOLDERS.isdisjoint(path.parts)


def _check_entry(entry: zipfile.ZipInfo, limits: UploadLimits) -> None:
    name, suffix = shown(entry.filename), PurePosixPath(entry.filename).suffix.lower()
    if suffix in ARCHIVE_SUFFIXES:
        raise _nested(name)
    mode = entry.external_attr >> 16
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        raise ArchiveEntryError(
            f"{name}: expected an image, found a link or a device; leave it out"
        )
    if suffix not in IMAGE_SUFFIXES:
        raise ArchiveEntryError(
            f"{name}: expected an image ({', '.join(sorted(IMAGE_SUFFIXES))}); leave it out"
        )
    if entry.flag_bits & ENCRYPTED or entry.compress_type not in COMPRESSIONS:
        raise ArchiveFormatError(
            f"{name}: expected a file stored or deflated, without a password; pack it anew"
        )
    if entry.file_size > limits.most_file_bytes:
        raise ArchiveTooLargeError(
            f"{name}: expected at most {limits.most_file_bytes:,} bytes, found "
            f"{entry.file_size:,}; make it smaller"
        )
    if entry.file_size > limits.largest_ratio * max(1, entry.compress_size):
        raise ArchiveTooLargeError(
            f"{name}: {entry.file_size:,} bytes out of {entry.compress_size:,} are more than "
            "an image can be; leave it out"
        )


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """Decompress one file, and stop as soon as more comes out than the table says."""
    name, data = shown(entry.filename), bytearray()
    try:
        with archive.open(entry) as file:
            while chunk := file.read(min(CHUNK_BYTES, entry.file_size + 1 - len(data))):
                data += chunk
    except Exception as error:
        raise ArchiveFormatError(
            f"{name}: the archive is damaged here ({error}); pack it anew"
        ) from error
    if len(data) != entry.file_size:
        raise ArchiveFormatError(
            f"{name}: expected {entry.file_size:,} bytes, found another number; pack it anew"
        )
    if data.startswith(ARCHIVE_OPENINGS):
        raise _nested(name)
    return bytes(data)


def _nested(name: str) -> NestedArchiveError:
    return NestedArchiveError(
        f"{name}: expected an image, found an archive in the archive; unpack it first"
    )
