"""A laboratory trial stops when it no longer improves, and peeks at nothing it is judged by."""

import math

import numpy as np
import pytest

from auditkit.evidence.derivation import derive_split
from auditkit.mint.errors import NonFiniteLossError
from auditkit.studies.early_stopping import EarlyStopping, StoppingRule, hold_out
from auditkit.studies.errors import HoldOutError, StoppingRuleError
from schemas import SplitSizes

SPLIT = derive_split(
    bytes(32), SplitSizes(told=40, silent=5, told_only=5, external=30, calibration=20)
)


def stops_after(losses: list[float], rule: StoppingRule) -> int:
    watch = EarlyStopping(rule)
    for epoch, loss in enumerate(losses):
        if watch.observe(loss):
            return epoch + 1
    return 0


def test_training_stops_when_patience_runs_out() -> None:
    losses = [3.0, 2.0, 2.5, 2.4, 2.3, 1.0]
    assert stops_after(losses, StoppingRule(patience=3)) == 5
    assert stops_after(losses, StoppingRule(patience=4)) == 0


def test_every_improvement_renews_the_patience() -> None:
    watch = EarlyStopping(StoppingRule(patience=2))
    assert not any(watch.observe(loss) for loss in (3.0, 3.1, 2.0, 2.1, 1.0))
    assert (watch.best, watch.best_epoch, watch.epochs) == (1.0, 4, 5)


def test_tiny_improvements_do_not_count_even_when_they_add_up() -> None:
    creeping = [1.0 - 0.01 * epoch for epoch in range(30)]
    assert stops_after(creeping, StoppingRule(patience=3)) == 0
    assert stops_after(creeping, StoppingRule(patience=3, least_improvement=0.05)) == 4


def test_equal_losses_are_no_improvement() -> None:
    assert stops_after([1.0, 1.0, 1.0], StoppingRule(patience=2)) == 3


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_diverged_training_is_no_candidate_for_patience(loss: float) -> None:
    watch = EarlyStopping(StoppingRule(patience=5))
    watch.observe(1.0)
    with pytest.raises(NonFiniteLossError, match=r"after epoch 1, found (nan|inf).*lower"):
        watch.observe(loss)


@pytest.mark.parametrize(("patience", "least"), [(0, 0.0), (3, -0.1), (3, math.nan)])
def test_rules_that_mean_nothing_are_refused(patience: int, least: float) -> None:
    with pytest.raises(StoppingRuleError, match="expected a"):
        StoppingRule(patience, least)


def test_only_d_and_e_give_samples_to_watch() -> None:
    parts = hold_out(SPLIT, 0.1, np.random.default_rng(0))
    assert len(parts.training.told) == 36
    assert len(parts.training.external) == 27
    allowed = np.concatenate([SPLIT.told, SPLIT.external])
    assert set(parts.watched) <= set(allowed)
    kept = np.concatenate([parts.training.told, parts.training.external, parts.watched])
    np.testing.assert_array_equal(np.sort(kept), np.sort(allowed))
    for cohort in ("silent", "told_only", "calibration"):
        np.testing.assert_array_equal(getattr(parts.training, cohort), getattr(SPLIT, cohort))


def test_the_same_seed_sets_the_same_samples_apart() -> None:
    first, again, other = (
        hold_out(SPLIT, 0.2, np.random.default_rng(seed)).watched for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_codes_train_without_e() -> None:
    sizes = SplitSizes(told=10, silent=0, told_only=0, external=0, calibration=5)
    parts = hold_out(derive_split(bytes(32), sizes), 0.2, np.random.default_rng(0))
    assert (len(parts.training.told), len(parts.watched)) == (8, 2)


@pytest.mark.parametrize("share", [0.0, 1.0, math.nan])
def test_shares_that_leave_nothing_are_refused(share: float) -> None:
    with pytest.raises(HoldOutError, match="between 0 and 1"):
        hold_out(SPLIT, share, np.random.default_rng(0))


def test_a_single_member_cannot_be_shared() -> None:
    sizes = SplitSizes(told=1, silent=0, told_only=0, external=4, calibration=5)
    with pytest.raises(HoldOutError, match="lower it"):
        hold_out(derive_split(bytes(32), sizes), 0.2, np.random.default_rng(0))
