"""Everything random in a session follows from its nonce, in a way that must never change."""

import hashlib
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditkit.evidence.derivation import (
    LEAF_BYTES,
    WARM_UP_FRACTION,
    Schedule,
    StepPlan,
    augmentation_words,
    batch_digest,
    batch_digests,
    derive_key,
    derive_split,
    generator_seed,
    initialisation_seed,
    learning_rate,
    permutation,
)
from schemas import OptimiserConfig, SplitSizes

NONCE = bytes(range(32))
SIZES = SplitSizes(told=6, silent=2, told_only=2, external=3, calibration=3)
POOL_LEAVES = b"".join(hashlib.sha256(bytes([index])).digest() for index in range(SIZES.pool))

nonces = st.binary(min_size=32, max_size=32)
split_sizes = st.builds(
    SplitSizes,
    told=st.integers(1, 40),
    silent=st.integers(0, 20),
    told_only=st.integers(0, 20),
    external=st.integers(0, 20),
    calibration=st.integers(0, 20),
)
schedules = st.builds(
    lambda nonce, sizes, batch, external, epochs: Schedule(
        nonce, derive_split(nonce, sizes), batch, external, epochs
    ),
    nonces,
    split_sizes,
    st.integers(1, 70),
    st.integers(0, 8),
    st.integers(1, 4),
)


def small_schedule() -> Schedule:
    return Schedule(NONCE, derive_split(NONCE, SIZES), 3, 2, 2)


def as_lists(plan: StepPlan) -> tuple[list[int], ...]:
    return tuple(part.tolist() for part in (plan.told, plan.silent, plan.told_only, plan.external))


class TestFixedVectors:
    """Written down once: a session that was logged yesterday must still verify tomorrow."""

    def test_keys_and_seeds(self) -> None:
        expected = "00053b2d9f03591c446431cad5b390835771385f6067ce982a792d7e78c7a65c"
        assert derive_key(NONCE, "split").hex() == expected
        assert initialisation_seed(NONCE) == 7713266837845105347
        assert generator_seed(NONCE) == 7273487672336815317

    def test_permutation_and_augmentation(self) -> None:
        assert permutation(NONCE, "split", 10).tolist() == [0, 5, 8, 4, 2, 9, 7, 1, 3, 6]
        words = augmentation_words(NONCE, 3, 4)
        assert words.tolist() == [1711204204, 941601092, 4116055497, 3780321920]

    def test_split(self) -> None:
        split = derive_split(NONCE, SIZES)
        assert split.told.tolist() == [0, 2, 4, 5, 8, 12]
        assert split.silent.tolist() == [7, 9]
        assert split.told_only.tolist() == [10, 15]
        assert split.external.tolist() == [1, 13, 14]
        assert split.calibration.tolist() == [3, 6, 11]

    def test_schedule(self) -> None:
        assert [as_lists(plan) for plan in small_schedule().steps()] == [
            ([12, 8, 4], [], [10], [13, 1]),
            ([2], [9, 7], [15], [14, 13]),
            ([0, 5], [], [], [1, 14]),
            ([12, 0], [9], [15], [13, 1]),
            ([2, 8], [7], [10], [14, 1]),
            ([4, 5], [], [], [13, 14]),
        ]

    def test_batch_digest(self) -> None:
        first = small_schedule().epoch(0)[0]
        expected = "5d8356ff0dc6f5328a09fa3152d385a2004bfde9a5ac3fd8a3ade945d74c4beb"
        assert batch_digest(POOL_LEAVES, first) == expected


@given(nonces, split_sizes)
def test_cohorts_are_disjoint_and_cover_the_pool(nonce: bytes, sizes: SplitSizes) -> None:
    split = derive_split(nonce, sizes)
    parts = (split.told, split.silent, split.told_only, split.external, split.calibration)
    assert [len(part) for part in parts] == [
        sizes.told,
        sizes.silent,
        sizes.told_only,
        sizes.external,
        sizes.calibration,
    ]
    assert sorted(np.concatenate(parts).tolist()) == list(range(sizes.pool))


@given(schedules)
def test_every_epoch_shows_each_sample_of_d_once_and_tells_each_one_once(
    schedule: Schedule,
) -> None:
    for epoch in range(schedule.epochs):
        plans = schedule.epoch(epoch)
        assert len(plans) == schedule.steps_per_epoch
        told = np.concatenate([plan.told for plan in plans])
        silent = np.concatenate([plan.silent for plan in plans])
        told_only = np.concatenate([plan.told_only for plan in plans])
        assert sorted(told.tolist()) == schedule.split.told.tolist()
        assert sorted(silent.tolist()) == schedule.split.silent.tolist()
        assert sorted(told_only.tolist()) == schedule.split.told_only.tolist()
        assert all(1 <= plan.trained <= schedule.batch_size for plan in plans)


@given(schedules)
def test_external_samples_are_shown_equally_often(schedule: Schedule) -> None:
    shown = [plan.external for plan in schedule.steps()]
    if not len(schedule.split.external):
        assert all(len(part) == 0 for part in shown)
        return
    assert all(len(part) == schedule.external_batch_size for part in shown)
    counts = np.bincount(np.concatenate(shown), minlength=1)
    found = [counts[i] if i < len(counts) else 0 for i in schedule.split.external]
    assert max(found) - min(found) <= 1
    assert counts.sum() == sum(found)


