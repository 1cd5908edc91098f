"""The loss attack: members have smaller losses.

Yeom et al., "Privacy Risk in Machine Learning: Analyzing the Connection to Overfitting" (CSF
2018), Adversary 2, with a threshold that is calibrated outside of this module.
"""

import numpy as np
from numpy.typing import ArrayLike

from auditkit.mint.attacks.errors import NonFiniteLogitsError
from auditkit.mint.attacks.signals import Scores, log_probabilities, scaled_confidences


def scores_of_losses(losses: ArrayLike) -> Scores:
    """Return the score of recorded cross-entropies (N,), in nats: their negative.

    Raises:
        NonFiniteLogitsError: a loss is infinite or not a number.

    """
    values = np.asarray(losses, dtype=np.float64)
    if not np.isfinite(values).all():
        raise NonFiniteLogitsError("expected finite losses, found others")
    return -values


def loss_scores(logits: ArrayLike, labels: ArrayLike) -> Scores:
    """Return minus the cross-entropy of every sample, log p_y in nats, (N,).

    Args:
        logits: (N, classes) of M.
        labels: (N,) true classes.

    Raises:
        AttackShapeError, EmptySamplesError, LabelRangeError, NonFiniteLogitsError: see
            `signals.checked_logits`.

    """
    return log_probabilities(scaled_confidences(logits, labels))
