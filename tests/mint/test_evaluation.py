"""Scoring whole cohorts: the answer to one sample never depends on the others."""

import numpy as np
import torch

from auditkit.mint.evaluation import membership_scores, score_cohort
from auditkit.mint.preprocessing import normalisation_of, to_inputs
from tests.mint.builders import build

IMAGES = np.random.default_rng(0).integers(0, 256, (11, 32, 32, 3), dtype=np.uint8)
LABELS = np.arange(11, dtype=np.int64) % 4
NORMALISATION = normalisation_of(IMAGES)


def test_scores_are_those_of_the_model() -> None:
    enhanced = build().train()
    found = score_cohort(enhanced, IMAGES, LABELS, NORMALISATION)
    assert enhanced.training  # its mode is given back
    enhanced.eval()
    with torch.no_grad():
        task, membership = enhanced(to_inputs(IMAGES, NORMALISATION))
    np.testing.assert_allclose(found.scores, membership.numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found.correct, task.argmax(dim=1).numpy() == LABELS)
    picked = task.log_softmax(dim=1)[torch.arange(11), torch.from_numpy(LABELS)]
    np.testing.assert_allclose(found.task_losses, -picked.numpy(), rtol=1e-4, atol=1e-5)


def test_one_sample_scores_as_it_does_in_company() -> None:
    enhanced = build()
    together = membership_scores(enhanced, IMAGES, NORMALISATION)
    alone = [membership_scores(enhanced, IMAGES[i : i + 1], NORMALISATION)[0] for i in range(11)]
    np.testing.assert_allclose(alone, together, rtol=1e-3, atol=1e-4)


def test_an_empty_cohort_has_no_scores() -> None:
    assert score_cohort(build(), IMAGES[:0], LABELS[:0], NORMALISATION).size == 0
