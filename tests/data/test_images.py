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


def test_of_an_animation_the_first_frame_counts_and_orientation_is_not_applied() -> None:
    frames = [Image.fromarray(np.roll(PIXELS, shift, axis=0)) for shift in range(3)]
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter before it is shown
    for kind in ("PNG", "WEBP"):
        stream = io.BytesIO()
        options = {"save_all": True, "append_images": frames[1:], "exif": exif, "lossless": True}
        frames[0].save(stream, kind, **options)
        np.testing.assert_array_equal(decode_image(stream.getvalue(), 6, 5, 3), PIXELS)


def test_ink_is_converted_to_light() -> None:
    ink = Image.new("CMYK", (5, 6), (0, 255, 255, 0))
    stream = io.BytesIO()
    ink.save(stream, "TIFF")
    red = np.full((6, 5, 3), (255, 0, 0), dtype=np.uint8)
    np.testing.assert_array_equal(decode_image(stream.getvalue(), 6, 5, 3), red)
