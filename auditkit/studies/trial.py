"""One trial of the laboratory: a joint training as the configuration says, and nothing around it.

The split, the initial weights, the batches and the augmentation follow from a nonce exactly as in
a supervised run, so that what a trial measures is what a supervised run would give. There is no
session, no log and no auditor; nothing that a trial shows is evidence.
"""

import resource
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from auditkit.data.manifest import Manifest
from auditkit.data.pools import Pool
from auditkit.evidence.derivation import (
    Indices,
    Schedule,
    Split,
    StepPlan,
    augmentation_words,
    derive_split,
    generator_seed,
    initialisation_seed,
    learning_rate,
)
from auditkit.evidence.membership_codes import (
    SECRET_BYTES,
    Codes,
    SessionCodes,
    membership_codes,
)
from auditkit.mint import steps
from auditkit.mint.enhanced import EnhancedAuditedModel
from auditkit.mint.evaluation import Answers, ask, score_cohort
from auditkit.mint.objective import Losses
from auditkit.mint.preprocessing import normalisation_of
from auditkit.mint.scores import COHORT_NAMES, CohortScores
from auditkit.studies.early_stopping import EarlyStopping, StoppingRule
from auditkit.studies.errors import DeviceMissingError
from schemas import CohortName, Normalisation, SplitSizes, TrainingConfig

Device = Literal["cpu", "cuda"]

SEED_MODULUS = 2**63
# Linux counts the largest resident size in KiB, macOS in bytes.
RESIDENT_UNIT = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True)
class TrialProgress:
    """One finished epoch, for display."""

    epoch: int
    """Counted from 1."""
    epochs: int
    task_loss: float
    mint_loss: float
    seconds: float


@dataclass(frozen=True)
class Trial:
    """One trained M+ and everything that is needed to measure it."""

    config: TrainingConfig
    pool: Pool
    test: Pool
    split: Split
    nonce: bytes
    normalisation: Normalisation
    model: EnhancedAuditedModel
    codes: SessionCodes | None
    """What T was taught, where it says codes."""
    secret: bytes | None
    """What the codes follow from."""
    epochs: int
    """Epochs done; fewer than configured where a stopping rule ended the training."""
    seconds: float
    """Wall time of the training alone."""
    peak_bytes: int
    """Largest resident size of this process so far."""

    def indices(self, cohort: CohortName) -> Indices:
        """Return the rows of a cohort in its pool."""
        if cohort == "test":
            return np.arange(self.test.size)
        found: Indices = getattr(self.split, cohort)
        return found

    def images(self, cohort: CohortName) -> NDArray[np.uint8]:
        """Return the pixels (N, H, W, C) of a cohort."""
        return (self.test if cohort == "test" else self.pool).images[self.indices(cohort)]

    def labels(self, cohort: CohortName) -> NDArray[np.int64]:
        """Return the classes (N,) of a cohort."""
        return (self.test if cohort == "test" else self.pool).labels[self.indices(cohort)]

    def own_codes(self, cohort: CohortName) -> Codes:
        """Return the own code of every sample of a cohort, told or not, (N, b).

        Raises:
            CodeSecretError: T says no codes.
        """
        of = self.test if cohort == "test" else self.pool
        leaves = Manifest(of, self.nonce).leaves
        length = self.config.mint.code_length
        return membership_codes(self.secret or b"", leaves, self.indices(cohort), length)

    def ask(self, images: NDArray[np.uint8]) -> Answers:
        """Run M+ on images (N, H, W, C)."""
        return ask(self.model, images, self.normalisation)

    def scores(self) -> dict[CohortName, CohortScores]:
        """Score every cohort that has samples, as a supervised run does when it is sealed."""
        own = {} if self.codes is None else vars(self.codes)
        return {
            cohort: score_cohort(
                self.model,
                self.images(cohort),
                self.labels(cohort),
                self.normalisation,
                members=None if self.codes is None else self.codes.members,
                own=own.get(cohort),
            )
            for cohort in COHORT_NAMES
            if len(self.indices(cohort))
        }


