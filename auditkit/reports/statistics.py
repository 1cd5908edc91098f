"""Curves and rates that the report derives from signed numbers and committed scores."""

import math

import numpy as np

from auditkit.reports.content import FloatArray

ROC_POINTS = 240  # enough for a smooth line over four decades
ROUNDING_SLACK = 1e-9  # 0.01 * (99 + 1) must count as 1


def roc_curve(members: FloatArray, others: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return false and true positive rates of "score above a threshold", thinned for drawing.

    Args:
        members: scores `(m,)` of the cohort that should be found.
        others: scores `(n,)` of samples that are no members.

    Returns:
        Two arrays `(k,)`, k <= ROC_POINTS: `i / n` for integer i spaced evenly on a log scale, and
        the largest TPR that flags at most i of `others`. Ties count against the members.
    """
    n = len(others)
    if n == 0 or len(members) == 0:
        return np.empty(0), np.empty(0)
    ranks = np.unique(np.geomspace(1, n, ROC_POINTS).astype(np.int64))
    descending = np.sort(others)[::-1]
    thresholds = np.append(descending, -np.inf)[ranks]
    ascending = np.sort(members)
    above = len(members) - np.searchsorted(ascending, thresholds, side="right")
    return ranks / n, above / len(members)


def area_under_curve(members: FloatArray, others: FloatArray) -> float | None:
    """Return the probability that a member scores above another sample; ties count one half."""
    if len(members) == 0 or len(others) == 0:
        return None
    from scipy import stats  # slow to load, and every command knows of reports

    statistic = stats.mannwhitneyu(members, others, alternative="two-sided", method="asymptotic")
    return float(statistic.statistic) / (len(members) * len(others))


def conformal_threshold(calibration: FloatArray, rate: float) -> float | None:
    """Return the score that a sample must exceed for a conformal p-value of at most `rate`.

    The p-value is (1 + #{c >= s}) / (n + 1). None: the calibration set is too small for the rate.
    """
    allowed = math.floor(rate * (len(calibration) + 1) + ROUNDING_SLACK) - 1
    if allowed < 0:
        return None
    if allowed >= len(calibration):
        return -math.inf
    return float(np.sort(calibration)[::-1][allowed])


def positive_predictive_value(
    prior: float, true_positive_rate: float, false_positive_rate: float
) -> float | None:
    """Return the share of true members among flagged samples (Bayes' rule); None if none is."""
    true = prior * true_positive_rate
    false = (1 - prior) * false_positive_rate
    return true / (true + false) if true + false > 0 else None


def bucket_means(values: FloatArray, buckets: int) -> FloatArray:
    """Average `(n,)` values over at most `buckets` consecutive groups of nearly equal size."""
    if len(values) <= buckets:
        return values.astype(np.float64)
    edges = np.linspace(0, len(values), buckets + 1).astype(np.int64)
    return np.add.reduceat(values.astype(np.float64), edges[:-1]) / np.diff(edges)
