"""Joint training step by step: what a supervised run and its replay have in common.

Whatever decides the outcome of a step is here, so that both run the same code. Where samples come
from, and what is recorded, is left to the user of this module.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from auditkit.evidence.derivation import (
    Indices,
    Schedule,
    StepPlan,
    augmentation_words,
    generator_seed,
    initialisation_seed,
    learning_rate,
)
from auditkit.evidence.membership_codes import SessionCodes
from auditkit.mint import steps
from auditkit.mint.enhanced import EnhancedAuditedModel
from auditkit.mint.objective import NO_CODE, Losses, Objective
from auditkit.mint.split_training import HeldStep, split_losses
from developer_agent.errors import AgentError
from developer_agent.state import dump_state, restore_state
from schemas import Normalisation, TrainingConfig

SEED_MODULUS = 2**63  # of torch's generators
SHORT_SEED_MODULUS = 2**32  # of numpy's


class SupervisionOrderError(AgentError):
    """The calls of the supervision API came in the wrong order."""


@dataclass(frozen=True, kw_only=True)
class Batch(steps.Batch):
    """One step's samples (see `auditkit.mint.steps.Batch`) and the plan that they follow."""

    plan: StepPlan


class Samples(Protocol):
    """Where a training gets its samples from."""

    @property
    def normalisation(self) -> Normalisation:
        """Pixel scaling, measured on the samples that M trains on."""

    def pick(self, rows: Indices) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Return pixels (B, H, W, C) and classes (B,) of these samples of the pool."""


class MintHolder(Protocol):
    """Whoever holds T where this process does not (`mint.custody = "auditor"`)."""

    def train(self, step: int, maps: Sequence[Tensor]) -> HeldStep:
        """Let T train on one step's activations, one map per tap; return gradients for M."""


class JointTraining:
    """M+, its optimiser and its objective, and every step of one schedule."""

    def __init__(
        self, config: TrainingConfig, nonce: bytes, schedule: Schedule, samples: Samples
    ) -> None:
        self._config = config
        self._nonce = nonce
        self._schedule = schedule
        self._samples = samples
        self._held = config.mint.custody == "auditor"
        self._holder: MintHolder | None = None
        self._objective = (
            Objective(config.mint.task_weight, mint_weight=0.0)
            if self._held
            else steps.new_objective(config.mint)
        )
        self._enhanced: EnhancedAuditedModel | None = None
        self._optimiser: Optimizer | None = None
        self._code_rows: Indices | None = None

    @property
    def model(self) -> EnhancedAuditedModel:
        """M+.

        Raises:
            SupervisionOrderError: it was not built yet.
        """
        if self._enhanced is None:
            raise SupervisionOrderError("call `enhance` first: there is no model yet")
        return self._enhanced

    @property
    def ready(self) -> bool:
        """Whether there is an optimiser, so that a step can be taken."""
        return self._optimiser is not None

    def enhance(self, model: nn.Module | None = None) -> EnhancedAuditedModel:
        """Build M+ with the nonce's initial weights; `model` is the developer's own M, if any."""
        self._enhanced = EnhancedAuditedModel.build(
            self._config, initialisation_seed(self._nonce), model, head=not self._held
        )
        self._enhanced.to(memory_format=torch.channels_last)
        return self._enhanced

    def optimiser(self) -> Optimizer:
        """Return the configured optimiser over all of M+; its weight decay is the L2 of Eq. 1."""
        self._optimiser = steps.new_optimiser(self.model, self._config.optimiser)
        return self._optimiser

    def teach(self, codes: SessionCodes) -> None:
        """Let T learn these membership codes."""
        self._code_rows = codes.rows(self._schedule.split)
        self._objective = steps.new_objective(self._config.mint, codes.members)

    def entrust(self, holder: MintHolder) -> None:
        """Say who holds T, where this process does not."""
        self._holder = holder

    def plans(self, after: int) -> Iterator[tuple[StepPlan, NDArray[np.uint32]]]:
        """Yield the steps that follow step `after`, each with the augmentation of its epoch."""
        words = np.empty(0, dtype=np.uint32)
        epoch = -1
        for plan in self._schedule.steps(after=after):
            if plan.epoch != epoch:
                epoch = plan.epoch
                words = augmentation_words(self._nonce, epoch, self._schedule.split.size)
            yield plan, words

    def prepare(self, plan: StepPlan, words: NDArray[np.uint32]) -> Batch:
        """Make everything ready for one step, and return its batch.

        Raises:
            SupervisionOrderError: there is no optimiser yet.
        """
        if self._optimiser is None:
            raise SupervisionOrderError("call `optimiser` first")
        steps.set_learning_rate(self._optimiser, self.rate(plan.step))
        self._seed(generator_seed(self._nonce) + plan.step)
        self.model.train()
        images, labels = self._samples.pick(plan.rows)
        batch = steps.new_batch(
            images,
            labels,
            steps.RowCounts(
                len(plan.told), len(plan.silent), len(plan.told_only), len(plan.external)
            ),
            words=words[plan.rows],
            config=self._config,
            normalisation=self._samples.normalisation,
            own_codes=self._own_codes(plan),
        )
        return Batch(**vars(batch), plan=plan)

    def losses(self, batch: Batch) -> Losses:
        """Run the mixed batch through M+ and evaluate Eq. 1.

        Raises:
            NonFiniteLossError: the training has diverged.
            SupervisionOrderError: T is held elsewhere, and nobody has said by whom.
        """
        if not self._held:
            return steps.joint_losses(self.model, self._objective, batch, self._config)
        if self._holder is None:
            raise SupervisionOrderError(
                "mint.custody is 'auditor' and the MINT Model's holder is not known; run the loop "
                "under `developer_agent.supervised_run.supervised`, which asks the auditor's server"
            )
        ask = partial(self._holder.train, batch.plan.step)
        return split_losses(self.model, self._objective, batch, self._config, ask)

    def rate(self, step: int) -> float:
        """Return the learning rate of one step."""
        return learning_rate(self._config.optimiser, step, self._schedule.total_steps)

    def state(self, step: int) -> bytes:
        """Return the full training state after `step` steps.

        Raises:
            SupervisionOrderError: there is no model, or no optimiser yet.
        """
        return dump_state(step, self.model, self._ready_optimiser(), self._objective)

    def restore(self, data: bytes) -> int:
        """Take over a full training state, and return the number of steps done.

        Raises:
            SupervisionOrderError: there is no model, or no optimiser yet.
            StateFileError: the file is damaged, or of another training.
        """
        return restore_state(data, self.model, self._ready_optimiser(), self._objective)

    def _own_codes(self, plan: StepPlan) -> Indices | None:
        """Return the row of each seen sample's code; it also says that E comes in two views."""
        if self._code_rows is not None:
            return self._code_rows[plan.seen]
        if self._held and self._config.mint.evidence == "codes":
            return np.full(len(plan.seen), NO_CODE, dtype=np.int64)  # known to T's holder alone
        return None

    def _ready_optimiser(self) -> Optimizer:
        if self._optimiser is None:
            raise SupervisionOrderError("call `optimiser` before `batches`")
        return self._optimiser

    @staticmethod
    def _seed(seed: int) -> None:
        """Seed every generator for one step, so that no generator's state must ever be saved."""
        torch.manual_seed(seed % SEED_MODULUS)
        # The built-in loop uses neither of these; a developer's own loop may.
        random.seed(seed % SEED_MODULUS)
        np.random.seed(seed % SHORT_SEED_MODULUS)
