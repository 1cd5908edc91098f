"""Differences over seeds, with intervals: what a study may say about an effect."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field
from scipy.stats import ttest_1samp

from auditkit.studies.errors import TooFewSeedsError
from schemas.base import FiniteFloat, Fraction, Schema

Direction = Literal["higher", "lower", "not shown"]

CONFIDENCE = 0.95
LEAST_SEEDS = 2


class Estimate(Schema):
    """A mean over seeds with its two-sided 95 % interval (Student's t)."""

    mean: FiniteFloat
    low: FiniteFloat
    high: FiniteFloat
    p_value: Fraction = Field(description="of the mean being 0")
    seeds: int

    @property
    def direction(self) -> Direction:
        """Which way the mean differs from 0, or `not shown` where the interval includes 0.

        Seeds that all give the same number have no spread to judge by; they show nothing.
        """
        if self.low <= 0 <= self.high or self.low == self.high:
            return "not shown"
        return "higher" if self.low > 0 else "lower"


def mean_over_seeds(values: Sequence[float]) -> Estimate:
    """Return the mean of one number per seed with Student's t interval.

    Raises:
        TooFewSeedsError: fewer than two seeds have no spread.

    """
    if len(values) < LEAST_SEEDS:
        raise TooFewSeedsError(
            f"expected at least {LEAST_SEEDS} seeds for an interval, found {len(values)}; run more"
        )
    numbers = np.asarray(values, dtype=np.float64)
    mean = float(numbers.mean())
    if np.ptp(numbers) == 0:
        return Estimate(mean=mean, low=mean, high=mean, p_value=1.0, seeds=len(numbers))
    test = ttest_1samp(numbers, 0.0)
    interval = test.confidence_interval(CONFIDENCE)
    return Estimate(
        mean=mean,
        low=float(interval.low),
        high=float(interval.high),
        p_value=float(test.pvalue),
        seeds=len(numbers),
    )


def paired_difference(values: Sequence[float], base: Sequence[float]) -> Estimate:
    """Return the mean of `values - base`, paired seed by seed.

    A seed fixes the split and the initial weights, so pairing takes their spread out.

    Raises:
        TooFewSeedsError: fewer than two seeds.

    """
    return mean_over_seeds([a - b for a, b in zip(values, base, strict=True)])
