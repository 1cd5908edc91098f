"""Whether arrays are samples."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from auditkit.data.errors import EmptyPoolError, LabelRangeError, PixelTypeError
from auditkit.data.images import Pixels


def checked_samples(
    images: NDArray[Any], labels: NDArray[Any], class_names: Sequence[str], name: str
) -> tuple[Pixels, NDArray[np.int64]]:
    """Return pixels as (N, H, W, C) and labels as (N,) int64.

    Raises:
        PixelTypeError, EmptyPoolError, LabelRangeError.

    """
    if images.ndim == 3:
        images = images[..., np.newaxis]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
        raise PixelTypeError(
            f"{name}: expected uint8 pixels of shape (N, H, W), (N, H, W, 1) or (N, H, W, 3), "
            f"found {images.dtype} of shape {images.shape}"
        )
    if images.size == 0:
        raise EmptyPoolError(f"{name}: expected at least one sample, found none; add data")
    if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
        raise LabelRangeError(
            f"{name}: expected {len(images)} whole-number labels, found {labels.dtype} of shape "
            f"{labels.shape}"
        )
    if labels.min() < 0 or labels.max() >= len(class_names):
        raise LabelRangeError(
            f"{name}: expected labels from 0 to {len(class_names) - 1} (one per class name), found "
            f"{labels.min()} to {labels.max()}"
        )
    return np.ascontiguousarray(images), labels.astype(np.int64)
