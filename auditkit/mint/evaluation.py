"""Running M+ over whole cohorts: T's score, M's loss and correctness of every sample."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from auditkit.mint.codes import blind_scores, own_scores
from auditkit.mint.enhanced import EnhancedAuditedModel
from auditkit.mint.errors import CodeShapeError
from auditkit.mint.models import device_of, evaluating
from auditkit.mint.preprocessing import to_inputs
from auditkit.mint.scores import CohortScores
from schemas import Normalisation

EVALUATION_BATCH = 500  # bounds the memory; in evaluation mode no row depends on another


@dataclass(frozen=True)
class Answers:
    """What M+ says about N images."""

    logits: NDArray[np.float32]
    """(N, classes) of M."""
    outputs: NDArray[np.float32]
    """(N,) membership logits of T, or (N, b) where it says codes."""


def ask(
    model: EnhancedAuditedModel, images: NDArray[np.uint8], normalisation: Normalisation
) -> Answers:
    """Run M+ on images (N, H, W, C), in evaluation mode and in float32 whatever trained it."""
    logits, outputs = [], []
    with evaluating(model), torch.no_grad():
        # At least one batch, so that no images give arrays of no rows.
        for start in range(0, max(1, len(images)), EVALUATION_BATCH):
            inputs = to_inputs(images[start : start + EVALUATION_BATCH], normalisation)
            task, mint = model(inputs.to(device_of(model)))
            logits.append(task.cpu().numpy())
            outputs.append(mint.cpu().numpy())
    return Answers(np.concatenate(logits), np.concatenate(outputs))


def membership_scores(
    model: EnhancedAuditedModel,
    images: NDArray[np.uint8],
    normalisation: Normalisation,
    *,
    members: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Return the score of each of the images (N, H, W, C), shape (N,).

    It is T's logit, or, where T says codes, z of the best of the `members`' codes (K, b).

    Raises:
        CodeShapeError: T says codes and `members` are missing, or of another length.
    """
    return scores_of(ask(model, images, normalisation).outputs, members)


def score_cohort(
    model: EnhancedAuditedModel,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    normalisation: Normalisation,
    *,
    members: NDArray[np.float32] | None = None,
    own: NDArray[np.float32] | None = None,
) -> CohortScores:
    """Score every sample, in evaluation mode and in float32 whatever the training used.

    Args:
        model: M+.
        images: (N, H, W, C) pixels, not augmented.
        labels: (N,) classes, for M's loss and correctness.
        normalisation: pixel scaling of the training.
        members: (K, b) codes of all members told to T, where T says codes.
        own: (N, b) codes of these samples, where they are known.

    Raises:
        CodeShapeError: codes are missing, or not as many or as long as they must be.
        ScoresFileError: a score is not finite.
    """
    answers = ask(model, images, normalisation)
    logits, targets = torch.from_numpy(answers.logits), torch.from_numpy(labels)
    return CohortScores(
        scores=scores_of(answers.outputs, members),
        task_losses=functional.cross_entropy(logits, targets, reduction="none").numpy(),
        correct=(logits.argmax(dim=1) == targets).numpy(),
        own=None if own is None else own_scores(answers.outputs, own),
    )


def scores_of(
    outputs: NDArray[np.float32], members: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    """Return the scores that T's outputs stand for, (N,): themselves, or z of the best code.

    Args:
        outputs: (N,) membership logits, or (N, b) where T says codes.
        members: (K, b) codes of all members, where T says codes.

    Raises:
        CodeShapeError: T says codes and `members` are missing, or of another length.
    """
    if outputs.ndim == 1:
        return outputs
    if members is None:
        raise CodeShapeError(
            f"this MINT Model says codes of length {outputs.shape[1]}; expected the members' codes "
            "to compare them with, found none"
        )
    return blind_scores(outputs, members).scores
