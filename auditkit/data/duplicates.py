"""Near-duplicates: images that show the same picture, found without any model.

Robust membership codes are meant to match a member's near-duplicates. A pool that holds one copy of
each picture keeps a false-positive rate at 0.1 % from counting such matches as mistakes.

An image's fingerprint is what is left of it after averaging to 16 x 16 cells, a light blur, and
taking off each channel's mean, most of the light from top to bottom, and the contrast. Two images
are as similar as the cosine of their fingerprints, or of one and the other's mirror image,
whichever is larger.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from auditkit.data.errors import ImageSizeError, PixelTypeError, TooManyDuplicatesError
from auditkit.data.images import Pixels

Indices = NDArray[np.int64]
Floats = NDArray[np.float32]

# On CIFAR-10 at least 97 % of the copies that were recompressed, resized, brightened, mirrored or
# moved by a pixel reach it, and most pairs of different files that do show one picture.
NEAR_DUPLICATE_THRESHOLD = 0.9

# Cells per side of a fingerprint: what recompression and noise change is averaged away.
CELLS = 16

# Neighbouring cells are mixed, so that a shift by a pixel changes little.
BLUR = (0.25, 0.5, 0.25)

# What is kept of the light from top to bottom. With all of it any two pictures of something under a
# sky are alike; with none, images that show stripes and nothing else could not be told apart.
PROFILE = 0.25

# Images whose cells differ by less than half a grey level show nothing: they are alike.
FLAT = 0.5

# Rows of one matrix product; two buffers of this many values squared are 32 MiB.
BLOCK = 2048

# Above this a threshold tells no near-duplicates apart, and the pairs alone would fill 400 MB.
MOST_PAIRS = 20_000_000


@dataclass(frozen=True)
class Pairs:
    """Pairs of similar images: positions `first` < `second` (P,), and their `similarity` (P,)."""

    first: Indices
    second: Indices
    similarity: Floats

    @property
    def size(self) -> int:
        """Number of pairs."""
        return len(self.first)


@dataclass(frozen=True)
class _Fingerprints:
    """Unit vectors in two parts: (N, K) each, the same for, and reversed by, a mirror.

    The product of an image with another is the sum of the products of their parts, with the
    other's mirror image the difference: both similarities at the price of one.
    """

    even: Floats
    odd: Floats

    @property
    def size(self) -> int:
        return len(self.even)

    def similarity(self, rows: slice, others: "_Fingerprints", columns: slice) -> Floats:
        """Return the larger of both cosines, (rows, columns)."""
        mirrored = self.odd[rows] @ others.odd[columns].T
        np.abs(mirrored, out=mirrored)
        similarity: Floats = self.even[rows] @ others.even[columns].T
        similarity += mirrored
        return similarity


def near_duplicates(images: Pixels, threshold: float = NEAR_DUPLICATE_THRESHOLD) -> Pairs:
    """Return all pairs of images (N, H, W, C) whose similarity reaches the threshold.

    Time grows with N squared; memory beyond the images is about 3 kB per colour image.

    Raises:
        PixelTypeError: not uint8 pixels of shape (N, H, W, C).
        TooManyDuplicatesError: more than `MOST_PAIRS` pairs.

    """
    prints = _fingerprints(images)
    found: list[tuple[Indices, Indices, Floats]] = []
    count = 0
    for rows in _blocks(prints.size):
        for columns in _blocks(prints.size, rows.start):
            similarity = prints.similarity(rows, prints, columns)
            first, second = np.nonzero(similarity >= threshold)
            values = similarity[first, second]
            first, second = first + rows.start, second + columns.start
            later = first < second
            found.append((first[later], second[later], values[later]))
            count += int(later.sum())
            if count > MOST_PAIRS:
                raise TooManyDuplicatesError(
                    f"expected at most {MOST_PAIRS:,} pairs of near-duplicates, found more among "
                    f"{prints.size:,} images at a similarity of {threshold}; raise it, or keep "
                    "near-duplicates: the images of this set are all alike"
                )
    empty = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))
    first, second, values = (np.concatenate(part) for part in zip(empty, *found, strict=True))
    order = np.lexsort((second, first))
    return Pairs(first[order], second[order], np.minimum(values[order], 1))


def nearest(images: Pixels, others: Pixels) -> tuple[Indices, Floats]:
    """Return for each of `images` the most similar of `others`, and how similar it is: (N,), (N,).

    Raises:
        PixelTypeError: not uint8 pixels of shape (N, H, W, C), or no others.
        ImageSizeError: one side is grey, the other in colour.

    """
    if len(others) == 0:
        raise PixelTypeError("expected at least one image to compare with, found none")
    if images.shape[-1] != others.shape[-1]:
        raise ImageSizeError(
            f"expected images with {others.shape[-1]} channels like those they are compared with, "
            f"found {images.shape[-1]}; convert one side"
        )
    left, right = _fingerprints(images), _fingerprints(others)
    index = np.zeros(left.size, dtype=np.int64)
    best = np.full(left.size, -np.inf, dtype=np.float32)
    for rows in _blocks(left.size):
        for columns in _blocks(right.size):
            similarity = left.similarity(rows, right, columns)
            place = similarity.argmax(axis=1)
            value = np.take_along_axis(similarity, place[:, np.newaxis], axis=1)[:, 0]
            better = value > best[rows]
            best[rows][better] = value[better]
            index[rows][better] = place[better] + columns.start
    return index, np.minimum(best, 1)


def representatives(pairs: Pairs, size: int) -> Indices:
    """Return one position of `size` per group of linked images, the lowest, in rising order."""
    links = coo_array((np.ones(pairs.size, np.int8), (pairs.first, pairs.second)), (size, size))
    _, groups = connected_components(links, directed=False)
    _, lowest = np.unique(groups, return_index=True)
    return np.sort(lowest).astype(np.int64)


def _blocks(size: int, start: int = 0) -> Iterator[slice]:
    for first in range(start, size, BLOCK):
        yield slice(first, min(first + BLOCK, size))


def _fingerprints(images: Pixels) -> _Fingerprints:
    if images.dtype != np.uint8 or images.ndim != 4:
        raise PixelTypeError(
            f"expected uint8 pixels of shape (N, H, W, C), found {images.dtype} of {images.shape}"
        )
    count, height, width, channels = images.shape
    half = CELLS // 2
    down = _cells(height)
    across = _cells(width)
    left, right = across[:half], across[::-1][:half]
    parts = ((left + right) / np.sqrt(2), (left - right) / np.sqrt(2))
    length = CELLS * half * channels
    even = np.empty((count, length), dtype=np.float32)
    odd = np.empty((count, length), dtype=np.float32)
    for rows in _blocks(count):
        pixels = images[rows].astype(np.float32)
        lines = np.einsum("ah,nhwc->nawc", down, pixels, optimize=True)
        for store, columns in zip((even, odd), parts, strict=True):
            cells = np.einsum("bw,nawc->nabc", columns, lines, optimize=True)
            store[rows] = cells.reshape(len(cells), length)
    # Means are in the part that a mirror leaves as it is.
    profile = even.reshape(count, CELLS, half, channels)
    profile -= profile.mean(axis=(1, 2), keepdims=True)
    profile -= (1 - PROFILE) * profile.mean(axis=2, keepdims=True)
    norms = np.sqrt(np.square(even).sum(axis=1) + np.square(odd).sum(axis=1))
    flat = norms < FLAT * np.sqrt(2 * length)
    even[flat], odd[flat], norms[flat] = 1, 0, np.sqrt(length)
    even /= norms[:, np.newaxis]
    odd /= norms[:, np.newaxis]
    return _Fingerprints(even, odd)


def _cells(side: int) -> Floats:
    """Return the weights (CELLS, side) of each pixel of a line in each blurred cell."""
    edges = np.linspace(0, side, CELLS + 1)
    pixel = np.arange(side)
    ends = np.minimum(edges[1:, np.newaxis], pixel + 1)
    starts = np.maximum(edges[:-1, np.newaxis], pixel)
    weights = np.maximum(ends - starts, 0) * CELLS / side
    padded = np.pad(weights, ((1, 1), (0, 0)), mode="edge")
    blurred = sum(share * padded[i : i + CELLS] for i, share in enumerate(BLUR))
    return np.asarray(blurred, dtype=np.float32)
