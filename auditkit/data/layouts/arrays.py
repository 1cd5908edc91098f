"""An .npz file with the arrays images, labels and, if wanted, class_names."""

import zipfile
from pathlib import Path

import numpy as np

from auditkit.data.checks import checked_samples
from auditkit.data.errors import ArraysFileError, EmptyPoolError, PoolNotFoundError
from auditkit.data.layouts.listing import Listing
from auditkit.data.source import DataSource


def listing(path: Path, _source: DataSource) -> Listing:
    """List the samples of an .npz file.

    Raises:
        PoolNotFoundError, ArraysFileError, EmptyPoolError, PixelTypeError, LabelRangeError.

    """
    if not path.is_file():
        raise PoolNotFoundError(f"{path}: expected an .npz file, found none; check the path")
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except (OSError, ValueError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise ArraysFileError(
            f"{path}: expected an .npz file of plain arrays, found one that cannot be read "
            f"({error}); write it with numpy.savez and no object arrays"
        ) from error
    missing = {"images", "labels"} - arrays.keys()
    if missing:
        raise ArraysFileError(
            f"{path}: expected the arrays images and labels, found {sorted(arrays)}"
        )
    images, labels = arrays["images"], arrays["labels"]
    if labels.ndim != 1 or len(images) != len(labels) or len(labels) == 0:
        raise EmptyPoolError(
            f"{path}: expected as many images as labels and at least one, found shapes "
            f"{images.shape} and {labels.shape}"
        )
    given = arrays.get("class_names", np.arange(max(0, int(labels.max())) + 1))
    names = [str(name) for name in given]
    return Listing.of_pixels(str(path), names, *checked_samples(images, labels, names, str(path)))
