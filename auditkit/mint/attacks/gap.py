"""The gap attack: whoever is classified correctly is called a member.

Yeom et al., "Privacy Risk in Machine Learning: Analyzing the Connection to Overfitting" (CSF
2018), Adversary 1 under the 0-1 loss; named by Choquette-Choo et al., "Label-Only Membership
Inference Attacks" (ICML 2021). Its advantage is the generalisation gap.
"""

import numpy as np
from numpy.typing import ArrayLike

from auditkit.mint.attacks.signals import Scores, checked_logits


def correctness_scores(correct: ArrayLike) -> Scores:
    """Return 1 where M's top class is the label and 0 elsewhere, (N,)."""
    return np.asarray(correct, dtype=np.bool_).astype(np.float64)


def gap_scores(logits: ArrayLike, labels: ArrayLike) -> Scores:
    """Return 1 for correctly classified samples and 0 for others, (N,).

    Two values only: there is no threshold to move, so that it has one operating point.

    Args:
        logits: (N, classes) of M.
        labels: (N,) true classes.

    Raises:
        AttackShapeError, EmptySamplesError, LabelRangeError, NonFiniteLogitsError: see
            `signals.checked_logits`.

    """
    values, targets = checked_logits(logits, labels)
    return correctness_scores(values.argmax(axis=-1) == targets)
