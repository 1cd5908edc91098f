"""The trivial attacks on a run's sealed scores: what membership leaks without any MINT Model.

The attacks themselves are those of `auditkit.mint.attacks`, which need logits; here are their
figures for cohorts of which only losses and correctness were kept.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from auditkit.mint.attacks import correctness_scores, scores_of_losses
from auditkit.mint.errors import EmptyCohortError
from auditkit.mint.metrics import auc, flagged_rates, share
from auditkit.mint.scores import CohortScores
from schemas import FlaggedRate, RateEstimate

# A linear classifier of two samples of one population learns nothing from more than this.
MOST_SAMPLES_PER_SIDE = 2_000
CLASSIFIER_ITERATIONS = 200
# Strong shrinkage: thousands of pixels against as few samples would otherwise not converge.
CLASSIFIER_INVERSE_PENALTY = 1e-3


@dataclass(frozen=True)
class LossThreshold:
    """The loss attack: a small loss is called member (Yeom et al., 2018)."""

    auc: float
    flagged: tuple[FlaggedRate, ...]


def gap_attack(members: CohortScores, others: CohortScores) -> float:
    """Return the balanced accuracy of calling every correctly classified sample a member.

    Raises:
        EmptyCohortError: a cohort is empty.

    """
    # Of a score with two values, the area under the curve is the balanced accuracy.
    return auc(correctness_scores(members.correct), correctness_scores(others.correct))


def loss_threshold(
    members: CohortScores, others: CohortScores, calibration: CohortScores
) -> LossThreshold:
    """Measure the loss attack, with thresholds from C alone.

    Raises:
        EmptyCohortError: a cohort is empty.

    """
    member_scores = scores_of_losses(members.task_losses)
    return LossThreshold(
        auc=auc(member_scores, scores_of_losses(others.task_losses)),
        flagged=flagged_rates(member_scores, scores_of_losses(calibration.task_losses)),
    )


def pixel_classifier(
    members: NDArray[np.uint8], calibration: NDArray[np.uint8], seed: int
) -> RateEstimate:
    """Return the held-out accuracy of a logistic regression of D against C on pixels alone.

    D and C were drawn by the nonce from one pool, so it must be about 0.5; more would mean that
    they differ without any model, and every figure that compares them would be void.

    Args:
        members: (N, H, W, C) pixels of D.
        calibration: (N, H, W, C) pixels of C.
        seed: of the draw of equal numbers from both and of the two halves.

    Raises:
        EmptyCohortError: there are fewer than four samples on a side.

    """
    count = min(len(members), len(calibration), MOST_SAMPLES_PER_SIDE)
    if count < 4:
        raise EmptyCohortError(f"expected at least 4 samples of D and of C, found {count}")
    generator = np.random.default_rng(seed)
    sides = [
        side[generator.permutation(len(side))[:count]].reshape(count, -1) / np.float32(255)
        for side in (members, calibration)
    ]
    half = count // 2
    labels = np.repeat((1, 0), half)
    train = np.concatenate([side[:half] for side in sides])
    test = np.concatenate([side[half : 2 * half] for side in sides])
    classifier = LogisticRegression(
        C=CLASSIFIER_INVERSE_PENALTY, max_iter=CLASSIFIER_ITERATIONS
    ).fit(train, labels)
    return share(np.asarray(classifier.predict(test) == labels))
