"""LiRA and RMIA say about the same logits what the libraries say that others keep."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from auditkit.mint.attacks import (
    calibrated_loss_scores,
    lira_offline_scores,
    lira_online_scores,
    rmia_offline_scores,
    rmia_online_scores,
)
from auditkit.mint.attacks.signals import scaled_confidences

VECTORS = Path(__file__).parent / "vectors"
LIRA = json.loads((VECTORS / "lira.json").read_text())
RMIA = json.loads((VECTORS / "rmia.json").read_text())

VARIANCES = ("global", "per_sample")


def lira_arguments(queries: int) -> tuple[np.ndarray, ...]:
    given = LIRA["given"]
    logits, references = np.array(given["logits"]), np.array(given["reference_logits"])
    if queries == 1:
        logits, references = logits[0], references[:, 0]
    labels, members = np.array(given["labels"]), np.array(given["reference_members"])
    return logits, labels, references, members


def test_logit_scaled_confidences() -> None:
    logits, labels, *_ = lira_arguments(2)
    np.testing.assert_allclose(
        scaled_confidences(logits, labels, 3), LIRA["expected"]["signals"], rtol=1e-12
    )


@pytest.mark.parametrize("queries", [1, 2])
@pytest.mark.parametrize("variance", VARIANCES)
def test_lira_online_agrees(variance, queries) -> None:
    # The library's sign: smaller for members.
    expected = -np.array(LIRA["expected"][f"tensorflow_both_{variance}_{queries}"])
    scores = lira_online_scores(*lira_arguments(queries), variance=variance)
    np.testing.assert_allclose(scores, expected, rtol=1e-9, atol=1e-9)


def test_lira_online_agrees_with_a_second_library() -> None:
    expected = LIRA["expected"]["privacyguard_online_per_sample_1"]
    scores = lira_online_scores(*lira_arguments(1), variance="per_sample")
    np.testing.assert_allclose(scores, expected, rtol=1e-9, atol=1e-9)


def test_lira_offline_agrees_on_the_distance_from_the_mean() -> None:
    densities = np.array(LIRA["expected"]["tensorflow_out_global_1"])
    scores = lira_offline_scores(*lira_arguments(1), variance="global")
    # With one variance, log density = constant - z^2 / 2, and our score gives z back.
    distances = norm.isf(np.exp(-scores))
    constants = densities + distances**2 / 2
    np.testing.assert_allclose(constants, constants[0], rtol=1e-6)
    assert (distances > 0).any()
    assert (distances < 0).any()


@pytest.mark.parametrize(
    "case", RMIA["cases"], ids=lambda c: f"{c['online']}-{c['a']}-{c['gamma']}"
)
def test_rmia_agrees(case) -> None:
    given, population = RMIA["online" if case["online"] else "offline"], RMIA["population"]
    arguments = {
        "logits": np.array(given["logits"])[0],
        "labels": np.array(given["labels"]),
        "reference_logits": np.array(given["reference_logits"])[:, 0],
        "reference_members": np.array(given["reference_members"]),
        "population_logits": np.array(population["logits"])[0],
        "population_labels": np.array(population["labels"]),
        "population_reference_logits": np.array(population["reference_logits"])[:, 0],
        "gamma": case["gamma"],
    }
    scores = (
        rmia_online_scores(**arguments)
        if case["online"]
        else rmia_offline_scores(**arguments, a=case["a"])
    )
    np.testing.assert_allclose(scores, case["scores"], atol=1e-12)
    assert len(np.unique(scores)) > 5


def test_difficulty_calibration_agrees() -> None:
    given = RMIA["offline"]
    scores = calibrated_loss_scores(
        np.array(given["logits"])[0],
        np.array(given["labels"]),
        np.array(given["reference_logits"])[:1, 0],
        np.array(given["reference_members"])[:1],
    )
    np.testing.assert_allclose(scores, RMIA["calibrated_by_first_reference"], rtol=1e-9)
