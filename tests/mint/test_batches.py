"""Many answers read together: discoveries against published numbers, and the test of the set."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditkit.mint.batches import BatchItem, judge, set_test_seed
from auditkit.mint.calibration import p_values
from auditkit.mint.errors import EmptyCohortError, FalsePositiveRateError
from schemas.verdict import EvidenceKind

# Benjamini and Hochberg (1995), section 3.2: fifteen ordered p-values, of which four are rejected
# at 0.05 (Bonferroni's procedure rejects three).
PUBLISHED = (
    *(0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240),
    *(0.4262, 0.5719, 0.6528, 0.7590, 1.0000),
)
CALIBRATION = np.arange(999, dtype=np.float64)
RATE = 0.01


def item(
    sample: str, p_value: float = 0.5, score: float = 0.0, evidence: EvidenceKind = "calibrated"
) -> BatchItem:
    return BatchItem(sample=sample, evidence=evidence, score=score, p_value=p_value)


def scored(scores: list[float]) -> list[BatchItem]:
    return [
        item(str(number), float(p), score)
        for number, (score, p) in enumerate(zip(scores, p_values(scores, CALIBRATION), strict=True))
    ]


def test_the_published_example_has_four_discoveries() -> None:
    batch = judge([item(str(p), p) for p in PUBLISHED], None, RATE)
    assert batch.discoveries(0.05) == (True,) * 4 + (False,) * 11
    # The adjusted p-value of rank i is the least of p_j 15 / j over the ranks j from i on.
    assert batch.adjusted_p_values[:4] == pytest.approx((0.0015, 0.003, 0.0095, 0.035625))
    assert batch.adjusted_p_values[4] == pytest.approx(0.0201 * 15 / 5)
    assert batch.sets == ()


@given(st.lists(st.floats(min_value=1e-6, max_value=1.0), min_size=1, max_size=30))
def test_discoveries_are_those_of_the_step_up_procedure(p: list[float]) -> None:
    ordered = sorted(p)
    # Rejected are the k smallest, with the largest k for which p_(k) <= k q / n.
    largest = max(
        (k for k in range(1, len(p) + 1) if ordered[k - 1] * len(p) / k <= 0.1), default=0
    )
    batch = judge([item(str(number), value) for number, value in enumerate(p)], None, RATE)
    bound = ordered[largest - 1] if largest else 0.0
    assert batch.discoveries(0.1) == tuple(value <= bound for value in p)


def test_the_same_picture_again_changes_nothing() -> None:
    once = judge([item("a", 0.02), item("b", 0.5)], CALIBRATION, RATE)
    often = judge([item("a", 0.02)] * 9 + [item("b", 0.5)], CALIBRATION, RATE)
    assert often.adjusted_p_values == (0.04,) * 9 + (0.5,)
    assert once.sets == often.sets


def test_a_set_can_stand_out_where_no_picture_does() -> None:
    batch = judge(scored([950.0] * 20), CALIBRATION, RATE)
    assert not any(batch.discoveries(RATE))
    (together,) = batch.sets
    assert (together.samples, together.outcome, together.evidence) == (20, "member", "calibrated")
    assert together.p_value == 1 / 10_000  # none of the draws reaches it
    (strangers,) = judge(scored([500.0, 400.0, 600.0]), CALIBRATION, RATE).sets
    assert strangers.outcome == "not_shown"


def test_own_codes_are_tested_by_their_proven_bound() -> None:
    items = [item(f"sample {n}", 0.1, 2.0, "declared") for n in range(4)]
    (together,) = judge(items, None, RATE).sets
    assert together.p_value == pytest.approx(math.exp(-4 * 2.0**2 / 2))
    assert together.evidence == "declared"


def test_kinds_of_evidence_are_never_mixed_in_a_set() -> None:
    items = [item("a", 0.1, 900.0), item("sample 1", 0.1, 2.0, "declared")]
    assert judge(items, CALIBRATION, RATE).sets == ()
    more = [*items, item("b", 0.1, 900.0), item("sample 2", 0.1, 2.0, "declared")]
    assert [found.evidence for found in judge(more, CALIBRATION, RATE).sets] == [
        "declared",
        "calibrated",
    ]


def test_draws_follow_from_the_samples_and_from_nothing_else() -> None:
    assert set_test_seed(["b", "a"]) == set_test_seed(["a", "b"]) != set_test_seed(["a", "c"])
    items = scored([float(score) for score in range(700, 990, 30)])
    again = judge(items[::-1], CALIBRATION, RATE)
    assert judge(items, CALIBRATION, RATE).sets == again.sets


def test_strangers_are_seldom_a_discovery_together() -> None:
    generator = np.random.default_rng(0)
    calls = 0
    for _ in range(200):
        calibration = generator.normal(size=199)
        scores = generator.normal(size=10)
        items = [
            item(str(number), float(p), float(score))
            for number, (score, p) in enumerate(
                zip(scores, p_values(scores, calibration), strict=True)
            )
        ]
        calls += any(judge(items, None, RATE).discoveries(0.1))
    # With strangers only, every discovery is false: at most one batch in ten has one.
    assert calls <= 200 * 0.1 + 3 * math.sqrt(200 * 0.1 * 0.9)


def test_what_cannot_be_judged_is_refused() -> None:
    with pytest.raises(EmptyCohortError):
        judge([], CALIBRATION, RATE)
    batch = judge([item("a")], CALIBRATION, RATE)
    for rate in (0.0, 1.0):
        with pytest.raises(FalsePositiveRateError):
            batch.discoveries(rate)
