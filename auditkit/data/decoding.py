"""Decoding the samples of a listing into one array."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from auditkit.data.errors import ImageSizeError, PoolTooLargeError
from auditkit.data.images import Pixels, to_pixels
from auditkit.data.layouts.listing import Labels, Listing

Progress = Callable[[int, int], None]  # images done, images in all

# Images that one thread decodes in one go.
CHUNK = 64

# Decoders release the interpreter, everything around them does not: more threads only wait.
MOST_THREADS = 8


@dataclass(frozen=True)
class Format:
    """What the images of a pool must look like; None means: like the first one."""

    height: int | None
    width: int | None
    channels: int | None
    resize: bool


def decode(
    listing: Listing, chosen: NDArray[np.int64], wanted: Format, progress: Progress | None = None
) -> tuple[Pixels, Labels]:
    """Decode the chosen samples, in that order: images (N, H, W, C) and labels (N,).

    Memory beyond the result is that of a few decoded images.

    Raises:
        DataError: what the listing raises for a sample.
        ImageSizeError: an image has another size, and `resize` is off.
        PoolTooLargeError: more than this machine's memory.

    """
    first, _ = listing.sample(int(chosen[0]))
    height, width = wanted.height or first.height, wanted.width or first.width
    shape = (len(chosen), height, width, wanted.channels or listing.channels)
    _check_memory(shape, listing.name)
    images = np.empty(shape, dtype=np.uint8)
    labels = np.empty(len(chosen), dtype=np.int64)

    def decode_chunk(start: int) -> int:
        stop = min(start + CHUNK, len(chosen))
        for place in range(start, stop):
            image, labels[place] = listing.sample(int(chosen[place]))
            if image.size != (width, height) and not wanted.resize:
                raise ImageSizeError(
                    f"{listing.sample_name(int(chosen[place]))}: expected {width} x {height} "
                    f"pixels (width x height), found {image.width} x {image.height}; set `resize` "
                    "with `height` and `width`, or resize the images"
                )
            images[place] = to_pixels(image, height, width, shape[3])
        return stop

    starts = range(0, len(chosen), CHUNK)
    threads = min(MOST_THREADS, len(os.sched_getaffinity(0))) if listing.concurrent else 1
    pool = ThreadPoolExecutor(threads)
    try:
        # Results come in the order of the chunks: the first bad image is always the one named.
        for done in pool.map(decode_chunk, starts):
            if progress is not None:
                progress(done, len(chosen))
    finally:
        pool.shutdown(cancel_futures=True)
    return images, labels


def _check_memory(shape: tuple[int, ...], name: str) -> None:
    needed = int(np.prod(shape, dtype=np.int64))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > memory:
        raise PoolTooLargeError(
            f"{name}: expected images that fit into the memory of this machine ({memory:,} bytes), "
            f"found {shape[0]:,} of {shape[2]} x {shape[1]} pixels ({needed:,} bytes); lower "
            "`height` and `width` with `resize`, or set a `limit`"
        )
