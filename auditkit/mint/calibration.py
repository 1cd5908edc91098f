"""Conformal p-values: what a score is worth against samples that nobody was shown."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from auditkit.mint.errors import (
    CalibrationTooSmallError,
    EmptyCohortError,
    FalsePositiveRateError,
    NonFiniteScoreError,
)

Scores = NDArray[np.float64]

# No set is larger than what JSON carries exactly; the reciprocal of the least rates is infinite.
MOST_COUNTED = 2.0**53


def p_values(scores: ArrayLike, calibration_scores: ArrayLike) -> Scores:
    """Return the conformal p-value (1 + #{c in C : c >= s}) / (|C| + 1) of every score, (n,).

    Under the null hypothesis that a sample is exchangeable with C, P(p <= alpha) <= alpha. Ties
    count against the sample.

    Raises:
        EmptyCohortError: C is empty.
        NonFiniteScoreError: a score has no rank.

    """
    tested = checked_scores(scores, "tested")
    calibration = np.sort(checked_scores(calibration_scores, "calibration"))
    if calibration.size == 0:
        raise EmptyCohortError("expected calibration scores, found none; enlarge C in the order")
    at_least = calibration.size - np.searchsorted(calibration, tested, side="left")
    return np.asarray((1.0 + at_least) / (calibration.size + 1.0), dtype=np.float64)


def flag_members(
    scores: ArrayLike, calibration_scores: ArrayLike, false_positive_rate: float
) -> NDArray[np.bool_]:
    """Call every sample with p <= `false_positive_rate` a member, (n,).

    Raises:
        CalibrationTooSmallError: no p-value can be that small with a C of this size.
        FalsePositiveRateError: the rate is no proportion.
        EmptyCohortError, NonFiniteScoreError: see `p_values`.

    """
    check_reachable(np.size(calibration_scores), false_positive_rate)
    return p_values(scores, calibration_scores) <= false_positive_rate


def reachable(calibration_size: int, false_positive_rate: float) -> bool:
    """Tell whether a p-value as small as `false_positive_rate` exists with a C of this size."""
    return 1.0 / (calibration_size + 1) <= false_positive_rate


def check_reachable(calibration_size: int, false_positive_rate: float) -> None:
    """Refuse a false-positive rate that the calibration set is too small for.

    Raises:
        CalibrationTooSmallError: see above.
        FalsePositiveRateError: the rate is no proportion.

    """
    check_rate(false_positive_rate)
    if not reachable(calibration_size, false_positive_rate):
        needed = int(np.ceil(min(1.0 / false_positive_rate, MOST_COUNTED))) - 1
        raise CalibrationTooSmallError(
            f"a false-positive rate of {false_positive_rate:g} needs at least {needed} calibration "
            f"samples, found {calibration_size}; choose a larger rate or a larger C"
        )


def check_rate(false_positive_rate: float) -> None:
    """Refuse a false-positive rate that is not between 0 and 1, both left out.

    Raises:
        FalsePositiveRateError: see above.

    """
    if not 0.0 < false_positive_rate < 1.0:
        raise FalsePositiveRateError(
            f"expected a false-positive rate above 0 and below 1, found {false_positive_rate:g}"
        )


def control_false_discoveries(p: ArrayLike) -> Scores:
    """Adjust the p-values of many queries (Benjamini-Hochberg), (n,).

    Flagging those that are <= q keeps the expected share of false ones among them below q.

    Raises:
        EmptyCohortError: there are no p-values.

    """
    from scipy.stats import false_discovery_control  # slow to load, and rarely needed

    values = np.asarray(p, dtype=np.float64)
    if values.size == 0:
        raise EmptyCohortError("expected at least one p-value, found none")
    return np.asarray(false_discovery_control(values, method="bh"), dtype=np.float64)


def checked_scores(scores: ArrayLike, name: str) -> Scores:
    """Return the scores as float64 (n,).

    Raises:
        NonFiniteScoreError: one of them is infinite or not a number.

    """
    values = np.asarray(scores, dtype=np.float64).reshape(-1)
    if not np.isfinite(values).all():
        raise NonFiniteScoreError(
            f"expected finite {name} scores, found {int((~np.isfinite(values)).sum())} others "
            f"among {values.size}; the MINT Model or the file is damaged"
        )
    return values
