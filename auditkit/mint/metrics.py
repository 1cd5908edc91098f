"""How well T tells cohorts apart, with exact intervals; thresholds come from C alone."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest, rankdata

from auditkit.mint.calibration import checked_scores, flag_members, reachable
from auditkit.mint.codes import own_code_p_values
from auditkit.mint.errors import EmptyCohortError
from auditkit.mint.scores import CohortScores
from schemas import CohortMetrics, CohortName, FlaggedRate, RateEstimate
from schemas.evaluation import PROVABLE_RATES

FALSE_POSITIVE_RATES = (0.05, 0.01, 0.001)
CONFIDENCE = 0.95

# Fixed before any result was seen; tuning it on the tested samples would flatter the figure.
BALANCED_FALSE_POSITIVE_RATE = 0.05

PRIORS = (0.01, 0.10, 0.50)
ROC_POINTS = 200


def rate(successes: int, trials: int) -> RateEstimate:
    """Return a proportion with its exact two-sided 95 % interval (Clopper and Pearson, 1934).

    Raises:
        EmptyCohortError: there were no trials.

    """
    if trials == 0:
        raise EmptyCohortError("expected at least one trial, found none")
    interval = binomtest(successes, trials).proportion_ci(CONFIDENCE, method="exact")
    return RateEstimate(
        successes=successes,
        trials=trials,
        value=successes / trials,
        low=float(interval.low),
        high=float(interval.high),
    )


def share(flags: NDArray[np.bool_]) -> RateEstimate:
    """Return the share of true values with its interval."""
    return rate(int(flags.sum()), int(flags.size))


def auc(positives: ArrayLike, negatives: ArrayLike) -> float:
    """Return the exact area under the ROC curve; ties count half (Mann and Whitney, 1947).

    Raises:
        EmptyCohortError: one of the two is empty.
        NonFiniteScoreError: a score has no rank.

    """
    members, others = checked_scores(positives, "member"), checked_scores(negatives, "other")
    if members.size == 0 or others.size == 0:
        raise EmptyCohortError(
            f"expected scores of both kinds, found {members.size} and {others.size}"
        )
    ranks = rankdata(np.concatenate((members, others)))
    wins = ranks[: members.size].sum() - members.size * (members.size + 1) / 2
    return float(wins / (members.size * others.size))


def flagged_rates(
    scores: ArrayLike,
    calibration_scores: ArrayLike,
    false_positive_rates: tuple[float, ...] = FALSE_POSITIVE_RATES,
) -> tuple[FlaggedRate, ...]:
    """Return the share called member at every nominal rate that C is large enough for."""
    return tuple(
        FlaggedRate(
            false_positive_rate=nominal,
            flagged=share(flag_members(scores, calibration_scores, nominal)),
        )
        for nominal in false_positive_rates
        if reachable(np.size(calibration_scores), nominal)
    )


def own_code_rates(own: ArrayLike | None) -> tuple[FlaggedRate, ...]:
    """Return the share whose own code is found, at rates that need no calibration set.

    Args:
        own: (n,) z of each sample's own code; None: there are no codes.
    """
    if own is None:
        return ()
    bounds = own_code_p_values(own)
    return tuple(
        FlaggedRate(false_positive_rate=nominal, flagged=share(bounds <= nominal))
        for nominal in PROVABLE_RATES
    )


def balanced_accuracy(
    told_scores: ArrayLike,
    test_scores: ArrayLike,
    calibration_scores: ArrayLike,
    false_positive_rate: float = BALANCED_FALSE_POSITIVE_RATE,
) -> float:
    """Return (TPR on told + 1 - FPR on fresh test) / 2 at the threshold calibrated on C.

    Raises:
        CalibrationTooSmallError: C cannot support the rate.
        EmptyCohortError, NonFiniteScoreError: see `rate` and `calibration.p_values`.

    """
    true_positive = share(flag_members(told_scores, calibration_scores, false_positive_rate))
    false_positive = share(flag_members(test_scores, calibration_scores, false_positive_rate))
    return (true_positive.value + 1.0 - false_positive.value) / 2.0


def positive_predictive_value(
    true_positive_rate: float, false_positive_rate: float, prior: float
) -> float | None:
    """Return P(member | called member) at a prior, or None where nothing is ever called member."""
    true, false = true_positive_rate * prior, false_positive_rate * (1.0 - prior)
    return true / (true + false) if true + false > 0 else None


def roc_points(
    positives: ArrayLike, negatives: ArrayLike, most: int = ROC_POINTS
) -> tuple[tuple[float, float], ...]:
    """Return (FPR, TPR) pairs with FPR > 0, evenly spread on a logarithmic axis up to (1, 1).

    Raises:
        EmptyCohortError: one of the two is empty.
        NonFiniteScoreError: a score has no rank.

    """
    members = np.sort(checked_scores(positives, "member"))
    others = np.sort(checked_scores(negatives, "other"))
    if members.size == 0 or others.size == 0:
        raise EmptyCohortError(
            f"expected scores of both kinds, found {members.size} and {others.size}"
        )
    counts = np.unique(np.geomspace(1, others.size, num=most).round().astype(np.int64))
    thresholds = others[others.size - counts]
    false = (others.size - np.searchsorted(others, thresholds, side="left")) / others.size
    true = (members.size - np.searchsorted(members, thresholds, side="left")) / members.size
    pairs = {float(x): float(y) for x, y in zip(false, true, strict=True)}
    return tuple(sorted(pairs.items()))


def cohort_metrics(cohorts: Mapping[CohortName, CohortScores]) -> tuple[CohortMetrics, ...]:
    """Measure every cohort against fresh test samples, at thresholds from C alone.

    C itself has no flagged rates: its own threshold would say nothing about it.

    Raises:
        EmptyCohortError: `test` or `calibration` is missing or empty.

    """
    for needed in ("test", "calibration"):
        if needed not in cohorts or cohorts[needed].size == 0:
            raise EmptyCohortError(f"expected samples in the cohort {needed!r}, found none")
    test, calibration = cohorts["test"].scores, cohorts["calibration"].scores
    return tuple(
        CohortMetrics(
            cohort=name,
            size=cohort.size,
            auc=None if name == "test" else auc(cohort.scores, test),
            flagged=() if name == "calibration" else flagged_rates(cohort.scores, calibration),
            own_code=own_code_rates(cohort.own),
            task_accuracy=share(cohort.correct),
            task_loss=float(cohort.task_losses.mean()),
        )
        for name, cohort in cohorts.items()
        if cohort.size > 0
    )
