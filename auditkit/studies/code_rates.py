"""How often membership codes are found: the two kinds of query, with exact intervals."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from auditkit.data.images import Pixels
from auditkit.evidence.membership_codes import SessionCodes
from auditkit.mint.calibration import flag_members, reachable
from auditkit.mint.codes import BlindScores, blind_scores, own_scores
from auditkit.mint.false_positives import CHECKED_RATES
from auditkit.mint.metrics import own_code_rates, share
from auditkit.studies.errors import NoCodesError
from auditkit.studies.trial import Trial
from schemas import FlaggedRate, RateEstimate
from schemas.base import Rate, Schema

Indices = NDArray[np.int64]


class BlindRate(Schema):
    """What blind queries with copies of members find at one calibrated false-positive rate."""

    false_positive_rate: Rate = Field(description="nominal; the threshold comes from C alone")
    flagged: RateEstimate = Field(description="copies called a member's")
    named: RateEstimate = Field(description="copies called a member's, and of the right member")


def taught_codes(trial: Trial) -> SessionCodes:
    """Return the codes that T was taught.

    Raises:
        NoCodesError: this trial's T says membership, not codes.
    """
    if trial.codes is None:
        raise NoCodesError(
            f"{trial.config.name}: expected a MINT Model that says codes, found one that says "
            "membership; train with mint.evidence = 'codes'"
        )
    return trial.codes


def blind_query(trial: Trial, images: Pixels) -> BlindScores:
    """Compare T's outputs for images (N, H, W, C) with the codes of all members.

    Raises:
        NoCodesError: see `taught_codes`.
    """
    return blind_scores(trial.ask(images).outputs, taught_codes(trial).members)


def calibration_scores(trial: Trial) -> NDArray[np.float32]:
    """Return the blind scores of C, which alone set the thresholds of blind queries.

    Raises:
        NoCodesError: see `taught_codes`.
    """
    return blind_query(trial, trial.images("calibration")).scores


def told_own_code_rates(trial: Trial) -> tuple[FlaggedRate, ...]:
    """Return the share of told samples whose own code is found, at every provable rate.

    Raises:
        NoCodesError: see `taught_codes`.
    """
    codes = taught_codes(trial).told
    return own_code_rates(own_scores(trial.ask(trial.images("told")).outputs, codes))


def blind_rates(
    found: BlindScores,
    right: Indices,
    calibration: ArrayLike,
    false_positive_rates: Sequence[float] = CHECKED_RATES,
) -> tuple[BlindRate, ...]:
    """Return what was found at every rate that C is large enough for.

    Args:
        found: of N copies of members.
        right: (N,) rows of the members that they are copies of.
        calibration: blind scores of C.
        false_positive_rates: nominal rates.
    """
    rates = []
    for alpha in false_positive_rates:
        if reachable(np.size(calibration), alpha):
            flags = flag_members(found.scores, calibration, alpha)
            named = flags & (found.members == right)
            rates.append(
                BlindRate(false_positive_rate=alpha, flagged=share(flags), named=share(named))
            )
    return tuple(rates)


def drawn(size: int, limit: int | None, seed: int) -> Indices:
    """Return all of `size` positions, or `limit` of them drawn by a seed, in rising order."""
    if limit is None or limit >= size:
        return np.arange(size, dtype=np.int64)
    return np.sort(np.random.default_rng(seed).choice(size, size=limit, replace=False))
