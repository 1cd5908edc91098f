"""p-values that hold for every sample size: no false alarm more often than announced."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from auditkit.mint.calibration import (
    control_false_discoveries,
    flag_members,
    p_values,
    set_p_value,
)
from auditkit.mint.errors import CalibrationTooSmallError, EmptyCohortError, NonFiniteScoreError

SCORES = st.lists(st.integers(-5, 5), min_size=1, max_size=30)


@given(tested=SCORES, calibration=SCORES)
def test_p_values_follow_their_definition(tested: list[int], calibration: list[int]) -> None:
    expected = [
        (1 + sum(c >= score for c in calibration)) / (len(calibration) + 1) for score in tested
    ]
    np.testing.assert_allclose(p_values(tested, calibration), expected, rtol=1e-15)


def test_ties_count_against_the_sample() -> None:
    assert p_values([1.0], [1.0, 1.0, 1.0]).tolist() == [1.0]


def test_strangers_are_flagged_no_more_often_than_announced() -> None:
    generator = np.random.default_rng(0)
    flagged = 0
    for _ in range(400):
        # Ties on purpose: whole-number scores.
        scores = generator.poisson(3.0, size=120)
        flagged += int(flag_members(scores[:20], scores[20:], 0.05).sum())
    assert binomtest(flagged, 8000, 0.05, alternative="greater").pvalue > 0.001


def test_a_rate_that_the_calibration_cannot_reach_is_refused() -> None:
    scores = np.arange(98)
    with pytest.raises(CalibrationTooSmallError, match="at least 99 calibration samples, found 98"):
        flag_members([1e9], scores, 0.01)
    assert flag_members([1e9], np.arange(99), 0.01).all()
    assert not flag_members([98.0], np.arange(99), 0.01).any()


def test_scores_without_a_rank_are_refused() -> None:
    for tested, calibration in (([np.nan], [0.0]), ([0.0], [np.inf])):
        with pytest.raises(NonFiniteScoreError):
            p_values(tested, calibration)
    with pytest.raises(EmptyCohortError):
        p_values([0.0], [])


def test_false_discoveries_are_controlled() -> None:
    p = np.array([0.01, 0.04, 0.03, 0.5])
    np.testing.assert_allclose(control_false_discoveries(p), [0.04, 0.16 / 3, 0.16 / 3, 0.5])
    with pytest.raises(EmptyCohortError):
        control_false_discoveries([])


def test_a_whole_set_tells_what_single_samples_cannot() -> None:
    generator = np.random.default_rng(1)
    calibration = generator.normal(size=1000)
    members = generator.normal(loc=0.6, size=60)
    assert (p_values(members, calibration) <= 0.01).mean() < 0.2
    assert set_p_value(members, calibration, seed=0, draws=999) == pytest.approx(0.001)
    assert set_p_value(members, calibration, 0, 99) == set_p_value(members, calibration, 0, 99)


def test_set_test_holds_its_level() -> None:
    generator = np.random.default_rng(2)
    below = sum(
        set_p_value(generator.normal(size=8), generator.normal(size=40), seed, 99) <= 0.1
        for seed in range(300)
    )
    assert binomtest(below, 300, 0.1).pvalue > 0.001
    with pytest.raises(EmptyCohortError):
        set_p_value([], [1.0], 0)
