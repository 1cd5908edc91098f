"""What a set of samples shows that a single one does not: measured with samples that are known.

Two questions, kept apart. *Undeclared*: did M train on samples that T was never told? Any score of
M alone is judged against C. Silent samples, which the auditor put in, give the power; told-only and
fresh samples, on which M did not train, give the false alarms. *Declared*: is a code of the set
among those that T was taught? Provable without C.
"""

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from auditkit.mint.false_positives import REFUTED_BELOW, FalsePositiveRow, false_positive_table
from auditkit.mint.metrics import share
from auditkit.mint.permutation import SET_TEST_DRAWS
from auditkit.mint.power import (
    REPETITIONS,
    SET_SIZES,
    disjoint_sets,
    false_alarm_table,
    power_curve,
    resampled_sets,
)
from auditkit.mint.sets import own_code_set_p_value
from schemas import CohortName, RateEstimate
from schemas.base import Count, Fraction, Name, Rate, Schema
from schemas.verdict import EvidenceKind

# M did not train on these; T was told that the first are members.
UNDECLARED_STRANGERS: tuple[CohortName, ...] = ("told_only", "test")
# T was taught none of these codes; M trained on the first.
DECLARED_STRANGERS: tuple[CohortName, ...] = ("silent", "external", "test")
# Of sets of codes: provable, so that no calibration set bounds it from below.
DECLARED_RATE = 1e-6

Scores = NDArray[np.float64]
CohortScores = Mapping[CohortName, Scores]


class SetPower(Schema):
    """How often sets of one size raise the alarm, as they should."""

    size: Count
    resampled: RateEstimate = Field(
        description="sets drawn again and again: precise, about this cohort alone"
    )
    disjoint: RateEstimate = Field(
        description="every sample at most once: few sets, but about fresh samples as well"
    )


class SetFalseAlarms(Schema):
    """How often disjoint sets of strangers of one kind raise the alarm."""

    cohort: CohortName
    size: Count
    flagged: RateEstimate
    p_value: Fraction = Field(description="of so many or more, if the announced rate holds")

    @property
    def refuted(self) -> bool:
        """Whether there are more alarms than the announced rate allows."""
        return self.p_value < REFUTED_BELOW


class SetRates(Schema):
    """What sets show by one method on one seed's split."""

    method: Name
    title: str
    audited_model: Name
    seed: Count
    evidence: EvidenceKind
    inserted: CohortName = Field(description="the cohort whose sets should raise the alarm")
    rate: Rate = Field(description="of false alarms, announced")
    power: tuple[SetPower, ...]
    false_alarms: tuple[SetFalseAlarms, ...]


def undeclared_rates(
    scores: CohortScores,
    rate: float,
    seed: int,
    *,
    repetitions: int = REPETITIONS,
    draws: int = SET_TEST_DRAWS,
) -> tuple[tuple[SetPower, ...], tuple[SetFalseAlarms, ...]]:
    """Measure the undeclared-data test with one score: its power and its false alarms.

    Args:
        scores: of every cohort, higher = more likely trained on.
        rate: of false alarms, announced.
        seed: of the sets and of the test.
        repetitions: resampled sets of every size.
        draws: of the permutation test.

    Raises:
        CalibrationTooSmallError, TooFewDrawsError, FalsePositiveRateError: see
            `auditkit.mint.power.power_curve`.
    """
    calibration = scores["calibration"]
    found = power_curve(
        scores["silent"],
        calibration,
        seed=seed,
        sizes=_sizes(scores["silent"]),
        false_alarm_rate=rate,
        repetitions=repetitions,
        draws=draws,
    )
    power = tuple(SetPower(size=p.size, resampled=p.resampled, disjoint=p.disjoint) for p in found)
    alarms = (
        _false_alarms(
            cohort,
            size,
            false_alarm_table(
                {cohort: scores[cohort]},
                calibration,
                seed=seed,
                sizes=(size,),
                false_alarm_rate=rate,
                draws=draws,
            ),
        )
        for cohort in UNDECLARED_STRANGERS
        if cohort in scores
        for size in _sizes(scores[cohort])
    )
    return power, tuple(alarms)


def declared_rates(
    own: CohortScores, rate: float, seed: int, *, repetitions: int = REPETITIONS
) -> tuple[tuple[SetPower, ...], tuple[SetFalseAlarms, ...]]:
    """Measure set verdicts by own codes, z of every cohort: power on told samples, false alarms.

    Raises:
        FalsePositiveRateError: the rate is no proportion.
    """
    told = own["told"]
    power = tuple(
        SetPower(
            size=size,
            resampled=share(_set_p_values(resampled_sets(told, size, repetitions, seed)) <= rate),
            disjoint=share(_set_p_values(disjoint_sets(told, size, seed)) <= rate),
        )
        for size in _sizes(told)
    )
    alarms = (
        _false_alarms(
            cohort,
            size,
            false_positive_table(
                {cohort: _set_p_values(disjoint_sets(own[cohort], size, seed))}, (rate,)
            ),
        )
        for cohort in DECLARED_STRANGERS
        if cohort in own
        for size in _sizes(own[cohort])
    )
    return power, tuple(alarms)


def _sizes(scores: Scores) -> tuple[int, ...]:
    return tuple(size for size in SET_SIZES if size <= len(scores))


def _set_p_values(sets: Scores) -> Scores:
    return np.array([own_code_set_p_value(z) for z in sets])


def _false_alarms(
    cohort: CohortName, size: int, rows: Iterable[FalsePositiveRow]
) -> SetFalseAlarms:
    (row,) = rows
    return SetFalseAlarms(cohort=cohort, size=size, flagged=row.flagged, p_value=row.p_value)
