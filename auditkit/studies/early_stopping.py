"""Early stopping of trials (aMINT, section 4), on samples set apart for it and on nothing else.

A supervised training runs as many epochs as its declaration says, since the auditor must be able
to derive every step from the nonce. Only the laboratory's trials may stop early. What they watch
is the loss of the training itself, or the task loss on a part of D and E that was set apart
before the first step. Neither C nor test samples may decide when to stop: their scores would no
longer be those of strangers, and every error rate that rests on them would be too good.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from auditkit.evidence.derivation import Indices, Split
from auditkit.mint.errors import NonFiniteLossError
from auditkit.studies.errors import HoldOutError, StoppingRuleError


@dataclass(frozen=True)
class StoppingRule:
    """When to give up waiting for a smaller loss."""

    patience: int
    """Epochs in a row without an improvement after which a training stops."""
    least_improvement: float = 0.0
    """By how much a loss must fall below the best one to count as an improvement."""

    def __post_init__(self) -> None:
        if self.patience < 1:
            raise StoppingRuleError(
                f"expected a patience of at least one epoch, found {self.patience}"
            )
        if not (math.isfinite(self.least_improvement) and self.least_improvement >= 0):
            raise StoppingRuleError(
                f"expected a least improvement of 0 or more, found {self.least_improvement}"
            )


class EarlyStopping:
    """Watches one loss per epoch; smaller is better."""

    def __init__(self, rule: StoppingRule) -> None:
        self.rule = rule
        self.best = math.inf
        self.best_epoch = -1
        """Epoch of the best loss, counted from 0; -1 before the first one."""
        self.epochs = 0

    def observe(self, loss: float) -> bool:
        """Take note of the next epoch's loss, and tell whether the training should stop.

        Raises:
            NonFiniteLossError: the loss is infinite or not a number.

        """
        if not math.isfinite(loss):
            raise NonFiniteLossError(
                f"expected a finite loss after epoch {self.epochs}, found {loss}: the training "
                "has diverged; lower the learning rate and start again"
            )
        if loss < self.best - self.rule.least_improvement:
            self.best, self.best_epoch = loss, self.epochs
        self.epochs += 1
        return self.epochs - 1 - self.best_epoch >= self.rule.patience


@dataclass(frozen=True)
class HoldOut:
    """A split of which a part is watched."""

    training: Split
    """The split without the watched samples."""
    watched: Indices
    """Pool indices, sorted: shown to neither M nor T, and no part of any cohort."""


def hold_out(split: Split, share: float, generator: np.random.Generator) -> HoldOut:
    """Set `share` of D (told) and of E apart, at least one sample of each.

    C, the silent and the told-only samples stay as they are: they are what error rates are
    measured on.

    Raises:
        HoldOutError: the share leaves nothing to watch or nothing to train on.

    """
    if not 0.0 < share < 1.0:
        raise HoldOutError(f"expected a share between 0 and 1, found {share}")
    members, watched_members = _cut(split.told, share, generator)
    strangers, watched_strangers = _cut(split.external, share, generator)
    if not len(members):
        raise HoldOutError(
            f"expected samples of D to train on, found {len(split.told)}, of which the share "
            f"{share} leaves none; lower it"
        )
    return HoldOut(
        replace(split, told=members, external=strangers),
        np.sort(np.concatenate([watched_members, watched_strangers])),
    )


def _cut(indices: Indices, share: float, generator: np.random.Generator) -> tuple[Indices, Indices]:
    count = min(len(indices), max(1, round(share * len(indices))))
    watched = generator.choice(indices, size=count, replace=False)
    return np.setdiff1d(indices, watched), np.sort(watched)
