"""The permutation test of a whole set against C: is its mean rank larger than chance makes it?"""

from dataclasses import dataclass
from itertools import chain, combinations
from math import comb

import numpy as np
from numpy.typing import ArrayLike, NDArray

from auditkit.mint.calibration import Scores, checked_scores, p_values
from auditkit.mint.errors import EmptyCohortError, SetShapeError

# With 9,999 draws the smallest p-value is 1 in 10,000.
SET_TEST_DRAWS = 9_999

# All subsets are visited if they take at most this many positions together (two samples against a
# C of 998, say): the p-value is then exact and does not depend on the seed.
MOST_ENUMERATED = 1_000_000

# Ranks gathered at once: bounds the memory of one step to 32 MB.
GATHERED_RANKS = 4_000_000


def set_p_value(
    scores: ArrayLike, calibration_scores: ArrayLike, seed: int, draws: int = SET_TEST_DRAWS
) -> float:
    """Return the p-value of one set of n scores; see `set_p_values`."""
    tested = checked_scores(scores, "tested")
    return float(set_p_values(tested[np.newaxis], calibration_scores, seed, draws)[0])


def set_p_values(
    sets: ArrayLike, calibration_scores: ArrayLike, seed: int, draws: int = SET_TEST_DRAWS
) -> Scores:
    """Test every one of G sets of n scores, each against the same C, (G, n) -> (G,).

    p is the share of the n-subsets of set and C together whose rank sum (ties share their mean
    rank) is at least the set's own: Wilcoxon's test, conditional on the ties; for n = 1 it is the
    conformal p-value (`calibration.p_values`). Where the subsets are too many to visit, `draws`
    random ones stand for all and the set's own is added to them, (1 + #{sum >= own}) / (draws + 1)
    (Phipson and Smyth, 2010). Both are valid at every size: if the n samples are exchangeable with
    C, P(p <= alpha) <= alpha over the choice of set, C and draws. p-values that share C are
    dependent: they must not be combined as if they were not.

    Every set sees the same draws, so equal scores and seed give equal p-values. Memory: 8 bytes
    for each of `draws` x n positions.

    Raises:
        EmptyCohortError: the sets or C are empty.
        NonFiniteScoreError: a score has no rank.
        SetShapeError: the sets are not (G, n), or `draws` is not positive.

    """
    groups = np.asarray(sets, dtype=np.float64)
    calibration = checked_scores(calibration_scores, "calibration")
    if groups.ndim != 2 or draws < 1:
        raise SetShapeError(
            f"expected sets of one size, (sets, samples), and at least one draw, found shape "
            f"{groups.shape} and {draws} draws"
        )
    if groups.size == 0 or calibration.size == 0:
        raise EmptyCohortError(
            f"expected scores in the set and in C, found {groups.size} and {calibration.size}"
        )
    checked_scores(groups, "tested")
    if groups.shape[1] == 1:  # no subset but the samples themselves
        return p_values(groups, calibration)
    subsets = _Subsets.of(groups.shape[1], groups.shape[1] + calibration.size, seed, draws)
    ranks = np.arange(1.0, subsets.population + 1.0)
    untied = np.sort(subsets.sums(ranks))  # the null of every set without ties: computed once
    p = np.empty(len(groups))
    for index, group in enumerate(groups):
        pooled = np.sort(np.concatenate((group, calibration)))
        observed = _mean_ranks(pooled, group).sum()
        if (pooled[1:] == pooled[:-1]).any():
            at_least = int((subsets.sums(_mean_ranks(pooled, pooled)) >= observed).sum())
        else:
            at_least = untied.size - int(np.searchsorted(untied, observed, side="left"))
        p[index] = subsets.p_value(at_least)
    return p


def mean_rank(scores: ArrayLike, calibration_scores: ArrayLike) -> float:
    """Return the mean share of C that lies below a score of the set, ties half, in [0, 1].

    It is the test's statistic on a scale that does not depend on sizes: the area under the ROC
    curve of the set against C, 0.5 for strangers on average.

    Raises:
        EmptyCohortError: the set or C is empty.
        NonFiniteScoreError: a score has no rank.

    """
    tested = checked_scores(scores, "tested")
    calibration = np.sort(checked_scores(calibration_scores, "calibration"))
    if tested.size == 0 or calibration.size == 0:
        raise EmptyCohortError(
            f"expected scores in the set and in C, found {tested.size} and {calibration.size}"
        )
    return float((_mean_ranks(calibration, tested) - 0.5).mean() / calibration.size)


@dataclass(frozen=True)
class _Subsets:
    """Which positions of the pooled, sorted scores each subset takes, (subsets, n)."""

    positions: NDArray[np.intp]
    population: int
    complete: bool

    @classmethod
    def of(cls, size: int, population: int, seed: int, draws: int) -> "_Subsets":
        """Take all subsets where they can be enumerated, random ones otherwise."""
        number = comb(population, size)
        if number * size <= MOST_ENUMERATED:
            every = chain.from_iterable(combinations(range(population), size))
            listed = np.fromiter(every, dtype=np.intp, count=number * size)
            return cls(listed.reshape(number, size), population, complete=True)
        generator = np.random.default_rng(seed)
        positions = np.empty((draws, size), dtype=np.intp)
        for drawn in positions:
            drawn[:] = generator.choice(population, size=size, replace=False, shuffle=False)
        return cls(positions, population, complete=False)

    def sums(self, ranks: Scores) -> Scores:
        """Return the rank sum of every subset; half-integers, so the sums are exact."""
        parts = -(-self.positions.size // GATHERED_RANKS)
        return np.concatenate(
            [ranks.take(rows).sum(axis=1) for rows in np.array_split(self.positions, parts)]
        )

    def p_value(self, at_least: int) -> float:
        """Turn the number of subsets that reach the set's own sum into its p-value."""
        if self.complete:  # the set itself is one of them
            return at_least / len(self.positions)
        return (1 + at_least) / (len(self.positions) + 1)


def _mean_ranks(ordered: Scores, values: Scores) -> Scores:
    """Return the 1-based mean rank of values that are among the `ordered`."""
    below = np.searchsorted(ordered, values, side="left")
    not_above = np.searchsorted(ordered, values, side="right")
    return np.asarray((below + not_above + 1) / 2.0, dtype=np.float64)