def train_trial(
    config: TrainingConfig,
    pool: Pool,
    test: Pool,
    sizes: SplitSizes,
    nonce: bytes,
    *,
    split: Split | None = None,
    plans: Sequence[StepPlan] | None = None,
    secret: bytes | None = None,
    model: nn.Module | None = None,
    stopping: StoppingRule | None = None,
    device: Device = "cpu",
    on_epoch: Callable[[TrialProgress], None] = lambda _progress: None,
) -> Trial:
    """Train M and T jointly, or M alone where the MINT weight is 0.

    Args:
        config: the training; its thread count is taken, its intervals mean nothing here.
        pool: labelled images that the nonce splits.
        test: fresh images.
        sizes: of the cohorts.
        nonce: what everything random follows from.
        split: the cohorts, where they are not the nonce's own.
        plans: the steps, where they are not the schedule's own; epochs in order.
        secret: the codes', 32 bytes; None: drawn, where codes are taught.
        model: the developer's own M, for an architecture named `custom:<name>`.
        stopping: ends the training early, by its own mean loss of an epoch and nothing else.
        device: where to train and to measure; `cuda` keeps the whole pool there.
        on_epoch: told about each finished epoch.

    Raises:
        DeviceMissingError: there is no such device.
        NonFiniteLossError: the training has diverged.
        MintError: the model cannot be built.
        EvidenceError: codes of that length cannot be made.
    """
    _check_device(device)
    torch.set_num_threads(config.threads)
    split = split or derive_split(nonce, sizes)
    if plans is None:
        schedule = Schedule(
            nonce, split, config.batch_size, config.external_batch_size, config.epochs
        )
        plans = list(schedule.steps())
    codes = None
    if config.mint.evidence == "codes":
        secret = secret or secrets.token_bytes(SECRET_BYTES)
        leaves = Manifest(pool, nonce).leaves
        codes = SessionCodes.derive(secret, leaves, split, config.mint.code_length)
    enhanced = EnhancedAuditedModel.build(config, initialisation_seed(nonce), model)
    enhanced.to(device=torch.device(device)).to(memory_format=torch.channels_last)
    training = _Training(
        config,
        pool,
        nonce,
        plans=plans,
        model=enhanced,
        members=None if codes is None else codes.members,
        own_codes=None if codes is None else codes.rows(split),
        device=torch.device(device),
    )
    started = time.monotonic()
    epochs = training.run(None if stopping is None else EarlyStopping(stopping), on_epoch)
    return Trial(
        config=config,
        pool=pool,
        test=test,
        split=split,
        nonce=nonce,
        normalisation=training.normalisation,
        model=enhanced.eval(),
        codes=codes,
        secret=secret,
        epochs=epochs,
        seconds=time.monotonic() - started,
        peak_bytes=peak_bytes(),
    )


def _check_device(device: Device) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        raise DeviceMissingError(
            "expected a GPU that torch can use, found none; train on the processor, or install the "
            "GPU's driver and a torch that was built for it"
        )


def peak_bytes() -> int:
    """Return the largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RESIDENT_UNIT


class _Training:
    def __init__(
        self,
        config: TrainingConfig,
        pool: Pool,
        nonce: bytes,
        *,
        plans: Sequence[StepPlan],
        model: EnhancedAuditedModel,
        members: Codes | None,
        own_codes: Indices | None,
        device: torch.device,
    ) -> None:
        self._config = config
        self._pool = pool
        self._nonce = nonce
        self._plans = plans
        self._model = model
        self._members = members
        self._own_codes = own_codes
        self._device = device
        self._images = _pixels(pool, device)
        trained = np.unique(np.concatenate([plan.rows[: plan.trained] for plan in plans]))
        self.normalisation = normalisation_of(pool.images[trained])

    def run(self, stopping: EarlyStopping | None, on_epoch: Callable[[TrialProgress], None]) -> int:
        config, started, done = self._config, time.monotonic(), 0
        objective = steps.new_objective(config.mint, self._members, self._device)
        optimiser = steps.new_optimiser(self._model, config.optimiser)
        for epoch, plans in groupby(self._plans, key=lambda plan: plan.epoch):
            words = augmentation_words(self._nonce, epoch, self._pool.size)
            losses: list[Losses] = []
            for plan in plans:
                rate = learning_rate(config.optimiser, plan.step, len(self._plans))
                steps.set_learning_rate(optimiser, rate)
                torch.manual_seed((generator_seed(self._nonce) + plan.step) % SEED_MODULUS)
                self._model.train()
                found = steps.joint_losses(self._model, objective, self._batch(plan, words), config)
                optimiser.zero_grad(set_to_none=True)
                found.total.backward()  # type: ignore[no-untyped-call] # torch
                optimiser.step()
                losses.append(found)
            done = epoch + 1
            task = float(np.mean([loss.task for loss in losses]))
            mint = float(np.mean([loss.mint for loss in losses]))
            on_epoch(TrialProgress(done, config.epochs, task, mint, time.monotonic() - started))
            if stopping is not None and stopping.observe(
                float(np.mean([loss.total.item() for loss in losses]))
            ):
                break
        return done

    def _batch(self, plan: StepPlan, words: NDArray[np.uint32]) -> steps.Batch:
        counts = steps.RowCounts(
            len(plan.told), len(plan.silent), len(plan.told_only), len(plan.external)
        )
        return steps.new_batch(
            self._images[plan.rows],
            self._pool.labels[plan.rows],
            counts,
            words=words[plan.rows],
            config=self._config,
            normalisation=self.normalisation,
            own_codes=None if self._own_codes is None else self._own_codes[plan.seen],
        )


def _pixels(pool: Pool, device: torch.device) -> NDArray[np.uint8] | Tensor:
    # On an accelerator the pixels stay as bytes, so that a step moves no images at all.
    return pool.images if device.type == "cpu" else torch.from_numpy(pool.images).to(device)
