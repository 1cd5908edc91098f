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
)
from auditkit.mint.errors import (
    CalibrationTooSmallError,
    EmptyCohortError,
    FalsePositiveRateError,
    NonFiniteScoreError,
)

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


@pytest.mark.parametrize("size", [0, 998])
def test_one_in_a_thousand_needs_999_calibration_samples(size: int) -> None:
    with pytest.raises(CalibrationTooSmallError, match="at least 999 calibration samples"):
        flag_members([1.0], np.zeros(size), 0.001)


def test_the_least_rate_of_all_is_refused_like_others() -> None:
    """Its reciprocal is infinite."""
    with pytest.raises(CalibrationTooSmallError, match="calibration samples, found 99"):
        flag_members([1.0], np.zeros(99), 5e-324)


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, float("nan")])
def test_a_rate_that_is_no_proportion_is_refused(rate: float) -> None:
    with pytest.raises(FalsePositiveRateError, match="above 0 and below 1"):
        flag_members([1.0], np.zeros(99), rate)


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
