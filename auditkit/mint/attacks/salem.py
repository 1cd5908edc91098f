"""The confidence attack: M is surer of its top class on members, whatever their label.

Salem et al., "ML-Leaks: Model and Data Independent Membership Inference Attacks and Defenses on
Machine Learning Models" (NDSS 2019), Adversary 3 with the maximum posterior.
"""

import numpy as np
from numpy.typing import ArrayLike

from auditkit.mint.attacks.signals import Scores, checked_logits, log_probabilities, margin


def confidence_scores(logits: ArrayLike, labels: ArrayLike) -> Scores:
    """Return the log of the largest class probability of every sample, (N,).

    The log keeps the order of the probabilities, also where these would all round to 1. The
    attack does not look at the labels; they are taken so that all attacks are called alike.

    Args:
        logits: (N, classes) of M.
        labels: (N,) true classes, only checked.

    Raises:
        AttackShapeError, EmptySamplesError, LabelRangeError, NonFiniteLogitsError: see
            `signals.checked_logits`.

    """
    values, _ = checked_logits(logits, labels)
    return log_probabilities(margin(values, np.asarray(values.argmax(axis=-1))))
