"""Many answers of one model read together: which are discoveries, and what the set shows.

Each model is a family of its own. The p-values of one model are conformal, against one C, or
bounds on codes that are independent of each other. Conformal p-values that share C depend on each
other positively (PRDS; Bates, Candès, Lei, Romano and Sesia, Annals of Statistics 2023, theorem 2),
and under that dependence the procedure of Benjamini and Hochberg controls the false-discovery rate
(Benjamini and Yekutieli, 2001, theorem 1.2). That pictures of one owner, which resemble each other
and answer alike, depend on each other in the same direction is assumed. Nothing of the kind can be
said between models, so they are never pooled.
"""

import hashlib
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from numpy.typing import ArrayLike

from auditkit.mint.calibration import check_rate, control_false_discoveries
from auditkit.mint.permutation import SET_TEST_DRAWS
from auditkit.mint.sets import SetVerdict, own_code_set_verdict, score_set_verdict
from schemas import MembershipVerdict
from schemas.verdict import EvidenceKind

LEAST_SET = 2  # one sample is no set
SEED_DOMAIN = b"auditkit/set-test/v1\0"
SEED_BYTES = 8


@dataclass(frozen=True)
class BatchItem:
    """What the batch takes of one answer."""

    sample: str
    """Digest of the pixels, or whatever else tells one sample from another."""
    evidence: EvidenceKind
    score: float
    p_value: float


@dataclass(frozen=True)
class Batch:
    """Many answers of one model read together."""

    adjusted_p_values: tuple[float, ...]
    """In the order of the items; equal items have equal ones, and count once."""
    sets: tuple[SetVerdict, ...]
    """One for each kind of evidence that two different samples or more have."""

    def discoveries(self, false_discovery_rate: float) -> tuple[bool, ...]:
        """Tell which items are discoveries: of those, at most that share is false on average.

        Raises:
            FalsePositiveRateError: the rate is no proportion.

        """
        check_rate(false_discovery_rate)
        return tuple(p <= false_discovery_rate for p in self.adjusted_p_values)


def items_of(verdicts: Sequence[MembershipVerdict]) -> list[BatchItem]:
    """Return what a batch takes of verdicts about one model.

    An opened sample is its place in the pool: equal pixels in two places have two codes.
    """
    return [
        BatchItem(
            sample=(
                f"sample {verdict.code_index}"
                if verdict.evidence == "declared"
                else verdict.sample_digest
            ),
            evidence=verdict.evidence,
            score=verdict.score,
            p_value=verdict.p_value,
        )
        for verdict in verdicts
    ]


def judge(
    items: Sequence[BatchItem], calibration_scores: ArrayLike | None, false_positive_rate: float
) -> Batch:
    """Read the answers of one model together.

    A sample that occurs several times is one sample: its answers are equal, and it counts once.

    Args:
        items: at least one.
        calibration_scores: (|C|,), against which the calibrated p-values were computed. None:
            they are not known, and no set is tested against them.
        false_positive_rate: of the set tests.

    Raises:
        EmptyCohortError: there are no items.
        CalibrationTooSmallError, FalsePositiveRateError: see `score_set_verdict`.

    """
    different = {(item.evidence, item.sample): item for item in items}
    adjusted = control_false_discoveries([item.p_value for item in different.values()])
    by_sample = dict(zip(different, adjusted.tolist(), strict=True))
    sets = []
    declared = [item for item in different.values() if item.evidence == "declared"]
    if len(declared) >= LEAST_SET:
        scores = [item.score for item in declared]
        leaves = [item.sample for item in declared]
        sets.append(own_code_set_verdict(scores, leaves, false_positive_rate))
    calibrated = [item for item in different.values() if item.evidence == "calibrated"]
    if calibration_scores is not None and len(calibrated) >= LEAST_SET:
        identities = [item.sample for item in calibrated]
        sets.append(
            score_set_verdict(
                [item.score for item in calibrated],
                calibration_scores,
                identities,
                false_positive_rate,
                seed=set_test_seed(identities),
                draws=max(SET_TEST_DRAWS, math.ceil(1 / false_positive_rate)),
            )
        )
    return Batch(
        adjusted_p_values=tuple(by_sample[item.evidence, item.sample] for item in items),
        sets=tuple(sets),
    )


def set_test_seed(samples: Sequence[Hashable]) -> int:
    """Return the seed of a set's draws: it follows from which samples are asked about alone.

    So whoever asks can't try seeds until one pleases, and anybody finds the same p-value again.
    """
    named = "\n".join(sorted(str(sample) for sample in samples)).encode()
    return int.from_bytes(hashlib.sha256(SEED_DOMAIN + named).digest()[:SEED_BYTES], "big")
