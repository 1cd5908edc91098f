"""One verdict for everything that an owner brings: was any of these samples told to T?"""

import math
import sys
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from numpy.typing import ArrayLike

from auditkit.mint.calibration import Scores, check_rate, check_reachable, checked_scores
from auditkit.mint.errors import (
    DuplicateSampleError,
    EmptyCohortError,
    SetShapeError,
    TooFewDrawsError,
)
from auditkit.mint.permutation import SET_TEST_DRAWS, mean_rank, set_p_value
from schemas.verdict import EvidenceKind, Outcome


@dataclass(frozen=True)
class SetVerdict:
    """Was any of these samples told to T as a member, at a stated false-positive rate?

    The null hypothesis is that *none* was. A small p-value therefore says "at least one", not
    "all"; which ones is the business of single verdicts under false-discovery control.
    """

    evidence: EvidenceKind  # declared: codes, provable; calibrated: scores, exchangeable with C
    samples: int
    statistic: float  # declared: mean z; calibrated: mean rank in C, 0.5 for strangers
    p_value: float
    false_positive_rate: float

    @property
    def outcome(self) -> Outcome:
        """Whether the p-value is at most the rate."""
        return "member" if self.p_value <= self.false_positive_rate else "not_shown"


def own_code_set_p_value(z: ArrayLike) -> float:
    """Bound the probability that n strangers' own codes agree this well by chance, z (n,).

    With S the sum of the n scores z_i = c_i.s_i / ||s_i||, the bound is exp(-S^2 / (2 n)) for
    S > 0, that is exp(-n m^2 / 2) for their mean m, and 1 otherwise.

    Proof. The null hypothesis is that none of the n codes was used in training. Put
    u_i = s_i / ||s_i||. The outputs were then computed without the codes, so that, given
    u_1 ... u_n, the n b numbers c_ik are independent (distinct leaves, a secret key, and HMAC a
    pseudorandom function), each with E exp(l c_ik) <= exp(l^2 / 2), as `evidence.membership_codes`
    makes them; so have fair signs. For every l > 0

        E exp(l S) = prod_ik E exp(l u_ik c_ik) <= prod_ik exp(l^2 u_ik^2 / 2) = exp(n l^2 / 2),

    because the squares of each u_i add up to 1. Markov's inequality with l = t / n gives
    P(S >= t) <= exp(-t^2 / (2 n)) (Chernoff's bound). Being true given any
    u_1 ... u_n it is true for all samples: equal images in several leaves (equal u_i, but codes of
    their own), outputs that depend on each other, and outputs of any distribution.

    It is *not* true for codes that depend on each other. A leaf that occurs m times brings its one
    code m times, the variance of S grows with the sum of m^2 instead of n, and one lucky stranger
    repeated often would pass; hence `check_distinct`. Nor does it cover an owner who has seen the
    scores and leaves the low ones out.

    The result is never below the smallest normal float: rounding up keeps it a bound.

    Raises:
        EmptyCohortError: the set is empty.
        NonFiniteScoreError: a score is infinite or not a number.

    """
    scores = _not_empty(z)
    total = max(float(scores.sum()), 0.0)
    return max(math.exp(-(total**2) / (2.0 * scores.size)), sys.float_info.min)


def own_code_set_verdict(
    z: ArrayLike, leaves: Sequence[Hashable], false_positive_rate: float
) -> SetVerdict:
    """Judge a set by its samples' own codes: provable, without calibration or assumption.

    Args:
        z: (n,) scores of the samples with their own codes.
        leaves: the n manifest leaves that the codes were derived from.
        false_positive_rate: above 0 and below 1.

    Raises:
        DuplicateSampleError, SetShapeError: see `check_distinct`.
        EmptyCohortError, NonFiniteScoreError: see `own_code_set_p_value`.
        FalsePositiveRateError: the rate is no proportion.

    """
    check_rate(false_positive_rate)
    scores = _not_empty(z)
    check_distinct(leaves, scores.size)
    return SetVerdict(
        evidence="declared",
        samples=scores.size,
        statistic=float(scores.mean()),
        p_value=own_code_set_p_value(scores),
        false_positive_rate=false_positive_rate,
    )


def score_set_verdict(
    scores: ArrayLike,
    calibration_scores: ArrayLike,
    identities: Sequence[Hashable],
    false_positive_rate: float,
    *,
    seed: int,
    draws: int = SET_TEST_DRAWS,
) -> SetVerdict:
    """Judge a set by any score of T (or the best blind match) against C: a permutation test.

    It holds for samples that are exchangeable with C: alike in kind, chosen without sight of their
    scores, and not copies of one another. Copies in other bytes have to be kept out by the caller.

    Args:
        scores: (n,) of the set, higher = more likely members.
        calibration_scores: (|C|,) by the same rule; no sample of the set is in C.
        identities: n digests of the samples' content.
        false_positive_rate: above 0 and below 1.
        seed: of the draws; to be fixed before the scores are seen.
        draws: of the permutation test where it can't be enumerated.

    Raises:
        DuplicateSampleError, SetShapeError: see `check_distinct`.
        CalibrationTooSmallError: C is too small for the rate, by the rule for one sample.
        TooFewDrawsError: the number of draws is too small for the rate.
        FalsePositiveRateError: the rate is no proportion.
        EmptyCohortError, NonFiniteScoreError: see `permutation.set_p_values`.

    """
    tested = _not_empty(scores)
    calibration = checked_scores(calibration_scores, "calibration")
    check_distinct(identities, tested.size)
    check_set_test(calibration.size, false_positive_rate, draws)
    return SetVerdict(
        evidence="calibrated",
        samples=tested.size,
        statistic=mean_rank(tested, calibration),
        p_value=set_p_value(tested, calibration, seed, draws),
        false_positive_rate=false_positive_rate,
    )


def check_distinct(identities: Sequence[Hashable], samples: int) -> None:
    """Refuse a set that counts a sample twice.

    Raises:
        DuplicateSampleError: two identities are equal.
        SetShapeError: there is not one identity for each of the scores.

    """
    if len(identities) != samples:
        raise SetShapeError(
            f"expected one identity for each of {samples} scores, found {len(identities)}"
        )
    repeated = samples - len(set(identities))
    if repeated:
        raise DuplicateSampleError(
            f"expected {samples} different samples, found {repeated} that occur before; bring "
            f"every sample once"
        )


def check_set_test(calibration_size: int, false_positive_rate: float, draws: int) -> None:
    """Refuse a rate that the calibration set or the number of draws is too small for.

    A set of two could reach smaller p-values than one sample with the same C. The rule for one
    sample is kept all the same: with a small C the luck of C itself is most of the answer.

    Raises:
        CalibrationTooSmallError, FalsePositiveRateError: see `calibration.check_reachable`.
        TooFewDrawsError: see above.

    """
    check_reachable(calibration_size, false_positive_rate)
    if 1.0 / (draws + 1) > false_positive_rate:
        raise TooFewDrawsError(
            f"a false-positive rate of {false_positive_rate:g} needs at least "
            f"{math.ceil(1.0 / false_positive_rate) - 1} draws, found {draws}"
        )


def _not_empty(scores: ArrayLike) -> Scores:
    tested = checked_scores(scores, "tested")
    if tested.size == 0:
        raise EmptyCohortError("expected at least one sample in the set, found none")
    return tested
