"""One step of joint training: the same for a supervised run and for a laboratory trial."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from auditkit.mint.enhanced import EnhancedAuditedModel
from auditkit.mint.objective import MEMBER, NON_MEMBER, Losses, Objective
from auditkit.mint.preprocessing import augment, to_inputs
from auditkit.mint.task_losses import margin_labels
from schemas import MintConfig, Normalisation, OptimiserConfig, TrainingConfig


@dataclass(frozen=True)
class RowCounts:
    """How many rows of a batch come from each cohort, in this order."""

    told: int
    silent: int
    told_only: int
    external: int

    @property
    def trained(self) -> int:
        """Leading rows that M trains on."""
        return self.told + self.silent

    @property
    def members(self) -> int:
        """Rows that T is told are members."""
        return self.told + self.told_only


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One step's samples, ready for M+. Rows are told, silent, told only, E."""

    rows: RowCounts
    inputs: Tensor
    """(B, C, H, W) float32, augmented and normalised."""
    labels: Tensor
    """(trained,) int64: classes of the leading rows, on which M trains."""
    membership: Tensor
    """(B - silent,) what T is told, for every row but the silent ones."""
    own_codes: Tensor | None = None
    """(B - silent,) row of each code among the members', where T learns to say codes."""

    @property
    def hidden(self) -> slice:
        """Rows that T does not see."""
        return slice(self.rows.told, self.rows.trained)


def new_batch(
    images: NDArray[np.uint8] | Tensor,
    labels: NDArray[np.int64],
    rows: RowCounts,
    *,
    words: NDArray[np.uint32],
    config: TrainingConfig,
    normalisation: Normalisation,
    own_codes: NDArray[np.int64] | None = None,
) -> Batch:
    """Augment and normalise one batch, and say what T is told about it.

    Where T learns codes, the rows of E come twice, first all in one view and then all in another:
    the second view's augmentation is that of the word with every bit reversed.

    Args:
        images: (B, H, W, C) pixels in row order; the batch is made where they lie.
        labels: (B,) classes in row order.
        rows: what the rows are.
        words: (B,) the augmentation of each row.
        config: the training's.
        normalisation: pixel scaling.
        own_codes: (B - silent,) for every row but the silent ones.
    """
    if own_codes is not None:
        twice = np.arange(len(words) - rows.external, len(words))
        images = images[np.concatenate((np.arange(len(words)), twice))]
        words = np.concatenate((words, ~words[twice]))
        own_codes = np.concatenate((own_codes, own_codes[len(own_codes) - rows.external :]))
        rows = replace(rows, external=2 * rows.external)
    inputs = augment(
        to_inputs(images, normalisation), words, config.augmentation, config.shift_pixels
    )
    device = inputs.device
    membership = torch.full((rows.members + rows.external,), NON_MEMBER, device=device)
    membership[: rows.members] = MEMBER
    return Batch(
        rows=rows,
        inputs=inputs.contiguous(memory_format=torch.channels_last),
        labels=torch.from_numpy(labels[: rows.trained]).to(device),
        membership=membership,
        own_codes=None if own_codes is None else torch.from_numpy(own_codes).to(device),
    )


def new_objective(
    config: MintConfig,
    members: NDArray[np.float32] | None = None,
    device: torch.device | None = None,
) -> Objective:
    """Return the objective of Eq. 1 that a configuration describes.

    Args:
        config: the weights.
        members: (K, b) codes of all members, where T learns to say them.
        device: where M+ runs; None: on the processor.
    """
    codes = None if members is None else torch.from_numpy(members).to(device)
    return Objective(config.task_weight, config.mint_weight, codes)


def new_optimiser(model: nn.Module, config: OptimiserConfig) -> Optimizer:
    """Return the configured optimiser over what can be trained; its weight decay is Eq. 1's L2."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if config.name == "adam":
        return Adam(parameters, lr=config.learning_rate, weight_decay=config.l2)
    return SGD(
        parameters, lr=config.learning_rate, momentum=config.momentum, weight_decay=config.l2
    )


def set_learning_rate(optimiser: Optimizer, rate: float) -> None:
    """Let the next step be taken with this learning rate."""
    for group in optimiser.param_groups:
        group["lr"] = rate


def joint_losses(
    model: EnhancedAuditedModel, objective: Objective, batch: Batch, config: TrainingConfig
) -> Losses:
    """Run a mixed batch through M+ and evaluate Eq. 1.

    With a MINT weight of 0 T sees nothing at all, and M trains alone.

    Raises:
        NonFiniteLossError: the training has diverged.
    """
    told = config.mint.mint_weight > 0
    inputs = batch.inputs if told else batch.inputs[: batch.rows.trained]
    hidden = batch.hidden if told else slice(0, 0)
    device = batch.inputs.device.type
    with precision(config, device), margin_labels(model.audited, batch.labels):
        task_logits, outputs = model.joint(inputs, batch.rows.trained, hidden)
    return objective(task_logits, batch.labels, outputs, batch.membership, batch.own_codes)


def precision(config: TrainingConfig, device: str = "cpu") -> AbstractContextManager[object]:
    """Return the number format that the forward pass is computed in, on a type of device."""
    if config.precision == "bfloat16":
        return torch.autocast(device, dtype=torch.bfloat16)
    return nullcontext()
