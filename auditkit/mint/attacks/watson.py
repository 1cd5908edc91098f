"""Difficulty calibration: a small loss says little about a sample that every model finds easy.

Watson et al., "On the Importance of Difficulty Calibration in Membership Inference Attacks"
(ICLR 2022), section 3: s(M, x) minus the mean of s(g, x) over reference models g.
"""

from numpy.typing import ArrayLike

from auditkit.mint.attacks.references import checked_members, mean_over
from auditkit.mint.attacks.signals import (
    Scores,
    log_probabilities,
    reference_confidences,
    scaled_confidences,
)


def calibrated_loss_scores(
    logits: ArrayLike,
    labels: ArrayLike,
    reference_logits: ArrayLike,
    reference_members: ArrayLike,
) -> Scores:
    """Return how much smaller the loss is under M than under OUT references on average, (N,).

    In nats; one OUT reference per sample is enough.

    Args:
        logits: (N, classes) of M.
        labels: (N,) true classes.
        reference_logits: (R, N, classes).
        reference_members: (R, N), true where that reference was trained on the sample; such
            references are left out for it.

    Raises:
        MissingReferenceError: a sample has no OUT reference.
        TooFewReferencesError: there are no references.
        AttackShapeError, EmptySamplesError, LabelRangeError, NonFiniteLogitsError: see
            `signals.checked_logits`.

    """
    tested = log_probabilities(scaled_confidences(logits, labels))
    references = log_probabilities(reference_confidences(reference_logits, labels))
    members = checked_members(reference_members, len(references), tested.size)
    return tested - mean_over(references, ~members, "OUT")
