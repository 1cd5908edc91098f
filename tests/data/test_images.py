"""A query brings any bytes; only whole images of the right size come through."""

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from auditkit.data.errors import ImageSizeError, UndecodableImageError
from auditkit.data.images import decode_image


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


PIXELS = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)


def test_lossless_images_come_back_exactly() -> None:
    np.testing.assert_array_equal(decode_image(encoded(PIXELS), 6, 5, 3), PIXELS)
    grey = PIXELS[..., 0]
    np.testing.assert_array_equal(decode_image(encoded(grey), 6, 5, 1)[..., 0], grey)
    np.testing.assert_array_equal(
        decode_image(encoded(grey), 6, 5, 3), np.repeat(grey[..., None], 3, axis=2)
    )


def test_wrong_size_is_refused_or_resized() -> None:
    with pytest.raises(ImageSizeError, match=r"expected 6 x 5 .* found 5 x 6"):
        decode_image(encoded(PIXELS), 5, 6, 3)
    assert decode_image(encoded(PIXELS), 12, 10, 1, resize=True).shape == (12, 10, 1)


@given(cut=st.integers(0, 120), flipped=st.integers(0, 60), noise=st.binary(max_size=40))
def test_damaged_bytes_never_give_another_error(cut: int, flipped: int, noise: bytes) -> None:
    data = bytearray(encoded(PIXELS))
    data[flipped] ^= 0xFF
    for damaged in (bytes(data), encoded(PIXELS)[:cut], noise, encoded(PIXELS, "BMP")[:cut]):
        with contextlib.suppress(UndecodableImageError, ImageSizeError):
            assert decode_image(damaged, 6, 5, 3).shape == (6, 5, 3)


def test_decompression_bomb_is_refused_by_its_header() -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    for side in (8_000, 30_000):
        header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
        bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b""))
        with pytest.raises(UndecodableImageError):
            decode_image(bomb + chunk(b"IEND", b""), 8, 8, 1, resize=True)


def test_wide_pixels_and_programs_are_refused() -> None:
    wide = encoded(np.full((4, 4), 40_000, dtype=np.uint16))
    with pytest.raises(UndecodableImageError, match="eight bits"):
        decode_image(wide, 4, 4, 1)
    with pytest.raises(UndecodableImageError):
        decode_image(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n", 4, 4, 3)
