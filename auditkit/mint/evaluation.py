"""Running M+ over whole cohorts: T's score, M's loss and correctness of every sample."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from auditkit.mint.enhanced import EnhancedAuditedModel
from auditkit.mint.models import evaluating
from auditkit.mint.preprocessing import to_inputs
from auditkit.mint.scores import CohortScores
from schemas import Normalisation

EVALUATION_BATCH = 500  # bounds the memory; in evaluation mode no row depends on another


def membership_scores(
    model: EnhancedAuditedModel, images: NDArray[np.uint8], normalisation: Normalisation
) -> NDArray[np.float32]:
    """Return T's score (its logit, float32) of each of the images (N, H, W, C), shape (N,)."""
    unlabelled = np.zeros(len(images), dtype=np.int64)
    return score_cohort(model, images, unlabelled, normalisation).scores


def score_cohort(
    model: EnhancedAuditedModel,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    normalisation: Normalisation,
) -> CohortScores:
    """Score every sample, in evaluation mode and in float32 whatever the training used.

    Args:
        model: M+.
        images: (N, H, W, C) pixels, not augmented.
        labels: (N,) classes, for M's loss and correctness.
        normalisation: pixel scaling of the training.

    Raises:
        ScoresFileError: a score is not finite.
    """
    scores = np.empty(len(images), dtype=np.float32)
    losses = np.empty(len(images), dtype=np.float32)
    correct = np.empty(len(images), dtype=np.bool_)
    with evaluating(model), torch.no_grad():
        for start in range(0, len(images), EVALUATION_BATCH):
            rows = slice(start, start + EVALUATION_BATCH)
            inputs = to_inputs(images[rows], normalisation)
            targets = torch.from_numpy(np.ascontiguousarray(labels[rows]))
            task_logits, mint_logits = model(inputs)
            scores[rows] = mint_logits.numpy()
            losses[rows] = functional.cross_entropy(task_logits, targets, reduction="none").numpy()
            correct[rows] = (task_logits.argmax(dim=1) == targets).numpy()
    return CohortScores(scores=scores, task_losses=losses, correct=correct)
