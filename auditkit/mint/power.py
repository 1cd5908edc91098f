"""What the undeclared-data test can see, and how often it errs: measured on known samples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from auditkit.mint.calibration import Scores, checked_scores
from auditkit.mint.errors import SetShapeError, SetTooLargeError
from auditkit.mint.false_positives import FalsePositiveRow, false_positive_table
from auditkit.mint.metrics import share
from auditkit.mint.permutation import SET_TEST_DRAWS, set_p_values
from auditkit.mint.sets import check_set_test
from schemas import RateEstimate

SET_SIZES = (1, 10, 50, 100)
REPETITIONS = 2_000
FALSE_ALARM_RATE = 0.001


@dataclass(frozen=True)
class PowerPoint:
    """How often sets of one size raise the alarm when M trained on all of their samples.

    `resampled` draws its sets from the cohort again and again: precise, but its interval is about
    this cohort, this M and this C. `disjoint` uses every sample at most once: its few sets are
    independent, so its interval is about fresh samples as well.
    """

    size: int
    false_alarm_rate: float
    resampled: RateEstimate
    disjoint: RateEstimate


def power_curve(
    member_scores: ArrayLike,
    calibration_scores: ArrayLike,
    *,
    seed: int,
    sizes: Sequence[int] = SET_SIZES,
    false_alarm_rate: float = FALSE_ALARM_RATE,
    repetitions: int = REPETITIONS,
    draws: int = SET_TEST_DRAWS,
) -> tuple[PowerPoint, ...]:
    """Measure the power of `undeclared.undeclared_test` with samples that the auditor put in.

    The silent cohort is the honest choice: M trained on it, T was never told. All intervals are
    exact (Clopper and Pearson, 1934).

    Args:
        member_scores: (N,) of the inserted samples, none of them in C.
        calibration_scores: (|C|,) by the same rule.
        seed: of the sets and of the test.
        sizes: numbers of samples in a set, each at most N.
        false_alarm_rate: of the test.
        repetitions: resampled sets of every size.
        draws: of the permutation test.

    Raises:
        SetTooLargeError: a size exceeds the number of inserted samples.
        SetShapeError: a size or the number of repetitions is not positive.
        CalibrationTooSmallError, TooFewDrawsError, FalsePositiveRateError: see
            `sets.check_set_test`.
        EmptyCohortError, NonFiniteScoreError: see `permutation.set_p_values`.

    """
    members = checked_scores(member_scores, "member")
    calibration = checked_scores(calibration_scores, "calibration")
    check_set_test(calibration.size, false_alarm_rate, draws)

    def alarms(sets: Scores) -> RateEstimate:
        return share(set_p_values(sets, calibration, seed, draws) <= false_alarm_rate)

    return tuple(
        PowerPoint(
            size=size,
            false_alarm_rate=false_alarm_rate,
            resampled=alarms(resampled_sets(members, size, repetitions, seed)),
            disjoint=alarms(disjoint_sets(members, size, seed)),
        )
        for size in sizes
    )


def false_alarm_table(
    stranger_scores: Mapping[str, ArrayLike],
    calibration_scores: ArrayLike,
    *,
    seed: int,
    sizes: Sequence[int] = SET_SIZES,
    false_alarm_rate: float = FALSE_ALARM_RATE,
    draws: int = SET_TEST_DRAWS,
) -> tuple[FalsePositiveRow, ...]:
    """Count the alarms on disjoint sets of samples that M never trained on, by kind and size.

    Told-only samples belong here beside fresh test samples: T calls them members, M does not know
    them. No stranger may be in C: split a cohort in two before one half is C and the other tested.

    The count of single samples is tested as conformal, exactly. That of larger sets is tested as
    binomial, which is exact only on average over C: the luck of one C multiplies or divides the
    rate by about exp(q sqrt(n / |C|)), q being the rate's normal quantile (1.5 for 100 samples, a C
    of 5,000 and a rate of 0.1 %). A row that is refuted by little deserves a second C.

    Args:
        stranger_scores: (N,) of every kind.
        calibration_scores: (|C|,) by the same rule.
        seed: of the sets and of the test.
        sizes: numbers of samples in a set, each at most the smallest N.
        false_alarm_rate: of the test.
        draws: of the permutation test.

    Raises:
        SetTooLargeError, SetShapeError, CalibrationTooSmallError, TooFewDrawsError,
        FalsePositiveRateError, EmptyCohortError, NonFiniteScoreError: see `power_curve`.

    """
    calibration = checked_scores(calibration_scores, "calibration")
    check_set_test(calibration.size, false_alarm_rate, draws)
    rows: list[FalsePositiveRow] = []
    for size in sizes:
        p_values = {
            f"{kind}, n = {size}": set_p_values(
                disjoint_sets(scores, size, seed), calibration, seed, draws
            )
            for kind, scores in stranger_scores.items()
        }
        shared = calibration.size if size == 1 else None
        rows.extend(false_positive_table(p_values, (false_alarm_rate,), shared))
    return tuple(rows)


def resampled_sets(scores: ArrayLike, size: int, repetitions: int, seed: int) -> Scores:
    """Draw sets without repetition within a set, (repetitions, size).

    Raises:
        SetTooLargeError, SetShapeError, NonFiniteScoreError: see `power_curve`.

    """
    cohort = _large_enough(scores, size)
    if repetitions < 1:
        raise SetShapeError(f"expected at least one repetition, found {repetitions}")
    generator = np.random.default_rng(seed)
    return np.stack([generator.choice(cohort, size, replace=False) for _ in range(repetitions)])


def disjoint_sets(scores: ArrayLike, size: int, seed: int) -> Scores:
    """Divide a shuffled cohort into as many whole sets as it has, (N // size, size).

    Raises:
        SetTooLargeError, SetShapeError, NonFiniteScoreError: see `power_curve`.

    """
    cohort = np.random.default_rng(seed).permutation(_large_enough(scores, size))
    number = cohort.size // size
    return cohort[: number * size].reshape(number, size)


def _large_enough(scores: ArrayLike, size: int) -> Scores:
    cohort = checked_scores(scores, "cohort's")
    if size < 1:
        raise SetShapeError(f"expected sets of at least one sample, found the size {size}")
    if size > cohort.size:
        raise SetTooLargeError(
            f"expected a cohort of at least {size} samples for sets of that size, found "
            f"{cohort.size}; ask for smaller sets or enlarge the cohort in the order"
        )
    return cohort
