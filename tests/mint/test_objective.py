"""The objective starts at its weights, counts classes fairly, and stops a diverging training."""

import math

import pytest
import torch

from auditkit.mint.errors import NonFiniteLossError, WeightsMismatchError
from auditkit.mint.objective import MEMBER, NON_MEMBER, UNTOLD, Objective, membership_loss

TASK = torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
LABELS = torch.tensor([0, 1, 1])
MINT = torch.tensor([1.5, -0.5, 0.3, -2.0])
MEMBERSHIP = torch.tensor([MEMBER, MEMBER, NON_MEMBER, NON_MEMBER])


def test_first_step_has_the_value_of_the_weights() -> None:
    objective = Objective(1.5, 0.7)
    losses = objective(TASK, LABELS, MINT, MEMBERSHIP)
    assert losses.total.item() == pytest.approx(2.2)
    assert losses.task_accuracy == pytest.approx(2 / 3)
    assert losses.mint_accuracy == pytest.approx(0.5)
    later = objective(2 * TASK, LABELS, MINT, MEMBERSHIP)
    assert later.total.item() == pytest.approx(1.5 * later.task / losses.task + 0.7)


def test_loss_is_averaged_per_class() -> None:
    members, others = [1.5, -0.5], [0.3, -2.0, 0.1]
    loss, accuracy = membership_loss(torch.tensor(members + others), torch.tensor([1, 1, 0, 0, 0]))
    expected = (
        sum(math.log1p(math.exp(-x)) for x in members) / 2
        + sum(math.log1p(math.exp(x)) for x in others) / 3
    ) / 2
    assert loss.item() == pytest.approx(expected)
    assert accuracy == pytest.approx((1 / 2 + 1 / 3) / 2)
    repeated, _ = membership_loss(
        torch.tensor(members + others * 4), torch.tensor([1, 1] + [0] * 12)
    )
    assert repeated.item() == pytest.approx(expected)


def test_untold_rows_have_no_part() -> None:
    scores = torch.cat((MINT, torch.tensor([50.0]))).requires_grad_()
    kinds = torch.cat((MEMBERSHIP, torch.tensor([UNTOLD])))
    loss, accuracy = membership_loss(scores, kinds)
    assert (loss.item(), accuracy) == pytest.approx(
        (membership_loss(MINT, MEMBERSHIP)[0].item(), 0.5)
    )
    loss.backward()
    assert scores.grad is not None
    assert scores.grad[-1] == 0


def test_batches_without_one_kind_or_without_any() -> None:
    assert membership_loss(MINT[:2], MEMBERSHIP[:2])[1] == 0.5
    assert membership_loss(MINT, torch.full((4,), UNTOLD))[0].item() == 0


def test_weight_zero_trains_the_audited_model_alone() -> None:
    scores = MINT.clone().requires_grad_()
    losses = Objective(1.0, 0.0)(TASK.clone().requires_grad_(), LABELS, scores, MEMBERSHIP)
    losses.total.backward()
    assert scores.grad is None
    assert (losses.mint, losses.mint_accuracy) == (0.0, 0.0)


def test_divergence_names_the_loss() -> None:
    with pytest.raises(NonFiniteLossError, match=r"task loss.*lower the learning rate"):
        Objective(1.0, 1.0)(TASK * math.nan, LABELS, MINT, MEMBERSHIP)
    with pytest.raises(NonFiniteLossError, match="MINT loss"):
        Objective(1.0, 1.0)(TASK, LABELS, MINT * math.inf, MEMBERSHIP)


def test_normalisers_survive_an_interruption() -> None:
    objective, resumed = Objective(1.0, 1.0), Objective(1.0, 1.0)
    objective(TASK, LABELS, MINT, MEMBERSHIP)
    resumed.restore(objective.state())
    ahead = objective(3 * TASK, LABELS, 2 * MINT, MEMBERSHIP)
    again = resumed(3 * TASK, LABELS, 2 * MINT, MEMBERSHIP)
    assert torch.equal(ahead.total, again.total)
    with pytest.raises(WeightsMismatchError):
        resumed.restore({"other": 1.0})
