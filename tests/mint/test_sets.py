"""One verdict for an owner's whole set, by codes or by scores."""

import math
import sys
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from auditkit.mint.errors import (
    CalibrationTooSmallError,
    DuplicateSampleError,
    EmptyCohortError,
    FalsePositiveRateError,
    NonFiniteScoreError,
    SetShapeError,
    TooFewDrawsError,
)
from auditkit.mint.sets import own_code_set_p_value, own_code_set_verdict, score_set_verdict

LEAVES = [bytes([index]) * 32 for index in range(100)]


@given(
    arrays(
        np.float64,
        st.sampled_from([(1, 1), (1, 8), (2, 4), (3, 3), (4, 2)]),
        elements=st.floats(-100.0, 100.0).filter(lambda value: abs(value) > 1e-3),
    )
)
def test_the_bound_holds_for_every_output_and_level(outputs: np.ndarray) -> None:
    """All 2^(n b) assignments of codes: no level is exceeded more often than announced."""
    directions = (outputs / np.linalg.norm(outputs, axis=1, keepdims=True)).ravel()
    codes = np.array(list(product((-1.0, 1.0), repeat=outputs.size)))
    sums = codes @ directions
    samples = len(outputs)
    announced = np.array([own_code_set_p_value(np.full(samples, s / samples)) for s in sums])
    # Rounding makes equal sums differ in the last digits: count those as reached.
    reached = np.array([(sums >= s - 1e-9).mean() for s in sums])
    assert (reached <= announced + 1e-9).all()


@given(st.lists(st.floats(0.0, 20.0), min_size=1, max_size=50))
def test_the_bound_is_that_of_the_mean(z: list[float]) -> None:
    expected = math.exp(-len(z) * float(np.mean(z)) ** 2 / 2.0)
    assert own_code_set_p_value(z) == pytest.approx(max(expected, sys.float_info.min))


def test_many_faint_matches_make_one_clear_verdict() -> None:
    z = np.full(100, 1.0)  # each alone proves nothing: exp(-1/2)
    assert own_code_set_p_value(z[:1]) > 0.6
    verdict = own_code_set_verdict(z, LEAVES, false_positive_rate=1e-6)
    assert (verdict.evidence, verdict.samples, verdict.statistic) == ("declared", 100, 1.0)
    assert verdict.p_value == pytest.approx(math.exp(-50.0))
    assert verdict.outcome == "member"


def test_strangers_and_disagreement_prove_nothing() -> None:
    assert own_code_set_verdict([-3.0, 1.0], LEAVES[:2], 0.01).p_value == 1.0
    assert own_code_set_verdict([0.4, 0.1], LEAVES[:2], 0.01).outcome == "not_shown"


def test_a_p_value_is_never_rounded_down_to_nothing() -> None:
    assert own_code_set_p_value(np.full(100, 22.0)) == sys.float_info.min


def test_one_sample_does_not_count_for_many() -> None:
    with pytest.raises(DuplicateSampleError, match="3 different samples, found 1"):
        own_code_set_verdict([1.0, 1.0, 2.0], [LEAVES[0], LEAVES[0], LEAVES[1]], 0.01)
    with pytest.raises(DuplicateSampleError):
        score_set_verdict([1.0, 1.0], np.arange(99), [LEAVES[0]] * 2, 0.01, seed=0)
    with pytest.raises(SetShapeError, match="each of 2 scores, found 1"):
        own_code_set_verdict([1.0, 2.0], LEAVES[:1], 0.01)


def test_repeating_a_lucky_stranger_would_break_the_bound() -> None:
    """Why duplicates are refused: the one code of a leaf is not fifty independent codes."""
    codes = np.random.default_rng(0).choice((-1.0, 1.0), size=(4000, 64))
    z = codes.sum(axis=1) / 8.0
    repeated = np.array([own_code_set_p_value(np.full(50, value)) for value in z])
    assert (repeated <= 0.001).mean() > 0.2


def test_scores_are_judged_against_the_calibration() -> None:
    generator = np.random.default_rng(0)
    calibration = generator.normal(size=999)
    members, strangers = generator.normal(1.0, size=40), generator.normal(size=40)
    verdict = score_set_verdict(members, calibration, LEAVES[:40], 0.001, seed=0)
    assert (verdict.evidence, verdict.samples, verdict.outcome) == ("calibrated", 40, "member")
    assert 0.65 < verdict.statistic < 0.9
    other = score_set_verdict(strangers, calibration, LEAVES[:40], 0.001, seed=0)
    assert (other.outcome, other.p_value > 0.001) == ("not_shown", True)


def test_what_cannot_carry_the_rate_is_refused() -> None:
    scores = np.arange(10.0)
    for rate, calibration, draws, error in (
        (0.001, np.arange(998.0), 9_999, CalibrationTooSmallError),
        (0.0001, np.arange(9_999.0), 9_998, TooFewDrawsError),
        (1.5, np.arange(999.0), 9_999, FalsePositiveRateError),
    ):
        with pytest.raises(error):
            score_set_verdict(scores, calibration, LEAVES[:10], rate, seed=0, draws=draws)
    with pytest.raises(FalsePositiveRateError):
        own_code_set_verdict([1.0], LEAVES[:1], 0.0)
    with pytest.raises(EmptyCohortError):
        own_code_set_verdict([], [], 0.01)
    with pytest.raises(EmptyCohortError):
        score_set_verdict([], np.arange(99.0), [], 0.01, seed=0)
    with pytest.raises(NonFiniteScoreError):
        own_code_set_verdict([np.inf], LEAVES[:1], 0.01)
