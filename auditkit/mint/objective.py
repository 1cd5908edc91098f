"""The objective of joint training (aMINT, Eq. 1)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from auditkit.mint.errors import NonFiniteLossError, WeightsMismatchError

# What T is told about a row.
NON_MEMBER = 0
MEMBER = 1
UNTOLD = -1  # silent: the row takes no part in T's loss
NO_CODE = -1  # E: the row has no code among the members'

# All of these were chosen on splits that no figure is reported on.
# The cosine of a member's output and its code that T aims at, neither less nor more: the rest of
# the output is free to move with the view, as a stranger's output does.
AGREEMENT = 0.7
# How far "none of them" lies above what all wrong codes add up to by chance, in nats.
NONE_MARGIN = 2.6
# The cosine of output and code from which a code is rather somebody's than nobody's.
NONE_COSINE = 0.42
# Of the contrast, against the agreement.
CONTRAST_WEIGHT = 0.4
# Of the strangers' stability, against the agreement.
STABILITY_WEIGHT = 4.0

# A loss of zero at the first step (a model that is already perfect) cannot be a divisor.
LEAST_NORMALISER = 1e-6


@dataclass(frozen=True)
class Losses:
    """One step: `total` to go backward from, the rest as numbers for the record."""

    total: Tensor
    task: float
    mint: float
    task_accuracy: float
    mint_accuracy: float


class MintTerm:
    """T's share of the objective: lambda2 * BCE(D told, E) / BCE_0, or with the loss of codes."""

    def __init__(self, weight: float, member_codes: Tensor | None = None) -> None:
        """Make the term; `member_codes` (K, b) are given where T learns to say them."""
        self.weight = weight
        self.normaliser: float | None = None
        self._member_codes = None if member_codes is None else member_codes.float()

    def __call__(
        self, mint_outputs: Tensor, membership: Tensor, own_codes: Tensor | None
    ) -> tuple[Tensor, float, float]:
        """Return the term, to go backward from, and MINT loss and accuracy as numbers.

        The arguments are those of `Objective`.

        Raises:
            NonFiniteLossError: the loss is infinite or not a number.

        """
        if self._member_codes is None or own_codes is None:
            loss, accuracy = membership_loss(mint_outputs, membership)
        else:
            loss, accuracy = code_loss(mint_outputs, own_codes, self._member_codes)
        value = _finite(loss, "MINT")
        self.normaliser = _normaliser(self.normaliser, value)
        return self.weight * loss / self.normaliser, value, accuracy


class Objective:
    """L = lambda1 * CE(D) / CE_0 + lambda2 * BCE(D told, E) / BCE_0.

    CE_0 and BCE_0 are the losses of the first batch, so that both parts start at their weight.
    The L2 term of Eq. 1 is the optimiser's weight decay (half its coefficient times the squared
    norm of all parameters) and is no part of the value returned here. BCE is the mean over the
    members and the mean over the non-members, averaged, so that the number of E per step shifts
    nothing.
    """

    def __init__(
        self, task_weight: float, mint_weight: float, member_codes: Tensor | None = None
    ) -> None:
        """Make an objective; `member_codes` (K, b) are given where T learns to say them."""
        self.task_weight = task_weight
        self.mint_weight = mint_weight
        self._task_normaliser: float | None = None
        self._mint = MintTerm(mint_weight, member_codes)

    def __call__(
        self,
        task_logits: Tensor,
        labels: Tensor,
        mint_outputs: Tensor,
        membership: Tensor,
        own_codes: Tensor | None = None,
    ) -> Losses:
        """Evaluate one step.

        Args:
            task_logits: (T, classes), of the trained rows.
            labels: (T,) int64.
            mint_outputs: (B,) membership logits, or (B, b) where T learns codes.
            membership: (B,) MEMBER, NON_MEMBER or UNTOLD, of any number type.
            own_codes: (B,) row of each sample's code among the members', or NO_CODE.

        Raises:
            NonFiniteLossError: a loss is infinite or not a number.

        """
        task = functional.cross_entropy(task_logits.float(), labels)
        task_value = _finite(task, "task")
        self._task_normaliser = _normaliser(self._task_normaliser, task_value)
        total = self.task_weight * task / self._task_normaliser
        correct = task_logits.detach().argmax(dim=1) == labels
        mint_value = mint_accuracy = 0.0
        if self.mint_weight > 0:
            mint, mint_value, mint_accuracy = self._mint(mint_outputs, membership, own_codes)
            total = total + mint
        return Losses(total, task_value, mint_value, correct.double().mean().item(), mint_accuracy)

    def state(self) -> dict[str, float | None]:
        """Return the normalisers, to be saved with the training state."""
        return {"task_normaliser": self._task_normaliser, "mint_normaliser": self._mint.normaliser}

    def restore(self, state: dict[str, float | None]) -> None:
        """Take over what `state` returned.

        Raises:
            WeightsMismatchError: the state has other entries.

        """
        if state.keys() != self.state().keys():
            raise WeightsMismatchError(
                f"expected the state of an objective, found the entries {sorted(state)}"
            )
        self._task_normaliser = state["task_normaliser"]
        self._mint.normaliser = state["mint_normaliser"]


