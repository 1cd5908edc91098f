"""The undeclared-data test: did M train on a set of samples that T was never told about?"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from numpy.typing import ArrayLike

from auditkit.mint.calibration import checked_scores
from auditkit.mint.permutation import SET_TEST_DRAWS, mean_rank, set_p_value
from auditkit.mint.sets import check_distinct, check_set_test


@dataclass(frozen=True)
class UndeclaredResult:
    """Did M behave on the suspects as on samples it trained on, at a stated false-alarm rate?

    An alarm says that the set is not exchangeable with C in M's eyes; read it beside the test's
    measured power (`power.power_curve`), for a test without power never alarms either.
    """

    samples: int
    calibration_size: int
    mean_rank: float  # share of C below a suspect, 0.5 for strangers; the AUC against C
    p_value: float
    false_alarm_rate: float

    @property
    def alarm(self) -> bool:
        """Whether the p-value is at most the false-alarm rate."""
        return self.p_value <= self.false_alarm_rate


def undeclared_test(
    suspect_scores: ArrayLike,
    calibration_scores: ArrayLike,
    false_alarm_rate: float,
    seed: int,
    *,
    identities: Sequence[Hashable],
    draws: int = SET_TEST_DRAWS,
) -> UndeclaredResult:
    """Compare the mean rank of n suspects' passive scores with that of equal draws from C.

    T is told nothing of silent samples and can't see them; M can't help treating them as its own.
    The score is any per-sample statistic of M alone, higher = more likely trained on: the negated
    loss (Yeom et al., 2018), the loss calibrated by reference models (Watson et al., 2022), passive
    MINT on the output tap, LiRA, RMIA. Per sample these are weak; their mean over a set is not
    (the idea of dataset inference: Maini et al., 2021).

    The false-alarm rate holds for suspects that are exchangeable with C: the same kind of sample,
    chosen without sight of the scores, and not near-copies of one another. A set that is merely
    easier than C would raise an alarm too, so a calibrated statistic is the better choice wherever
    the suspects may differ in kind.

    Args:
        suspect_scores: (n,), higher = more likely trained on.
        calibration_scores: (|C|,) by the same rule; no suspect is in C.
        false_alarm_rate: above 0 and below 1.
        seed: of the permutation test; to be fixed before the scores are seen.
        identities: n digests of the suspects' content.
        draws: of the permutation test where it can't be enumerated.

    Raises:
        DuplicateSampleError, SetShapeError: see `sets.check_distinct`.
        CalibrationTooSmallError, TooFewDrawsError, FalsePositiveRateError: see
            `sets.check_set_test`.
        EmptyCohortError, NonFiniteScoreError: see `permutation.set_p_values`.

    """
    suspects = checked_scores(suspect_scores, "suspect")
    calibration = checked_scores(calibration_scores, "calibration")
    check_distinct(identities, suspects.size)
    check_set_test(calibration.size, false_alarm_rate, draws)
    return UndeclaredResult(
        samples=suspects.size,
        calibration_size=calibration.size,
        mean_rank=mean_rank(suspects, calibration),
        p_value=set_p_value(suspects, calibration, seed, draws),
        false_alarm_rate=false_alarm_rate,
    )
