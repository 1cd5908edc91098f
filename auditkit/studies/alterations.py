"""What happens to a picture on its way: alterations of pixels (N, H, W, C) that keep its content.

A copy that was mirrored, recompressed or resized differs in every byte, so no hash finds it. The
registry holds the alterations that a blind query is expected to survive, and some that go further
than the training augmentation.
"""

import io
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from auditkit.data.images import MODES, Pixels, open_image
from auditkit.studies.errors import UnknownAlterationError

Alteration = Callable[[Pixels, np.random.Generator], Pixels]
"""Pixels (N, H, W, C) to pixels of the same shape; chance comes from the generator alone."""

NOISE_LEVELS = 4.0  # standard deviation in grey levels of 255: hardly visible

# Brightness, contrast and saturation are each multiplied by 0.8 to 1.2, as photo programs offer.
COLOUR_STRENGTH = 0.2
LUMA = (0.299, 0.587, 0.114)  # of red, green and blue (ITU-R BT.601)

SCREEN_SCALE = 3
SCREEN_BORDER = 1  # pixels around the picture that were caught with it
SCREEN_GREY = 255  # of the page behind it


def alter(name: str, images: Pixels, seed: int) -> Pixels:
    """Apply an alteration of the registry to images (N, H, W, C); equal seeds, equal results.

    Raises:
        UnknownAlterationError: no alteration has that name; those that exist are listed.
    """
    if name not in ALTERATIONS:
        raise UnknownAlterationError(
            f"expected one of {', '.join(ALTERATIONS)}, found {name!r}; choose one of them"
        )
    return ALTERATIONS[name](images, np.random.default_rng(seed))


def flipped(images: Pixels, _generator: np.random.Generator) -> Pixels:
    """Mirror left and right."""
    return np.ascontiguousarray(images[:, :, ::-1])


def shifted(images: Pixels, generator: np.random.Generator, distance: int) -> Pixels:
    """Move each image by exactly `distance` pixels into one of eight directions, edges repeated."""
    directions = np.array([(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)])
    moves = distance * directions[generator.integers(len(directions), size=len(images))]
    return moved(images, moves)


def moved(images: Pixels, moves: NDArray[np.int64]) -> Pixels:
    """Move each image by its own (rows, columns), `moves` (N, 2); edges are repeated."""
    _, height, width, _ = images.shape
    rows = np.clip(np.arange(height) - moves[:, :1], 0, height - 1)
    columns = np.clip(np.arange(width) - moves[:, 1:], 0, width - 1)
    which = np.arange(len(images))[:, None, None]
    return np.asarray(images[which, rows[:, :, None], columns[:, None, :]])


def noisy(images: Pixels, generator: np.random.Generator) -> Pixels:
    """Add Gaussian noise of `NOISE_LEVELS` grey levels to every value."""
    return _pixels(images + generator.normal(0.0, NOISE_LEVELS, size=images.shape))


def recoloured(images: Pixels, generator: np.random.Generator) -> Pixels:
    """Change brightness, contrast and, where there are colours, saturation of each image."""
    channels = images.shape[3]
    factors = generator.uniform(
        1.0 - COLOUR_STRENGTH, 1.0 + COLOUR_STRENGTH, size=(3, len(images), 1, 1, 1)
    )
    weights = np.array(LUMA) if channels == len(LUMA) else np.full(channels, 1.0 / channels)
    brightness, contrast, saturation = factors
    bright = images * brightness
    grey = (bright @ weights)[..., None]
    mean = grey.mean(axis=(1, 2), keepdims=True)
    return _pixels(mean + contrast * (grey + saturation * (bright - grey) - mean))


def recompressed(images: Pixels, _generator: np.random.Generator, quality: int) -> Pixels:
    """Write each image as JPEG of a quality (1 to 95) and read it again."""
    return _each(images, lambda image: _reopened(image, "JPEG", quality=quality))


def resized(images: Pixels, _generator: np.random.Generator, scale: float) -> Pixels:
    """Resize each image by a factor, and back, both bilinearly."""

    def there_and_back(image: Image.Image) -> Image.Image:
        size = (max(1, round(scale * image.width)), max(1, round(scale * image.height)))
        return _bilinear(_bilinear(image, size), image.size)

    return _each(images, there_and_back)


def cropped(images: Pixels, _generator: np.random.Generator, share: float) -> Pixels:
    """Cut out the middle, `share` of each side, and enlarge it to the old size."""

    def centre(image: Image.Image) -> Image.Image:
        width, height = max(1, round(share * image.width)), max(1, round(share * image.height))
        left, top = (image.width - width) // 2, (image.height - height) // 2
        return _bilinear(image.crop((left, top, left + width, top + height)), image.size)

    return _each(images, centre)


def screenshot(images: Pixels, _generator: np.random.Generator) -> Pixels:
    """Show each image enlarged (bicubic) on a white page, cut it out a pixel too wide, shrink it.

    The cutting is kept as PNG, as screenshots are, and shrunk bilinearly to the old size.
    """

    def caught(image: Image.Image) -> Image.Image:
        width, height = SCREEN_SCALE * image.width, SCREEN_SCALE * image.height
        page = Image.new(
            image.mode,
            (width + 2 * SCREEN_BORDER, height + 2 * SCREEN_BORDER),
            (SCREEN_GREY,) * len(image.getbands()),
        )
        shown = image.resize((width, height), Image.Resampling.BICUBIC)
        page.paste(shown, (SCREEN_BORDER, SCREEN_BORDER))
        return _bilinear(_reopened(page, "PNG"), image.size)

    return _each(images, caught)


ALTERATIONS: Mapping[str, Alteration] = MappingProxyType(
    {
        "flip": flipped,
        "shift 1 px": partial(shifted, distance=1),
        "shift 2 px": partial(shifted, distance=2),
        "noise 4/255": noisy,
        "colour": recoloured,
        "JPEG 75": partial(recompressed, quality=75),
        "JPEG 50": partial(recompressed, quality=50),
        "resize 2x and back": partial(resized, scale=2.0),
        "resize 3/4 and back": partial(resized, scale=0.75),
        "crop 7/8": partial(cropped, share=0.875),
        "screenshot": screenshot,
    }
)


def _pixels(values: NDArray[np.float64]) -> Pixels:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _each(images: Pixels, change: Callable[[Image.Image], Image.Image]) -> Pixels:
    altered = np.empty_like(images)
    mode = MODES[images.shape[3]]
    for index, pixels in enumerate(images):
        image = Image.fromarray(pixels[:, :, 0] if mode == "L" else pixels)
        altered[index] = np.asarray(change(image)).reshape(pixels.shape)
    return altered


def _bilinear(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image.resize(size, Image.Resampling.BILINEAR)


def _reopened(image: Image.Image, kind: str, **options: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return open_image(file.getvalue(), f"an altered image ({kind})")
