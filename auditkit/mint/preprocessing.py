"""From stored pixels to network inputs: scaling and augmentation, both exactly repeatable."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from auditkit.mint.errors import EmptyCohortError, PixelTypeError
from schemas import Normalisation
from schemas.training import AugmentationName

LEVELS = 256
CHUNK = 4096  # images per histogram step; bounds the memory, changes no result

# A channel that never changes has no spread; one grey level then counts as one unit.
LEAST_SPREAD = 1.0 / (LEVELS - 1)

# Which bits of a word decide what: one for the flip, fifteen for each shift. 2**15 is so much
# larger than the few possible shifts that the remainder favours none by more than 0.1 %.
SHIFT_BITS = 15
SHIFT_MASK = (1 << SHIFT_BITS) - 1
BLUR_STEPS = 4  # 0, 1, 2 and 3 thirds


def normalisation_of(images: NDArray[np.uint8]) -> Normalisation:
    """Measure mean and standard deviation per channel of (N, H, W, C) pixels.

    The sums are taken over whole-number histograms, so that neither order nor threads matter.

    Raises:
        PixelTypeError, EmptyCohortError.

    """
    _check_pixels(images)
    if images.size == 0:
        raise EmptyCohortError("expected at least one image to measure, found none")
    levels = np.arange(LEVELS, dtype=np.float64) / (LEVELS - 1)
    means, spreads = [], []
    for channel in range(images.shape[3]):
        counts = np.zeros(LEVELS, dtype=np.int64)
        for start in range(0, len(images), CHUNK):
            pixels = images[start : start + CHUNK, :, :, channel]
            counts += np.bincount(pixels.ravel(), minlength=LEVELS)
        shares = counts / counts.sum()
        mean = float((shares * levels).sum())
        spread = float(np.sqrt((shares * (levels - mean) ** 2).sum()))
        means.append(mean)
        spreads.append(max(spread, LEAST_SPREAD))
    return Normalisation(mean=tuple(means), std=tuple(spreads))


def to_inputs(images: NDArray[np.uint8] | Tensor, normalisation: Normalisation) -> Tensor:
    """Turn pixels (B, H, W, C) into float32 inputs (B, C, H, W), laid out channels last.

    Pixels on an accelerator, a tensor of bytes, give inputs on that accelerator.

    Raises:
        PixelTypeError: not 8-bit pixels, or another number of channels than was measured.

    """
    _check_pixels(images)
    if images.shape[3] != len(normalisation.mean):
        raise PixelTypeError(
            f"expected {len(normalisation.mean)} channels, found {images.shape[3]}"
        )
    mean = torch.tensor(normalisation.mean, dtype=torch.float32)
    scale = 1.0 / ((LEVELS - 1) * torch.tensor(normalisation.std, dtype=torch.float64))
    if not isinstance(images, Tensor):
        images = torch.from_numpy(np.ascontiguousarray(images))
    pixels, device = images.float(), images.device
    shifted = pixels.sub_((mean * (LEVELS - 1)).to(device)).mul_(scale.float().to(device))
    return shifted.permute(0, 3, 1, 2)


def augment(
    images: Tensor, words: NDArray[np.uint32], name: AugmentationName, shift_pixels: int
) -> Tensor:
    """Flip and shift each of the images (B, C, H, W) as its 32-bit word says.

    `flip_shift` flips horizontally by bit 0 and shifts by up to `shift_pixels` in both
    directions, `shift` only shifts, `none` returns the images. `robust` flips, shifts, and mixes
    each image with its 3 x 3 mean in thirds from 0 to 1, so that what resizing and compression
    take away is not what T learns a member by. Pixels that come in from outside mirror the edge,
    so that no artificial border marks a shifted image.

    Raises:
        PixelTypeError: another number of words than images, or a shift as large as the image.

    """
    if name == "none":
        return images
    count, _, height, width = images.shape
    if words.shape != (count,):
        raise PixelTypeError(f"expected one word per image, {count}, found {words.shape}")
    if shift_pixels >= min(height, width):
        raise PixelTypeError(
            f"expected a shift smaller than the image, {height} x {width}, found {shift_pixels}"
        )
    bits = torch.from_numpy(words.astype(np.int64))
    first = (bits >> 1) & SHIFT_MASK
    rows = torch.arange(height) + _shift(first, shift_pixels)[:, None]
    columns = torch.arange(width) + _shift(bits >> (1 + SHIFT_BITS), shift_pixels)[:, None]
    rows, columns = _mirrored(rows, height), _mirrored(columns, width)
    if name in {"flip_shift", "robust"}:
        flip = (bits & 1).bool()[:, None]
        columns = torch.where(flip, columns.flip(dims=(1,)), columns)
    which = torch.arange(count)[:, None, None]
    moved = images.permute(0, 2, 3, 1)[which, rows[:, :, None], columns[:, None, :]]
    if name == "robust":
        # What the shift leaves of its bits by division hardly depends on the shift.
        thirds = (first // (2 * shift_pixels + 1)) % BLUR_STEPS
        share = (thirds[:, None, None, None] / 3.0).to(moved.device)
        moved = torch.lerp(moved, _mean_of_neighbours(moved), share)
    return moved.permute(0, 3, 1, 2)


def _shift(bits: Tensor, most: int) -> Tensor:
    return (bits & SHIFT_MASK) % (2 * most + 1) - most


def _mean_of_neighbours(images: Tensor) -> Tensor:
    """Return the 3 x 3 means of images (B, H, W, C); the edges are mirrored."""
    for axis in (1, 2):
        size = images.shape[axis]
        before = torch.cat((images.narrow(axis, 1, 1), images.narrow(axis, 0, size - 1)), axis)
        after = torch.cat(
            (images.narrow(axis, 1, size - 1), images.narrow(axis, size - 2, 1)), axis
        )
        images = (before + images + after) / 3.0
    return images


def _mirrored(positions: Tensor, size: int) -> Tensor:
    positions = positions.abs()
    return torch.where(positions < size, positions, 2 * (size - 1) - positions)


def _check_pixels(images: NDArray[np.uint8] | Tensor) -> None:
    expected = torch.uint8 if isinstance(images, Tensor) else np.uint8
    if images.dtype != expected or images.ndim != 4:
        raise PixelTypeError(
            "expected uint8 pixels of shape (images, height, width, channels), found "
            f"{images.dtype} of shape {tuple(images.shape)}"
        )
