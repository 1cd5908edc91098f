"""What a training loop may use: the same in a supervised run and in its replay.

A loop that uses more than this, for example the whole pool, can be supervised but not replayed.
"""

from collections.abc import Iterator
from typing import Protocol

from torch import nn
from torch.optim import Optimizer

from auditkit.evidence.derivation import Schedule
from auditkit.mint.enhanced import EnhancedAuditedModel
from auditkit.mint.objective import Losses
from developer_agent.joint_training import Batch
from schemas import (
    CohortMetrics,
    CohortName,
    Normalisation,
    SessionGrant,
    SessionRequest,
    TrainingConfig,
)


class SupervisionInterface(Protocol):
    """The supervision API; see `developer_agent.supervision`."""

    @property
    def sealed(self) -> bool:
        """True once `seal` was called."""

    @property
    def step_done(self) -> int:
        """Number of steps done."""

    @property
    def normalisation(self) -> Normalisation:
        """Pixel scaling, measured on the samples that M trains on."""

    def enhance(self, model: nn.Module | None = None) -> EnhancedAuditedModel:
        """Build M+ with the nonce's initial weights."""

    def optimiser(self) -> Optimizer:
        """Return the configured optimiser over all of M+."""

    def batches(self) -> Iterator[Batch]:
        """Yield the steps' batches."""

    def losses(self, batch: Batch) -> Losses:
        """Run the mixed batch through M+ and evaluate Eq. 1."""

    def step(self, batch: Batch, losses: Losses) -> None:
        """Note one finished optimisation step."""

    def seal(self) -> dict[CohortName, CohortMetrics]:
        """Finish the training; a replay has no metrics to return."""


class SessionInterface(Protocol):
    """What a loop may know of its session."""

    @property
    def request(self) -> SessionRequest:
        """What was asked for."""

    @property
    def grant(self) -> SessionGrant:
        """What was granted."""

    @property
    def config(self) -> TrainingConfig:
        """What is trained."""

    @property
    def nonce(self) -> bytes:
        """The auditor's 32 random bytes."""

    @property
    def schedule(self) -> Schedule:
        """Every batch of the training."""


class RunInterface(Protocol):
    """What a training loop is called with."""

    @property
    def session(self) -> SessionInterface:
        """The session that it trains under."""

    @property
    def supervision(self) -> SupervisionInterface:
        """What hands out batches and notes what is done with them."""
