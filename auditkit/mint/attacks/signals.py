"""What an attack reads from a model's logits: the label's confidence, stably in float64.

Everything about the true class follows from one number, its *logit-scaled confidence*
phi = log(p_y / (1 - p_y)): the probability is sigmoid(phi), the cross-entropy softplus(-phi).
Computed from the logits it keeps every digit where p_y itself would round to 1.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp

from auditkit.mint.attacks.errors import (
    AttackShapeError,
    EmptySamplesError,
    LabelRangeError,
    NonFiniteLogitsError,
    TooFewReferencesError,
)

Scores = NDArray[np.float64]
Labels = NDArray[np.int64]

SAMPLE_DIMENSIONS = 2  # (N, classes)


def checked_logits(
    logits: ArrayLike, labels: ArrayLike, dimensions: int = SAMPLE_DIMENSIONS
) -> tuple[NDArray[np.float64], Labels]:
    """Return both as float64 (..., N, classes) and int64 (N,), or say what does not fit.

    Raises:
        AttackShapeError: the shapes or types are not those, or there is one class only.
        EmptySamplesError: there are no samples.
        LabelRangeError: a label names no class.
        NonFiniteLogitsError: a logit is infinite or not a number.

    """
    values, targets = np.asarray(logits), np.asarray(labels)
    if targets.ndim != 1 or not np.issubdtype(targets.dtype, np.integer):
        raise AttackShapeError(
            f"expected whole-number labels of shape (N,), found {targets.dtype} of shape "
            f"{targets.shape}"
        )
    if (
        values.ndim != dimensions
        or values.shape[-2] != targets.size
        or not np.issubdtype(values.dtype, np.floating)
    ):
        raise AttackShapeError(
            f"expected floating-point logits of {dimensions} dimensions ending in "
            f"({targets.size}, classes), as there are {targets.size} labels, found {values.dtype} "
            f"of shape {values.shape}"
        )
    if targets.size == 0:
        raise EmptySamplesError("expected at least one sample, found none")
    classes = values.shape[-1]
    if classes < 2:
        raise AttackShapeError(f"expected at least two classes, found {classes}")
    if not 0 <= targets.min() <= targets.max() < classes:
        raise LabelRangeError(
            f"expected labels from 0 to {classes - 1}, found {targets.min()} to {targets.max()}"
        )
    if not np.isfinite(values).all():
        raise NonFiniteLogitsError(
            "expected finite logits, found others; has the training diverged?"
        )
    return values.astype(np.float64), targets.astype(np.int64)


def margin(logits: NDArray[np.float64], classes: Labels) -> Scores:
    """Return phi of one chosen class per sample, for logits (..., N, classes): (..., N)."""
    index = np.broadcast_to(classes[:, None], (*logits.shape[:-1], 1))
    chosen = np.take_along_axis(logits, index, axis=-1)[..., 0]
    others = logits.copy()
    np.put_along_axis(others, index, -np.inf, axis=-1)
    return np.asarray(chosen - logsumexp(others, axis=-1), dtype=np.float64)


def scaled_confidences(
    logits: ArrayLike, labels: ArrayLike, dimensions: int = SAMPLE_DIMENSIONS
) -> Scores:
    """Return phi of the true class, (..., N); see `checked_logits` for what is raised."""
    return margin(*checked_logits(logits, labels, dimensions))


def reference_confidences(
    logits: ArrayLike, labels: ArrayLike, dimensions: int = SAMPLE_DIMENSIONS
) -> Scores:
    """Return phi of the true class under every reference model, (R, ..., N).

    `dimensions` counts those of one model's logits. One model at a time is held in float64.

    Raises:
        TooFewReferencesError: there is no reference model.
        AttackError: see `checked_logits`.

    """
    values = np.asarray(logits)
    if values.ndim != dimensions + 1:
        raise AttackShapeError(
            f"expected reference logits of {dimensions + 1} dimensions, the first being the "
            f"reference models, found shape {values.shape}"
        )
    if len(values) == 0:
        raise TooFewReferencesError("expected at least one reference model, found none")
    return np.stack([scaled_confidences(one, labels, dimensions) for one in values])


def log_probabilities(confidences: Scores) -> Scores:
    """Return log p_y of logit-scaled confidences, of the same shape."""
    return -np.logaddexp(0.0, -confidences)
