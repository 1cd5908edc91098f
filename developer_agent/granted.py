"""What was granted, and what follows from it alone: the same for a training and for its replay."""

from dataclasses import dataclass
from functools import cached_property

from auditkit.evidence.derivation import Schedule, derive_split
from schemas import SessionGrant, SessionRequest, TrainingConfig


@dataclass(frozen=True, kw_only=True)
class GrantedTraining:
    """What a training loop may know of its session, without anything of the developer's."""

    request: SessionRequest
    grant: SessionGrant

    @property
    def config(self) -> TrainingConfig:
        """What is trained."""
        return self.request.config

    @property
    def nonce(self) -> bytes:
        """The auditor's 32 random bytes."""
        return bytes.fromhex(self.grant.nonce)

    @cached_property
    def schedule(self) -> Schedule:
        """Every batch of the training. Asked for in every step, and derived once."""
        return Schedule(
            nonce=self.nonce,
            split=derive_split(self.nonce, self.grant.split),
            batch_size=self.config.batch_size,
            external_batch_size=self.config.external_batch_size,
            epochs=self.config.epochs,
        )
