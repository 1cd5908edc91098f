"""The modified entropy attack: confident and right, with the label taken into account.

Song and Mittal, "Systematic Evaluation of Privacy Risks of Machine Learning Models" (USENIX
Security 2021), Mentr in section 3.2.
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit, softmax

from auditkit.mint.attacks.signals import Scores, checked_logits, log_probabilities, margin


def modified_entropy_scores(logits: ArrayLike, labels: ArrayLike) -> Scores:
    """Return minus the modified entropy of every sample, in nats, (N,).

    Mentr(x, y) = -(1 - p_y) log p_y - sum over i != y of p_i log(1 - p_i). The paper compares it
    with one threshold per class. A threshold is no part of a score: choosing it, for all samples
    or class by class, belongs to the calibration on samples that are not tested.

    Args:
        logits: (N, classes) of M.
        labels: (N,) true classes.

    Raises:
        AttackShapeError, EmptySamplesError, LabelRangeError, NonFiniteLogitsError: see
            `signals.checked_logits`.

    """
    values, targets = checked_logits(logits, labels)
    rows = np.arange(targets.size)
    true_margin = margin(values, targets)
    true_part = expit(-true_margin) * log_probabilities(true_margin)

    probabilities = softmax(values, axis=-1)
    top = np.asarray(values.argmax(axis=-1))
    # Only the top class can be so close to 1 that 1 - p would lose its digits.
    clipped = probabilities.copy()
    clipped[rows, top] = 0.0
    log_rest = np.log1p(-clipped)
    log_rest[rows, top] = log_probabilities(-margin(values, top))
    others = probabilities * log_rest
    others[rows, targets] = 0.0
    return np.asarray(true_part + others.sum(axis=-1), dtype=np.float64)
