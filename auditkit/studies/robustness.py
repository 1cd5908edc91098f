"""Do altered copies of members still evoke the member's code?

The threshold comes from the blind scores of C alone, unaltered, as it does when an auditor is
asked. Fresh images under the same alteration show whether the announced false-positive rate holds
for them as well: they are not exchangeable with an unaltered C.
"""

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from auditkit.data.images import Pixels
from auditkit.mint.false_positives import CHECKED_RATES
from auditkit.mint.metrics import flagged_rates
from auditkit.studies.alterations import ALTERATIONS, alter
from auditkit.studies.code_rates import (
    BlindRate,
    Indices,
    blind_query,
    blind_rates,
    calibration_scores,
    drawn,
)
from auditkit.studies.trial import Trial
from schemas import FlaggedRate
from schemas.base import Count, Schema

UNALTERED = "none"


class AlteredQueries(Schema):
    """Blind queries under one alteration."""

    alteration: str
    members: tuple[BlindRate, ...] = Field(description="altered copies of told samples")
    strangers: tuple[FlaggedRate, ...] = Field(description="fresh images, altered alike")


class Robustness(Schema):
    """Every alteration, the unaltered samples first."""

    rows: tuple[AlteredQueries, ...]
    calibration_size: Count


def robustness(
    trial: Trial,
    alterations: Sequence[str] = tuple(ALTERATIONS),
    *,
    false_positive_rates: Sequence[float] = CHECKED_RATES,
    limit: int | None = None,
    seed: int = 0,
) -> Robustness:
    """Query T blindly with altered copies of told samples and with altered fresh images.

    Args:
        trial: one whose T says codes.
        alterations: names of `ALTERATIONS`.
        false_positive_rates: nominal; those out of C's reach are left out.
        limit: most samples of each kind, drawn by the seed; None: all.
        seed: of the draw, and of what is random about the alterations.

    Raises:
        NoCodesError: T says no codes.
        UnknownAlterationError: an alteration has another name.
    """
    calibration = calibration_scores(trial)
    told = drawn(len(trial.indices("told")), limit, seed)
    copies = trial.images("told")[told]
    fresh = trial.images("test")
    fresh = fresh[drawn(len(fresh), limit, seed)]

    def queried(name: str, members: Pixels, strangers: Pixels, right: Indices) -> AlteredQueries:
        scores = blind_query(trial, strangers).scores
        return AlteredQueries(
            alteration=name,
            members=blind_rates(
                blind_query(trial, members), right, calibration, false_positive_rates
            ),
            strangers=flagged_rates(scores, calibration, tuple(false_positive_rates)),
        )

    rows = (
        queried(UNALTERED, copies, fresh, told),
        *(
            queried(name, alter(name, copies, seed), alter(name, fresh, seed + 1), told)
            for name in alterations
        ),
    )
    return Robustness(rows=rows, calibration_size=int(np.size(calibration)))
