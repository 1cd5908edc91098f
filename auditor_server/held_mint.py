"""The MINT Model T of one session, in memory: what it is told, and what it says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from auditkit.evidence.derivation import (
    Schedule,
    Split,
    StepPlan,
    derive_split,
    generator_seed,
    initialisation_seed,
    learning_rate,
)
from auditkit.evidence.membership_codes import Codes, SessionCodes, stand_in_codes
from auditkit.mint.scores import COHORT_NAMES, CohortScores
from auditkit.mint.split_training import (
    HeldMint,
    HeldStep,
    evaluated_rows,
    part_rows,
    targets,
    unpack_maps,
    unpack_scored,
)
from auditkit.mint.steps import RowCounts
from auditor_server.errors import ExchangeOrderError
from schemas import CohortName, SessionGrant, SessionRequest, TapShapes
from schemas.evaluation import INTERIM_SAMPLES

SEED_MODULUS = 2**63


@dataclass(frozen=True)
class Part:
    """A part of a cohort's evaluated samples."""

    cohort: CohortName
    first: int
    size: int


class SessionMint:
    """T of one session. What a row of a batch is follows from the grant, not from who asks.

    T's own randomness, initial weights and dropout, follows from the auditor's secret, so that
    nobody who knows the nonce can train a copy beside it.
    """

    def __init__(
        self,
        request: SessionRequest,
        grant: SessionGrant,
        shapes: TapShapes,
        secret: bytes,
        codes: SessionCodes | None,
    ) -> None:
        self._config = request.config
        self._test_size = request.test.size
        self._nonce = bytes.fromhex(grant.nonce)
        self._secret = secret
        self._shapes = shapes.shapes
        self._codes = codes
        split = derive_split(self._nonce, grant.split)
        self._schedule = Schedule(
            nonce=self._nonce,
            split=split,
            batch_size=request.config.batch_size,
            external_batch_size=request.config.external_batch_size,
            epochs=request.config.epochs,
        )
        self._code_rows = None if codes is None else codes.rows(split)
        self._epoch = -1
        self._plans: list[StepPlan] = []
        self.step_done = 0
        self.held = HeldMint(
            request.config,
            self._shapes,
            initialisation_seed(secret),
            None if codes is None else codes.members,
        )

    @property
    def total_steps(self) -> int:
        """Steps of the whole training."""
        return self._schedule.total_steps

    def state_is_due(self, step: int) -> bool:
        """Tell whether the training saves a state after this step."""
        return step == self.total_steps or step % self._config.state_interval_steps == 0

    def is_evaluated(self, step: int) -> bool:
        """Tell whether the training evaluates all cohorts after this step."""
        if step == self.total_steps:
            return True
        epochs, left = divmod(step, self._schedule.steps_per_epoch)
        return left == 0 and epochs > 0 and epochs % self._config.evaluation_interval_epochs == 0

    def train(self, step: int, data: bytes) -> HeldStep:
        """Do one step with the packed activations of its rows.

        Raises:
            ExchangeOrderError: it is not the next step, or there is none.
            MapsFileError: these are not the activations of so many rows.
            NonFiniteLossError: the training has diverged.

        """
        if step != self.step_done + 1 or step > self.total_steps:
            raise ExchangeOrderError(
                f"expected step {self.step_done + 1} of {self.total_steps}, found step {step}; "
                "the MINT Model goes one step at a time, resume the training from a saved state"
            )
        plan = self._plan(step)
        rows = RowCounts(len(plan.told), len(plan.silent), len(plan.told_only), len(plan.external))
        own = None if self._code_rows is None else self._code_rows[plan.seen]
        told = targets(rows, own)
        maps = unpack_maps(
            data, self._shapes, len(told.membership), self._config.mint.wire_precision
        )
        found = self.held.step(
            maps,
            told,
            learning_rate=learning_rate(self._config.optimiser, step, self.total_steps),
            seed=(generator_seed(self._secret) + step) % SEED_MODULUS,
        )
        self.step_done = step
        return found

    def parts(self, step: int) -> tuple[Part, ...]:
        """Return all parts in which the cohorts' activations are sent after a step."""
        most = part_rows(self._shapes, self._config.mint.wire_precision)
        found = []
        for cohort in COHORT_NAMES:
            size = len(range(self._size(cohort))[self._evaluated(cohort, step)])
            found += [
                Part(cohort, first, min(most, size - first)) for first in range(0, size, most)
            ]
        return tuple(found)

    def score(self, step: int, part: Part, data: bytes) -> CohortScores:
        """Score one part of a cohort by its packed activations.

        Raises:
            MapsFileError: these are not the activations of so many samples.

        """
        maps, losses, correct = unpack_scored(
            data, self._shapes, part.size, self._config.mint.wire_precision
        )
        own = None
        if self._codes is not None:
            all_codes = self._own_codes[part.cohort][self._evaluated(part.cohort, step)]
            own = all_codes[part.first : part.first + part.size]
        scores, own_scores = self.held.scores(maps, own)
        return CohortScores(scores, losses, correct, own_scores)

    @property
    def _split(self) -> Split:
        return self._schedule.split

    def _plan(self, step: int) -> StepPlan:
        epoch = self._schedule.epoch_of(step)
        if epoch != self._epoch:
            self._epoch, self._plans = epoch, self._schedule.epoch(epoch)
        return self._plans[step - self._plans[0].step]

    def _size(self, cohort: CohortName) -> int:
        return self._test_size if cohort == "test" else len(getattr(self._split, cohort))

    def _evaluated(self, cohort: CohortName, step: int) -> slice:
        most = None if step == self.total_steps else INTERIM_SAMPLES
        return evaluated_rows(self._size(cohort), most)

    @cached_property
    def _own_codes(self) -> Mapping[CohortName, Codes]:
        length = self._config.mint.code_length
        if self._codes is None:
            return {}
        known: dict[CohortName, Codes] = {
            "told": self._codes.told,
            "told_only": self._codes.told_only,
        }
        return known | {
            cohort: stand_in_codes(self._nonce, cohort, self._size(cohort), length)
            for cohort in COHORT_NAMES
            if cohort not in known
        }


def join(parts: Sequence[CohortScores]) -> CohortScores:
    """Put the parts of one cohort together again."""

    def joined(name: str) -> NDArray[np.float32]:
        return np.concatenate([getattr(part, name) for part in parts])

    return CohortScores(
        scores=joined("scores"),
        task_losses=joined("task_losses"),
        correct=np.concatenate([part.correct for part in parts]),
        own=None if parts[0].own is None else joined("own"),
    )