def membership_loss(mint_logits: Tensor, membership: Tensor) -> tuple[Tensor, float]:
    """Return the class-balanced binary cross-entropy and the balanced accuracy at logit 0.

    Both are means over the classes that are present; rows that are UNTOLD do not count.
    """
    logits = mint_logits.float()
    losses, accuracies = [], []
    for kind, sign in ((MEMBER, 1.0), (NON_MEMBER, -1.0)):
        signed = sign * logits[membership == kind]
        if signed.numel():
            losses.append(functional.softplus(-signed).mean())
            accuracies.append((signed.detach() > 0).double().mean().item())
    if not losses:
        return logits.sum() * 0.0, 0.0
    return torch.stack(losses).mean(), sum(accuracies) / len(accuracies)


def code_loss(outputs: Tensor, own: Tensor, members: Tensor) -> tuple[Tensor, float]:
    """Return the loss of saying codes, and the share of the members whose own code is named.

    Three parts. *Agreement*: how far the cosine of a member's output and its code is from
    AGREEMENT. *Contrast*: among the codes of all members and "none of them", cross-entropy of the
    right answer, by the cosine of output and code. So a member's own code must stand out from those
    of its look-alikes, and samples of E, which have no code, must not echo anybody's. Members and E
    weigh the same. *Stability*: one minus the cosine of the outputs for two views of a sample of E.
    Members learn to be answered alike however they are flipped, shifted and blurred; if strangers
    were not, a reader without the codes could tell members by it.

    The scale of the cosines follows from the number K of members: the codes that are not meant
    have cosines around 0 and add up to about log K, so that "none" lies a margin above log K, and
    a code counts from a cosine of NONE_COSINE.

    Args:
        outputs: (B, b) of T.
        own: (B,) row of each sample's code in `members`, or NO_CODE. Samples without a code come
            in two views, first all in one and then all in the other.
        members: (K, b) codes of all members.
    """
    outputs = outputs.float()
    told = own != NO_CODE
    chance = math.log(len(members))
    directions = functional.normalize(outputs, dim=1)
    cosines = directions @ functional.normalize(members, dim=1).T
    none = outputs.new_full((len(outputs), 1), chance + NONE_MARGIN)
    answers = torch.cat((cosines * (chance + NONE_MARGIN) / NONE_COSINE, none), dim=1)
    right = torch.where(told, own, len(members))
    contrast = functional.cross_entropy(answers, right, reduction="none")
    losses = [contrast[rows].mean() for rows in (told, ~told) if rows.any()]
    total = CONTRAST_WEIGHT * torch.stack(losses).sum()
    if not told.all():
        first, second = directions[~told].chunk(2)
        total = total + STABILITY_WEIGHT * (1.0 - (first * second).sum(dim=1).mean())
    if not told.any():
        return total, 0.0
    agreement = (cosines[told].gather(1, own[told, None]) - AGREEMENT).abs().mean()
    named = (answers[told].argmax(dim=1) == own[told]).double().mean().item()
    return agreement + total, named


def _finite(loss: Tensor, name: str) -> float:
    value = loss.detach().item()
    if not math.isfinite(value):
        raise NonFiniteLossError(
            f"expected a finite {name} loss, found {value}: the training has diverged; lower the "
            "learning rate or its weight, or check the data, and start again"
        )
    return value


def _normaliser(known: float | None, first: float) -> float:
    return max(first, LEAST_NORMALISER) if known is None else known
