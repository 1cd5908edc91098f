"""Is the false-positive rate what it says it is? Counts on strangers against the announced rate."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import betabinom, binomtest

from auditkit.mint.calibration import Scores, check_rate, check_reachable
from auditkit.mint.errors import EmptyCohortError, PValueError
from auditkit.mint.metrics import rate
from schemas import RateEstimate

CHECKED_RATES = (0.01, 0.001, 0.0001)

# A table has dozens of rows; at this level even fifty true ones rarely (5 %) see one refuted.
REFUTED_BELOW = 0.001


@dataclass(frozen=True)
class FalsePositiveRow:
    """How often one kind of stranger was flagged at one announced rate."""

    kind: str
    false_positive_rate: float  # announced: alpha
    flagged: RateEstimate  # measured on the strangers, given this C where there is one
    p_value: float  # of so many flags or more, if the announced rate holds

    @property
    def compatible(self) -> bool:
        """Whether the count is no evidence that strangers are flagged more often than announced."""
        return self.p_value >= REFUTED_BELOW


def false_positive_table(
    p_values: Mapping[str, ArrayLike],
    false_positive_rates: tuple[float, ...] = CHECKED_RATES,
    calibration_size: int | None = None,
) -> tuple[FalsePositiveRow, ...]:
    """Count the strangers of every kind with p <= alpha and test the counts, one-sided and exact.

    *Independent p-values* (own codes: no `calibration_size`): the flags are independent, each with
    a chance of alpha or less, so their number is at most binomial (n, alpha).

    *Conformal p-values* share one C, and the luck of that C moves all of them together: with
    k = floor(alpha (|C| + 1)) the rate given C is Beta(k, |C| + 1 - k) (Vovk, 2012), so the number
    of flags is beta-binomial, far wider than binomial where k is small. Ties only lower it. A plain
    binomial test would call valid p-values broken.

    Args:
        p_values: (n,) of the strangers of every kind.
        false_positive_rates: announced rates, each above 0 and below 1.
        calibration_size: |C| where the p-values are conformal, the same for all kinds.

    Raises:
        CalibrationTooSmallError: a rate is out of reach of this C.
        EmptyCohortError: a kind has no samples, or there are no kinds.
        FalsePositiveRateError: a rate is no proportion.
        PValueError: a number is no p-value.

    """
    if not p_values:
        raise EmptyCohortError("expected at least one kind of stranger, found none")
    for alpha in false_positive_rates:
        check_rate(alpha)
        if calibration_size is not None:
            check_reachable(calibration_size, alpha)
    return tuple(
        _row(kind, _checked(kind, values), alpha, calibration_size)
        for kind, values in p_values.items()
        for alpha in false_positive_rates
    )


def _row(kind: str, values: Scores, alpha: float, calibration_size: int | None) -> FalsePositiveRow:
    flagged = rate(int((values <= alpha).sum()), values.size)
    if calibration_size is None:
        p_value = binomtest(flagged.successes, flagged.trials, alpha, alternative="greater").pvalue
    else:
        rank = _largest_flagged_rank(alpha, calibration_size)
        null = betabinom(flagged.trials, rank, calibration_size + 1 - rank)
        p_value = null.sf(flagged.successes - 1)
    return FalsePositiveRow(kind, alpha, flagged, min(max(float(p_value), 0.0), 1.0))


def _largest_flagged_rank(alpha: float, calibration_size: int) -> int:
    """Return the largest k with k / (|C| + 1) <= alpha, as the p-values themselves round."""
    rank = int(alpha * (calibration_size + 1))
    return rank + 1 if (rank + 1.0) / (calibration_size + 1.0) <= alpha else rank


def _checked(kind: str, values: ArrayLike) -> Scores:
    found = np.asarray(values, dtype=np.float64).reshape(-1)
    if found.size == 0:
        raise EmptyCohortError(f"expected p-values of {kind!r}, found none")
    if not ((found > 0.0) & (found <= 1.0)).all():
        raise PValueError(f"expected p-values above 0 and at most 1 of {kind!r}, found others")
    return found
