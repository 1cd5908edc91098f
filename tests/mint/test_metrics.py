"""Error rates per cohort: exact, with intervals, and at thresholds that no tested sample chose."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save
from sklearn.metrics import roc_auc_score

from auditkit.mint.baselines import gap_attack, loss_threshold, pixel_classifier
from auditkit.mint.errors import EmptyCohortError, NonFiniteScoreError, ScoresFileError
from auditkit.mint.metrics import (
    auc,
    balanced_accuracy,
    cohort_metrics,
    flagged_rates,
    positive_predictive_value,
    rate,
    roc_points,
)
from auditkit.mint.scores import CohortScores, read_scores, write_scores
from tests.mint.builders import cohort

GENERATOR = np.random.default_rng(0)
STRANGERS = GENERATOR.normal(size=2000)
CALIBRATION = GENERATOR.normal(size=1999)
MEMBERS = GENERATOR.normal(loc=4.0, size=1000)


def test_intervals_are_exact() -> None:
    none, some = rate(0, 20), rate(7, 20)
    assert (none.low, none.value) == (0.0, 0.0)
    assert none.high == pytest.approx(1 - 0.025 ** (1 / 20))
    # Beta quantiles: the definition of Clopper and Pearson.
    assert (some.low, some.high) == pytest.approx((0.1539, 0.5922), abs=1e-4)
    with pytest.raises(EmptyCohortError):
        rate(0, 0)


@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=25),
    st.lists(st.integers(0, 6), min_size=1, max_size=25),
)
def test_auc_counts_ties_half(members: list[int], others: list[int]) -> None:
    labels = [1] * len(members) + [0] * len(others)
    assert auc(members, others) == pytest.approx(roc_auc_score(labels, members + others))


def test_rates_come_only_where_the_calibration_reaches() -> None:
    nominal = [row.false_positive_rate for row in flagged_rates(MEMBERS, CALIBRATION)]
    assert nominal == [0.05, 0.01, 0.001]
    assert [r.false_positive_rate for r in flagged_rates(MEMBERS, CALIBRATION[:99])] == [0.05, 0.01]
    assert flagged_rates(MEMBERS, CALIBRATION[:18]) == ()


def test_balanced_accuracy_at_the_calibrated_threshold() -> None:
    value = balanced_accuracy(MEMBERS, STRANGERS, CALIBRATION)
    threshold = np.sort(CALIBRATION)[-100]
    expected = ((threshold < MEMBERS).mean() + (threshold >= STRANGERS).mean()) / 2
    assert value == pytest.approx(expected)
    assert balanced_accuracy(STRANGERS, STRANGERS, CALIBRATION) == pytest.approx(0.5)


def test_predictive_value_at_a_prior() -> None:
    assert positive_predictive_value(0.9, 0.01, 0.5) == pytest.approx(0.9 / 0.91)
    assert positive_predictive_value(0.9, 0.01, 0.01) == pytest.approx(0.009 / (0.009 + 0.0099))
    assert positive_predictive_value(0.0, 0.0, 0.5) is None


def test_roc_rises_to_one() -> None:
    points = np.array(roc_points(MEMBERS, STRANGERS))
    assert points[0, 0] == pytest.approx(1 / 2000)
    assert tuple(points[-1]) == (1.0, 1.0)
    assert (np.diff(points, axis=0) >= 0).all()
    for false, true in points[::20]:
        threshold = np.sort(STRANGERS)[-round(false * 2000)]
        assert true == (threshold <= MEMBERS).mean()
    with pytest.raises(EmptyCohortError):
        roc_points(MEMBERS, [])
    with pytest.raises(NonFiniteScoreError):
        roc_points(MEMBERS, [np.nan])


def test_every_cohort_is_reported() -> None:
    metrics = cohort_metrics(
        {
            "told": cohort(MEMBERS),
            "silent": cohort(STRANGERS[:50], correct=np.arange(50) % 2 == 0),
            "calibration": cohort(CALIBRATION),
            "test": cohort(STRANGERS),
        }
    )
    told, silent, calibration, test = metrics
    assert [m.cohort for m in metrics] == ["told", "silent", "calibration", "test"]
    assert told.auc is not None
    assert told.auc > 0.99
    assert told.flagged[1].flagged.value > 0.9
    assert silent.task_accuracy.value == 0.5
    assert (test.auc, calibration.flagged) == (None, ())
    assert 0.03 < test.flagged[0].flagged.value < 0.07
    with pytest.raises(EmptyCohortError, match="calibration"):
        cohort_metrics({"test": cohort(STRANGERS)})


def test_scores_file_keeps_every_bit() -> None:
    cohorts = {"test": cohort(STRANGERS), "told": cohort(MEMBERS)}
    data = write_scores(cohorts)
    assert write_scores(dict(reversed(cohorts.items()))) == data
    found = read_scores(data)
    assert list(found) == ["told", "test"]
    for name, original in cohorts.items():
        for part in ("scores", "task_losses", "correct"):
            np.testing.assert_array_equal(getattr(found[name], part), getattr(original, part))


def test_damaged_scores_files_are_refused() -> None:
    data = write_scores({"test": cohort(STRANGERS)})
    arrays = load(data)
    wrong = [
        b"",
        data[:-1],
        data[:50],
        b"\x80\x04.",
        save({k: v for k, v in arrays.items() if k != "correct/test"}),
        save(arrays | {"more/test": np.zeros(1)}),
        save(arrays | {"score/stranger": np.zeros(1, np.float32)}),
        save({"scores": np.zeros(1, np.float32)}),
        save(arrays | {"score/test": np.zeros(3, np.float32)}),
        save(arrays | {"score/test": arrays["score/test"].astype(np.float64)}),
        save(arrays | {"score/test": np.full(2000, np.nan, np.float32)}),
    ]
    for damaged in wrong:
        with pytest.raises(ScoresFileError):
            read_scores(damaged)


def test_trivial_attacks_on_an_overfitted_model() -> None:
    def overfitted(size: int, loss: float, accuracy: float, seed: int) -> CohortScores:
        generator = np.random.default_rng(seed)
        return CohortScores(
            scores=np.zeros(size, np.float32),
            task_losses=generator.exponential(loss, size).astype(np.float32),
            correct=np.arange(size) < accuracy * size,
        )

    members, others = overfitted(1000, 0.1, 1.0, 0), overfitted(1000, 2.0, 0.6, 1)
    assert gap_attack(members, others) == pytest.approx(0.7)
    attack = loss_threshold(members, others, overfitted(999, 2.0, 0.6, 2))
    assert 0.9 < attack.auc < 1.0
    assert attack.flagged[1].flagged.value < 0.4


def test_pixels_alone_tell_nothing_about_an_honest_split() -> None:
    generator = np.random.default_rng(3)
    pixels = generator.integers(0, 256, (1200, 6, 6, 1), dtype=np.uint8)
    honest = pixel_classifier(pixels[:600], pixels[600:], seed=0)
    assert honest.low < 0.5 < honest.high
    assert honest.trials == 600
    brighter = np.minimum(pixels[:600].astype(int) + 40, 255).astype(np.uint8)
    assert pixel_classifier(brighter, pixels[600:], seed=0).low > 0.9
    with pytest.raises(EmptyCohortError):
        pixel_classifier(pixels[:3], pixels, seed=0)
