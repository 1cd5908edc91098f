"""A layer as a stream: decompressed, counted and hashed on its way, never held in memory."""

import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from types import MappingProxyType

import zstandard

from containers.errors import (
    ArchiveFormatError,
    ArchiveSizeError,
    TruncatedArchiveError,
    UnsupportedCompressionError,
)
from containers.tar import CHUNK

GZIP_MAGIC = b"\x1f\x8b"
GZIP_FORMAT = 31
"""What zlib calls a gzip wrapper (RFC 1952), checksum and length verified, largest window."""

MAX_PARTS = 1_000_000
"""Most gzip members or zstd frames in a layer: formats for lazy loading write one per file."""

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
MOST_ZSTD_WINDOW = 2**27
"""Most memory in bytes that a zstd frame may ask for (RFC 8878, section 3.1.1.1.2); compressors
have to be told to ask for more."""

ZSTD_PIECE = 1024
"""How much zstd is decompressed at a time: 4 bytes can stand for 128 KiB, so 1 KiB for 32 MiB."""

UNSUPPORTED = MappingProxyType({b"\xfd7zXZ\x00": "xz", b"BZh": "bzip2"})
LONGEST_MAGIC = 6


@dataclass
class Budget:
    """How many decompressed bytes may still come, over all layers of an archive."""

    left: int


@dataclass(frozen=True)
class LayerDigests:
    """SHA-256 (lower-case hexadecimal) and size in bytes of a layer, as stored and uncompressed."""

    stored: str
    stored_size: int
    diff_id: str
    size: int


class LayerStream:
    """The uncompressed bytes of one layer, and what they hash to."""

    def __init__(
        self, stored: Iterator[bytes], what: str, *, most_bytes: int, budget: Budget
    ) -> None:
        """Take the stored bytes in pieces, what to call them in errors, and the limits."""
        self._what = what
        self._most_bytes = most_bytes
        self._budget = budget
        self._stored_digest, self._stored_size = hashlib.sha256(), 0
        self._pieces, is_compressed = decompressed(self._count_stored(stored), what)
        # A layer without compression is hashed once: its stored bytes are its bytes.
        self._digest = hashlib.sha256() if is_compressed else self._stored_digest
        self._size = 0
        self._piece = b""
        self._position = 0

    def read(self, size: int) -> bytes:
        """Return the next `size` uncompressed bytes, or fewer at the end.

        Raises:
            ArchiveFormatError: the compressed bytes are damaged.
            TruncatedArchiveError: they end too early.
            ArchiveSizeError: they decompress to more than is accepted.
            UnsupportedCompressionError: no decompressor is at hand.
        """
        parts = []
        while size and self._fill():
            part = self._piece[self._position : self._position + size]
            self._position += len(part)
            size -= len(part)
            parts.append(part)
        return b"".join(parts)

    def skip(self, size: int) -> None:
        """Leave out the next `size` uncompressed bytes; raises as `read`."""
        while size and self._fill():
            step = min(size, len(self._piece) - self._position)
            self._position += step
            size -= step

    def finish(self) -> LayerDigests:
        """Read the rest, and return what the whole layer hashes to; raises as `read`."""
        while self._fill():
            self._position = len(self._piece)
        return LayerDigests(
            stored=self._stored_digest.hexdigest(),
            stored_size=self._stored_size,
            diff_id=self._digest.hexdigest(),
            size=self._size,
        )

    def _fill(self) -> bool:
        if self._position == len(self._piece):
            self._piece, self._position = next(self._pieces, b""), 0
            if self._digest is not self._stored_digest:
                self._digest.update(self._piece)
            self._size += len(self._piece)
            self._budget.left -= len(self._piece)
            if self._size > self._most_bytes or self._budget.left < 0:
                raise ArchiveSizeError(
                    f"{self._what} decompresses to more than is accepted (at most "
                    f"{self._most_bytes} bytes for one layer, and a limit for all together)"
                )
        return bool(self._piece)

    def _count_stored(self, stored: Iterator[bytes]) -> Iterator[bytes]:
        for piece in stored:
            self._stored_digest.update(piece)
            self._stored_size += len(piece)
            yield piece


def decompressed(stored: Iterator[bytes], what: str) -> tuple[Iterator[bytes], bool]:
    """Return the bytes of a layer without compression, and whether they had any.

    The pieces are never empty.

    The compression is told by its magic number, as engines do; media types are often wrong.

    Raises:
        ArchiveFormatError: damaged gzip or zstd.
        ArchiveSizeError: too many parts, each compressed for itself.
        TruncatedArchiveError: gzip or zstd that ends too early.
        UnsupportedCompressionError: xz or bzip2.
    """
    first = b""
    while len(first) < LONGEST_MAGIC and (piece := next(stored, b"")):
        first += piece
    for magic, name in UNSUPPORTED.items():
        if first.startswith(magic):
            raise UnsupportedCompressionError(
                f"{what} is compressed with {name}; expected gzip, zstd or none. Save the image "
                "with gzip layers, for instance with `skopeo copy --dest-compress-format gzip`"
            )
    pieces = _then(first, stored)
    if first.startswith(GZIP_MAGIC):
        return _gunzipped(pieces, what), True
    if first.startswith(ZSTD_MAGIC):
        return _decompressed_zstd(pieces, what), True
    return pieces, False


def _then(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    if first:
        yield first
    yield from rest


def _gunzipped(stored: Iterator[bytes], what: str) -> Iterator[bytes]:
    """Decompress one gzip member after another (RFC 1952, section 2.2)."""
    inflater = None
    members = 0
    for piece in stored:
        compressed = piece
        while compressed:
            if inflater is None:
                inflater = zlib.decompressobj(GZIP_FORMAT)
                members += 1
            if members > MAX_PARTS:
                raise ArchiveSizeError(f"{what} has more than {MAX_PARTS} gzip members")
            try:
                plain = inflater.decompress(compressed, CHUNK)
            except zlib.error as error:
                raise ArchiveFormatError(f"{what} is damaged gzip: {error}") from error
            if plain:
                yield plain
            compressed = inflater.unconsumed_tail
            if inflater.eof:
                compressed = inflater.unused_data
                inflater = None
    if inflater is not None:
        raise TruncatedArchiveError(f"{what} is gzip that ends too early; save the image again")


def _decompressed_zstd(stored: Iterator[bytes], what: str) -> Iterator[bytes]:
    """Decompress one zstd frame after another, skippable ones as well (RFC 8878, section 3.1)."""
    decompressor = zstandard.ZstdDecompressor(max_window_size=MOST_ZSTD_WINDOW)
    frame = None
    frames = 0
    for piece in stored:
        for start in range(0, len(piece), ZSTD_PIECE):
            compressed = piece[start : start + ZSTD_PIECE]
            while compressed:
                if frame is None:
                    frame = decompressor.decompressobj()
                    frames += 1
                if frames > MAX_PARTS:
                    raise ArchiveSizeError(f"{what} has more than {MAX_PARTS} zstd frames")
                try:
                    plain = frame.decompress(compressed)
                except zstandard.ZstdError as error:
                    raise ArchiveFormatError(f"{what} is damaged zstd: {error}") from error
                if plain:
                    yield plain
                compressed = b""
                if frame.eof:
                    compressed = frame.unused_data
                    frame = None
    if frame is not None:
        raise TruncatedArchiveError(f"{what} is zstd that ends too early; save the image again")
