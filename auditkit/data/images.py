"""Decoding single images that come from outside, within limits."""

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from auditkit.data.errors import ImageSizeError, UndecodableImageError

Pixels = NDArray[np.uint8]

# Far above any training image, far below what exhausts the memory of a small machine.
MOST_PIXELS = 32_000_000

# More than an uncompressed image of that many pixels takes.
MOST_FILE_BYTES = 256 * 2**20

MODES = {1: "L", 3: "RGB"}

# Formats with plain pixel decoders. Others (PostScript, for one) start programs.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")

# More than eight bits per value: a conversion would clip without a word.
WIDE_MODES = ("I", "F")


def decode_image(
    data: bytes,
    height: int,
    width: int,
    channels: int,
    *,
    resize: bool = False,
    name: str = "the image",
) -> Pixels:
    """Decode one image to pixels (H, W, C): grey for one channel, RGB for three.

    Raises:
        UndecodableImageError: not an 8-bit image, cut off, or too large to be opened safely.
        ImageSizeError: another size than height x width, and `resize` is off.

    """
    image = open_image(data, name)
    if image.size != (width, height) and not resize:
        raise ImageSizeError(
            f"{name}: expected {width} x {height} pixels (width x height), found "
            f"{image.width} x {image.height}; resize the image, or set `resize` for the source"
        )
    return to_pixels(image, height, width, channels)


def open_image(data: bytes, name: str) -> Image.Image:
    """Decode one image completely, at its own size.

    Raises:
        UndecodableImageError: not an 8-bit image, cut off, or too large to be opened safely.

    """
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        if image.width * image.height <= MOST_PIXELS:
            image.load()
    except Exception as error:
        # Decoders meet hostile bytes here and raise whatever they like.
        raise UndecodableImageError(
            f"{name}: expected a whole image ({', '.join(FORMATS)}), found {len(data)} bytes that "
            f"cannot be decoded ({error}); remove or replace it"
        ) from error
    if image.width * image.height > MOST_PIXELS:
        raise UndecodableImageError(
            f"{name}: expected at most {MOST_PIXELS:,} pixels, found {image.width} x "
            f"{image.height}; make it smaller"
        )
    if image.mode.startswith(WIDE_MODES):
        raise UndecodableImageError(
            f"{name}: expected eight bits per value, found mode {image.mode!r}; convert it"
        )
    return image


def open_file(path: Path) -> Image.Image:
    """Decode an image file completely.

    Raises:
        UndecodableImageError: see `open_image`, or the file cannot be read.

    """
    try:
        size = path.stat().st_size
        if size > MOST_FILE_BYTES:
            raise UndecodableImageError(
                f"{path}: expected an image of at most {MOST_FILE_BYTES:,} bytes, found {size:,}; "
                "make it smaller"
            )
        data = path.read_bytes()
    except OSError as error:
        raise UndecodableImageError(f"{path}: expected a readable file, found {error}") from error
    return open_image(data, str(path))


def to_pixels(image: Image.Image, height: int, width: int, channels: int) -> Pixels:
    """Convert a decoded image to pixels (H, W, C), resized bilinearly if need be."""
    converted = image.convert(MODES[channels])
    if converted.size != (width, height):
        converted = converted.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(converted, dtype=np.uint8).reshape(height, width, channels)