@given(schedules)
def test_calibration_samples_are_shown_to_nobody(schedule: Schedule) -> None:
    seen = set(np.concatenate([plan.rows for plan in schedule.steps()]).tolist())
    assert not seen & set(schedule.split.calibration.tolist())


@given(schedules, st.data())
def test_a_resumed_schedule_is_the_tail_of_the_whole(
    schedule: Schedule, data: st.DataObject
) -> None:
    after = data.draw(st.integers(0, schedule.total_steps))
    tail = list(itertools.islice(schedule.steps(), after, None))
    resumed = list(schedule.steps(after=after))
    assert [(p.step, p.epoch, as_lists(p)) for p in resumed] == [
        (p.step, p.epoch, as_lists(p)) for p in tail
    ]
    assert [plan.step for plan in resumed] == list(range(after + 1, schedule.total_steps + 1))


def test_epochs_and_uses_differ_in_their_randomness() -> None:
    schedule = Schedule(NONCE, derive_split(NONCE, SIZES), 8, 3, 2)
    first, second = (schedule.epoch(epoch)[0].rows.tolist() for epoch in (0, 1))
    assert first != second
    assert derive_key(NONCE, "split") != derive_key(NONCE, "trained/0")
    assert derive_key(NONCE, "split") != derive_key(bytes(32), "split")
    assert augmentation_words(NONCE, 0, 4).tolist() != augmentation_words(NONCE, 1, 4).tolist()


def with_parts(**parts: list[int]) -> StepPlan:
    base = {"told": [0, 1], "silent": [2], "told_only": [3], "external": [4, 5]}
    arrays = {name: np.array(part, dtype=np.int64) for name, part in {**base, **parts}.items()}
    return StepPlan(step=1, epoch=0, **arrays)


@pytest.mark.parametrize(
    "parts",
    [
        {"told": [1, 0]},
        {"told": [0, 6]},
        {"told": [0, 1, 2], "silent": []},
        {"told": [0], "silent": [1, 2]},
        {"told_only": [], "external": [3, 4, 5]},
        {"told_only": [3, 4], "external": [5]},
        {"external": [4]},
        {"external": [5, 4]},
    ],
    ids=[
        "another order",
        "another sample",
        "a silent sample is told",
        "a told sample is silent",
        "a told-only sample is external",
        "an external sample is told",
        "a sample is missing",
        "another order of E",
    ],
)
def test_a_batch_digest_changes_with_every_sample_order_and_cohort(
    parts: dict[str, list[int]],
) -> None:
    assert batch_digest(POOL_LEAVES, with_parts(**parts)) != batch_digest(POOL_LEAVES, with_parts())


def test_a_batch_digest_changes_with_the_leaves_and_not_with_those_of_others() -> None:
    plan = with_parts()
    for index in range(SIZES.pool):
        changed = bytearray(POOL_LEAVES)
        changed[index * LEAF_BYTES] ^= 1
        same = batch_digest(bytes(changed), plan) == batch_digest(POOL_LEAVES, plan)
        assert same == (index not in plan.rows)


class TestLearningRate:
    def test_constant(self) -> None:
        optimiser = OptimiserConfig(learning_rate=0.3, schedule="constant")
        assert {learning_rate(optimiser, step, 50) for step in range(1, 51)} == {0.3}

    def test_one_cycle_rises_in_a_line_to_its_peak_and_falls_to_the_end(self) -> None:
        optimiser = OptimiserConfig(learning_rate=0.3, schedule="one_cycle")
        rates = [learning_rate(optimiser, step, 100) for step in range(1, 101)]
        peak = round(100 * WARM_UP_FRACTION)
        assert rates[peak - 1] == pytest.approx(0.3)
        assert np.diff(rates[:peak]) == pytest.approx(0.3 / peak)
        assert (np.diff(rates[peak - 1 :]) < 0).all()
        assert 0 < rates[-1] < 0.001

    def test_one_cycle_vectors(self) -> None:
        optimiser = OptimiserConfig(learning_rate=0.1, schedule="one_cycle")
        rates = [learning_rate(optimiser, step, 10) for step in (1, 2, 6, 10)]
        # Half-way down the cosine of nine parts: 0.05 * (1 + cos(4/9 pi)) and so on.
        assert rates == pytest.approx([0.05, 0.1, 0.0586824089, 0.0030153690], abs=1e-9)

    @given(st.integers(1, 200), st.data())
    def test_every_rate_is_positive_and_at_most_the_peak(
        self, total: int, data: st.DataObject
    ) -> None:
        step = data.draw(st.integers(1, total))
        optimiser = OptimiserConfig(learning_rate=0.7, schedule="one_cycle")
        assert 0 < learning_rate(optimiser, step, total) <= 0.7


@given(schedules, st.integers(0, 3))
def test_the_digests_of_an_epoch_are_those_of_its_steps(schedule: Schedule, epoch: int) -> None:
    split = schedule.split
    leaves = b"".join(hashlib.sha256(b"%d" % index).digest() for index in range(split.size))
    expected = [batch_digest(leaves, plan) for plan in schedule.epoch(epoch)]
    assert batch_digests(leaves, schedule, epoch) == expected
