"""The set test against its definition, and its level under exchangeability."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, mannwhitneyu, rankdata
from sklearn.metrics import roc_auc_score

from auditkit.mint.calibration import p_values
from auditkit.mint.errors import EmptyCohortError, NonFiniteScoreError, SetShapeError
from auditkit.mint.permutation import mean_rank, set_p_value, set_p_values

FEW = st.lists(st.integers(-3, 3), min_size=1, max_size=6)


@given(tested=FEW, calibration=FEW)
def test_small_sets_are_enumerated(tested: list[int], calibration: list[int]) -> None:
    ranks = rankdata(tested + calibration)
    own = ranks[: len(tested)].sum()
    sums = [sum(subset) for subset in combinations(ranks, len(tested))]
    expected = sum(drawn >= own for drawn in sums) / len(sums)
    # Whatever the seed, and with no draws worth mentioning: nothing is drawn.
    assert set_p_value(tested, calibration, seed=len(tested), draws=1) == pytest.approx(expected)


@given(score=st.integers(-5, 5), calibration=FEW)
def test_a_set_of_one_gets_its_conformal_p_value(score: int, calibration: list[int]) -> None:
    assert set_p_value([score], calibration, seed=0) == p_values([score], calibration)[0]


@pytest.mark.parametrize("decimals", [15, 0], ids=["no ties", "many ties"])
def test_drawn_p_values_agree_with_the_rank_sum_test(decimals: int) -> None:
    generator = np.random.default_rng(0)
    calibration = generator.normal(size=400).round(decimals)
    sets = generator.normal(loc=0.3, size=(6, 30)).round(decimals)
    drawn = set_p_values(sets, calibration, seed=0)
    # Without ties the library's p-value is exact; with them it is the normal approximation.
    known = [
        mannwhitneyu(group, calibration, alternative="greater", method="auto").pvalue
        for group in sets
    ]
    np.testing.assert_allclose(drawn, known, atol=0.02)
    assert (drawn == [set_p_value(group, calibration, seed=0) for group in sets]).all()
    assert (drawn != set_p_values(sets, calibration, seed=1)).any()


def test_a_whole_set_tells_what_single_samples_cannot() -> None:
    generator = np.random.default_rng(1)
    calibration = generator.normal(size=1000)
    members = generator.normal(loc=0.6, size=60)
    assert (p_values(members, calibration) <= 0.01).mean() < 0.2
    assert set_p_value(members, calibration, seed=0, draws=999) == pytest.approx(0.001)


@pytest.mark.parametrize(
    ("size", "calibration_size", "draws"), [(2, 12, 1), (8, 40, 99), (1, 19, 1), (60, 20, 99)]
)
@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.2])
def test_p_values_are_super_uniform(
    size: int, calibration_size: int, draws: int, alpha: float
) -> None:
    generator = np.random.default_rng(size)
    worlds = 400
    below = sum(
        # Skewed, with ties; a fresh C in every world, since the promise is made over C as well.
        set_p_value(world[:size], world[size:], seed, draws) <= alpha
        for seed, world in enumerate(generator.poisson(2.0, (worlds, size + calibration_size)))
    )
    assert binomtest(below, worlds, alpha, alternative="greater").pvalue > 1e-5


def test_only_the_order_of_scores_matters() -> None:
    generator = np.random.default_rng(4)
    calibration, group = generator.normal(size=300), generator.normal(0.5, size=20)
    assert set_p_value(group, calibration, 0) == set_p_value(np.exp(group), np.exp(calibration), 0)


@given(tested=FEW, calibration=FEW)
def test_mean_rank_is_the_area_under_the_curve(tested: list[int], calibration: list[int]) -> None:
    labels = [1] * len(tested) + [0] * len(calibration)
    assert mean_rank(tested, calibration) == pytest.approx(
        roc_auc_score(labels, tested + calibration)
    )


def test_what_has_no_rank_is_refused() -> None:
    with pytest.raises(EmptyCohortError):
        set_p_value([], [1.0], 0)
    with pytest.raises(EmptyCohortError):
        set_p_value([1.0, 2.0], [], 0)
    with pytest.raises(EmptyCohortError):
        mean_rank([], [1.0])
    with pytest.raises(NonFiniteScoreError):
        set_p_value([1.0, np.nan], [1.0], 0)
    with pytest.raises(NonFiniteScoreError):
        set_p_values([[1.0, 2.0]], [np.inf], 0)
    with pytest.raises(SetShapeError, match="shape"):
        set_p_values([1.0, 2.0], [1.0], 0)
    with pytest.raises(SetShapeError, match="0 draws"):
        set_p_value([1.0, 2.0], [1.0], 0, draws=0)
