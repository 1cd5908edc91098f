"""What the black-box variant knows of a sample: M's outcome, its label and its loss."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from auditkit.mint.errors import FeatureShapeError, NonFiniteFeatureError

# The largest probabilities, in descending order, describe the outcome whatever the class is.
RANKED_CLASSES = 10

# Up to here the outcome and the label are listed class by class. With tens of thousands of
# identities they would be mostly noise, and would not fit in memory.
MOST_LISTED_CLASSES = 100

# Below this, log-probabilities differ by rounding only; and log(1 - p) of a sure answer is finite.
LEAST_LOG_PROBABILITY = -50.0
LEAST_PROBABILITY = 1e-12


def outcome_features(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float32]:
    """Describe M's outcome on every sample, for the black-box variant of Passive MINT.

    The features are the loss of the label, its log-odds, the entropy, whether M is right, the ten
    largest log-probabilities in descending order, and, up to 100 classes, the log-probability of
    every class and the label itself, one column per class.

    Args:
        logits: (N, classes) class scores of M.
        labels: (N,) classes.

    Returns:
        (N, features).

    Raises:
        FeatureShapeError: shapes do not match, or a label is no class.
        NonFiniteFeatureError: a logit is infinite or not a number.

    """
    _check(logits, labels)
    count, classes = logits.shape
    log_probabilities = np.maximum(
        log_softmax(logits.astype(np.float64), axis=1), LEAST_LOG_PROBABILITY
    )
    probabilities = np.exp(log_probabilities)
    own = log_probabilities[np.arange(count), labels]
    others = np.maximum(
        probabilities.sum(axis=1) - probabilities[np.arange(count), labels], LEAST_PROBABILITY
    )
    ranked = -np.sort(-log_probabilities, axis=1)[:, :RANKED_CLASSES]
    columns = [
        -own,
        own - np.log(others),
        -(probabilities * log_probabilities).sum(axis=1),
        logits.argmax(axis=1) == labels,
        ranked,
    ]
    if classes <= MOST_LISTED_CLASSES:
        columns += [log_probabilities, labels[:, None] == np.arange(classes)]
    return np.column_stack(columns).astype(np.float32)


def _check(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> None:
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise FeatureShapeError(
            "expected logits (samples, classes) and one label per sample, found "
            f"{logits.shape} and {labels.shape}"
        )
    if labels.size and not 0 <= labels.min() <= labels.max() < logits.shape[1]:
        raise FeatureShapeError(
            f"expected labels from 0 to {logits.shape[1] - 1}, found {labels.min()} to "
            f"{labels.max()}; use the labels that M was trained on"
        )
    if not np.isfinite(logits).all():
        raise NonFiniteFeatureError("expected finite logits, found others; M has diverged")
