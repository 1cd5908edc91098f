"""Decoding single images that come from outside, within limits."""

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from auditkit.data.errors import (
    DamagedImageError,
    ImageDepthError,
    ImageSizeError,
    NotAnImageError,
    TooManyPixelsError,
    UndecodableImageError,
)

Pixels = NDArray[np.uint8]

# Far above any training image, far below what exhausts the memory of a small machine.
MOST_PIXELS = 32_000_000

# More than an uncompressed image of that many pixels takes.
MOST_FILE_BYTES = 256 * 2**20

MODES = {1: "L", 3: "RGB"}

# Formats with plain pixel decoders. Others (PostScript, for one) start programs.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")

# What else people send, by its first bytes: to say so is kinder than "cannot be decoded".
OTHER_OPENINGS = (
    (b"PK", "a ZIP archive"),
    (b"\x80\x02", "a pickle, which can run code"),
    (b"\x80\x03", "a pickle, which can run code"),
    (b"\x80\x04", "a pickle, which can run code"),
    (b"\x80\x05", "a pickle, which can run code"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"%PDF", "a PDF document"),
    (b"%!PS", "a PostScript program"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
)
OTHER_TEXTS = (
    (b"<svg", "an SVG drawing, which can hold programs"),
    (b"<!doctype html", "a web page"),
    (b"<html", "a web page"),
    (b"<script", "a web page"),
)
# An SVG drawing may begin with a declaration and comments.
MOST_OPENING_BYTES = 1024

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
        UndecodableImageError, and its kinds: see `open_image`.
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

    Of an animation this is the first frame. EXIF is dropped, and an orientation in it is not
    applied (a TIFF's own is, by Pillow): pools and queries are read alike.

    Raises:
        NotAnImageError, DamagedImageError, TooManyPixelsError, ImageDepthError: the kinds of
            UndecodableImageError.

    """
    image = _identified(data, name)
    if image.width * image.height > MOST_PIXELS:
        raise TooManyPixelsError(
            f"{name}: expected at most {MOST_PIXELS:,} pixels, found {image.width} x "
            f"{image.height}; make it smaller"
        )
    try:
        image.load()
    except Exception as error:
        # Decoders meet hostile bytes here and raise whatever they like.
        raise DamagedImageError(
            f"{name}: expected a whole image, found a {image.format} that is cut off or damaged "
            f"({error}); remove or replace it"
        ) from error
    if image.mode.startswith(WIDE_MODES):
        raise ImageDepthError(
            f"{name}: expected eight bits per value, found mode {image.mode!r}; convert it"
        )
    return image


def _identified(data: bytes, name: str) -> Image.Image:
    """Read the header of an image, and decode nothing."""
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise TooManyPixelsError(
            f"{name}: expected at most {MOST_PIXELS:,} pixels, found many more; make it smaller"
        ) from error
    except UnidentifiedImageError as error:
        raise NotAnImageError(
            f"{name}: expected an image ({', '.join(FORMATS)}), found {_other(data)}; remove or "
            "replace it"
        ) from error
    except Exception as error:
        raise DamagedImageError(
            f"{name}: expected a whole image ({', '.join(FORMATS)}), found {len(data)} bytes that "
            f"cannot be decoded ({error}); remove or replace it"
        ) from error


def _other(data: bytes) -> str:
    """Say what bytes are that are no image."""
    text = data[:MOST_OPENING_BYTES].lower()
    for opening, what in OTHER_OPENINGS:
        if data.startswith(opening):
            return what
    for sign, what in OTHER_TEXTS:
        if sign in text:
            return what
    return f"{len(data)} bytes that are none"


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
