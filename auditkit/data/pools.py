"""Pools: labelled images in memory, from wherever they are kept. Nothing is ever downloaded."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from auditkit.data.checks import checked_samples
from auditkit.data.decoding import Format, Progress, decode
from auditkit.data.duplicates import near_duplicates, representatives
from auditkit.data.errors import EmptyPoolError, SingleClassError
from auditkit.data.images import Pixels
from auditkit.data.layouts import LAYOUTS, image_folder, vision_dataset
from auditkit.data.layouts.listing import Labels, Listing
from auditkit.data.source import Channels, DataSource, Part, Selection

__all__ = [
    "Channels",
    "DataSource",
    "Labels",
    "Part",
    "Pool",
    "Progress",
    "Selection",
    "digits",
    "from_arrays",
    "from_image_folder",
    "from_torchvision",
    "open_pool",
]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pool:
    """Labelled images, in a fixed order: `images` (N, H, W, C) uint8, `labels` (N,) int64."""

    images: Pixels
    labels: Labels
    class_names: tuple[str, ...]

    @property
    def size(self) -> int:
        """Number of samples."""
        return len(self.images)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of every image."""
        _, height, width, channels = self.images.shape
        return height, width, channels


def open_pool(source: DataSource, base: Path, progress: Progress | None = None) -> Pool:
    """Load the samples that `source` describes; a relative path starts at `base`.

    Raises:
        DataError: one of the errors of `auditkit.data.errors`; each names the path at fault.

    """
    listing = LAYOUTS[source.kind](base / (source.path or ""), source)
    wanted = Format(source.height, source.width, source.channels, source.resize)
    return _loaded(listing, wanted, source.selection, progress)


def from_arrays(
    images: NDArray[Any], labels: NDArray[Any], class_names: Sequence[str], name: str = "arrays"
) -> Pool:
    """Build a pool from pixels (N, H, W, C) or (N, H, W), uint8, and labels (N,).

    Raises:
        PixelTypeError, EmptyPoolError, LabelRangeError, SingleClassError.

    """
    pixels, numbers = checked_samples(images, labels, class_names, name)
    if numbers.min() == numbers.max():
        raise SingleClassError(
            f"{name}: expected samples of at least two classes, found only "
            f"{class_names[int(numbers[0])]!r}; add classes or enlarge the selection"
        )
    return Pool(pixels, numbers, tuple(class_names))


def from_image_folder(
    path: Path,
    height: int | None,
    width: int | None,
    channels: Channels,
    *,
    resize: bool = False,
    selection: Selection | None = None,
    progress: Progress | None = None,
) -> Pool:
    """Load `path/<class>/.../<file>`; classes and files are sorted by name.

    Raises:
        PoolNotFoundError, ClassFoldersError, EmptyPoolError, SingleClassError,
        UndecodableImageError, ImageSizeError.

    """
    wanted = Format(height, width, channels, resize)
    return _loaded(image_folder.listed(path), wanted, selection or Selection(), progress)


def from_torchvision(
    name: str,
    root: Path,
    *,
    train: bool,
    height: int | None = None,
    width: int | None = None,
    channels: Channels | None = None,
    resize: bool = False,
    selection: Selection | None = None,
    progress: Progress | None = None,
) -> Pool:
    """Load a classification data set of torchvision that already lies below `root`.

    Raises:
        UnknownDatasetError, PoolNotFoundError, EmptyPoolError, SingleClassError, ImageSizeError,
        LabelRangeError.

    """
    wanted = Format(height, width, channels, resize)
    listing = vision_dataset.listed(name, root, "train" if train else "test")
    return _loaded(listing, wanted, selection or Selection(), progress)


def digits() -> Pool:
    """Return scikit-learn's handwritten digits: 1,797 images of 8 x 8 grey pixels, 10 classes."""
    return open_pool(DataSource(kind="digits"), Path())


def _loaded(
    listing: Listing, wanted: Format, selection: Selection, progress: Progress | None
) -> Pool:
    if listing.size == 0:
        raise EmptyPoolError(f"{listing.name}: expected at least one sample, found none; add data")
    if selection.near_duplicates == "drop":
        # All of them must be seen to know which are alike, however few are wanted.
        images, labels = decode(listing, np.arange(listing.size), wanted, progress)
        kept = representatives(near_duplicates(images, selection.similarity), listing.size)
        _LOG.warning(
            "%s: %d of %d images are near-duplicates of another one and are left out",
            listing.name,
            listing.size - len(kept),
            listing.size,
        )
        chosen = kept[selection.indices(len(kept), f"{listing.name}, without near-duplicates")]
        images, labels = images[chosen], labels[chosen]
    else:
        chosen = selection.indices(listing.size, listing.name)
        images, labels = decode(listing, chosen, wanted, progress)
    names = listing.class_names or [str(label) for label in range(int(labels.max()) + 1)]
    return from_arrays(images, labels, names, listing.name)
