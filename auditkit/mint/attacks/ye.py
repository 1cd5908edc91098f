"""Attack-P and Attack-R: a sample's loss among population samples, and among reference models.

Ye et al., "Enhanced Membership Inference Attacks against Machine Learning Models" (CCS 2022),
section 4: the null hypothesis "x was not used" is sampled by fixing the model and drawing other
samples (P), or by fixing the sample and drawing other models (R). The score is one minus the
empirical p-value, without the paper's smoothing.
"""

import numpy as np
from numpy.typing import ArrayLike

from auditkit.mint.attacks.references import checked_members, mean_over
from auditkit.mint.attacks.signals import Scores, reference_confidences, scaled_confidences


def population_scores(
    logits: ArrayLike,
    labels: ArrayLike,
    population_logits: ArrayLike,
    population_labels: ArrayLike,
) -> Scores:
    """Return the share of population samples with a larger loss than the sample, (N,).

    Attack-P. One model gives no more than one order: it ranks samples as the loss does, on a
    scale that is a p-value.

    Args:
        logits: (N, classes) of M.
        labels: (N,) true classes.
        population_logits: (Z, classes) of M on samples that were not used for training.
        population_labels: (Z,) their classes.

    Raises:
        AttackShapeError, EmptySamplesError, LabelRangeError, NonFiniteLogitsError: see
            `signals.checked_logits`.

    """
    # The loss falls with phi, which has more digits.
    tested = scaled_confidences(logits, labels)
    population = np.sort(scaled_confidences(population_logits, population_labels))
    return np.searchsorted(population, tested, side="left") / population.size


def reference_scores(
    logits: ArrayLike,
    labels: ArrayLike,
    reference_logits: ArrayLike,
    reference_members: ArrayLike,
) -> Scores:
    """Return the share of OUT reference models with a larger loss on the sample, (N,).

    Attack-R. With few references many samples tie; that is what the attack can say.

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
    tested = scaled_confidences(logits, labels)
    references = reference_confidences(reference_logits, labels)
    members = checked_members(reference_members, len(references), tested.size)
    return mean_over((references < tested).astype(np.float64), ~members, "OUT")
