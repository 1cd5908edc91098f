"""Error rates of a MINT Model, always per cohort and with exact intervals."""

from typing import Literal

from pydantic import Field

from schemas.base import Count, Fraction, Rate, Schema

CohortName = Literal["told", "silent", "told_only", "external", "calibration", "test"]

PROVABLE_RATES = (1e-3, 1e-6, 1e-9)
"""False-positive rates at which own codes are reported; the thresholds need no samples."""

INTERIM_SAMPLES = 500
"""Per cohort in evaluations during the training; the last one takes all."""


class RateEstimate(Schema):
    """A proportion with its exact two-sided 95 % (Clopper-Pearson) interval."""

    successes: Count
    trials: Count
    value: Fraction
    low: Fraction
    high: Fraction


class FlaggedRate(Schema):
    """Share of a cohort that is called member at one nominal false-positive rate."""

    false_positive_rate: Rate = Field(description="nominal; the threshold comes from C alone")
    flagged: RateEstimate


class CohortMetrics(Schema):
    """What T says about one cohort. For member cohorts `flagged` is the TPR, else the FPR."""

    cohort: CohortName
    size: Count
    auc: Fraction | None = Field(description="against the fresh test cohort; None for test itself")
    flagged: tuple[FlaggedRate, ...]
    own_code: tuple[FlaggedRate, ...] = Field(
        default=(),
        description="with codes: share whose own code is found, at rates that are provable",
    )
    task_accuracy: RateEstimate = Field(description="accuracy of M on this cohort")
    task_loss: float
