"""The supervision API in a replay: the same steps from the same state, and nothing recorded.

A training loop cannot tell these from the real thing by what they do, except that `batches` begins
where the replay begins and ends where it ends. Three replays exist here, one class each: the
initial state, one segment, and the scores of C.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn
from torch.optim import Optimizer

from auditkit.evidence.derivation import Indices
from auditkit.evidence.membership_codes import SessionCodes, stand_in_codes
from auditkit.mint.enhanced import EnhancedAuditedModel
from auditkit.mint.evaluation import score_cohort
from auditkit.mint.objective import Losses
from auditkit.mint.scores import CohortScores
from developer_agent.errors import AgentError
from developer_agent.granted import GrantedTraining
from developer_agent.joint_training import Batch, JointTraining, Samples, SupervisionOrderError
from developer_agent.loop_interface import RunInterface
from developer_agent.segment_package import OpenedSamples
from developer_agent.state import (
    Parameters,
    StateFileError,
    distance,
    parameters_of,
    state_digest,
)
from schemas import (
    CohortMetrics,
    CohortName,
    Normalisation,
    ReplaySegment,
)

Loop = Callable[[RunInterface], object]


class ReplayEndedEarlyError(AgentError):
    """A training loop came to its end before the end of what was to be executed."""


class CodesNeededError(AgentError):
    """T learned codes, and the replay has none."""


@dataclass(frozen=True)
class PackageSamples:
    """The opened samples of a package, as a training gets them."""

    opened: OpenedSamples
    normalisation: Normalisation

    def pick(self, rows: Indices) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Return pixels (B, H, W, C) and classes (B,) of these samples of the pool."""
        return self.opened.pick(rows)


class ReplaySupervision:
    """Common to all replays: everything of the supervision API, over no steps at all."""

    def __init__(
        self,
        session: GrantedTraining,
        samples: Samples,
        codes: SessionCodes | None,
        *,
        first: int = 0,
        last: int = 0,
    ) -> None:
        """Prepare to execute the steps after `first`, up to and including `last`."""
        self._session = session
        self._samples = samples
        self._codes = codes
        self._first, self._last = first, last
        self._step = first
        self._sealed = False
        self._training = JointTraining(session.config, session.nonce, session.schedule, samples)

    @property
    def sealed(self) -> bool:
        """True once `seal` was called."""
        return self._sealed

    @property
    def step_done(self) -> int:
        """Number of steps done."""
        return self._step

    @property
    def normalisation(self) -> Normalisation:
        """Pixel scaling of the training."""
        return self._samples.normalisation

    def enhance(self, model: nn.Module | None = None) -> EnhancedAuditedModel:
        """Build M+ with the nonce's initial weights; `model` is the developer's own M, if any."""
        return self._training.enhance(model)

    def optimiser(self) -> Optimizer:
        """Return the configured optimiser over all of M+."""
        return self._training.optimiser()

    def batches(self) -> Iterator[Batch]:
        """Yield the batches of the steps to execute.

        Raises:
            CodesNeededError: T learned codes, and there are none.
            SupervisionOrderError: the calls came in the wrong order.
        """
        if not self._training.ready:
            raise SupervisionOrderError("call `optimiser` before `batches`")
        if self._session.config.mint.evidence == "codes":
            self._teach()
        self._begin()
        for plan, words in self._training.plans(after=self._first):
            if plan.step > self._last:
                return
            yield self._training.prepare(plan, words)
            if self._step != plan.step:
                raise SupervisionOrderError(
                    f"batch {plan.step} was handed out and `step` was not called for it"
                )

    def losses(self, batch: Batch) -> Losses:
        """Run the mixed batch through M+ and evaluate Eq. 1."""
        return self._training.losses(batch)

    def step(self, batch: Batch, losses: Losses) -> None:  # noqa: ARG002 - nothing is recorded
        """Note one finished optimisation step."""
        self._step = batch.plan.step
        self._stepped()

    def seal(self) -> dict[CohortName, CohortMetrics]:
        """End the replay; there are no metrics.

        Raises:
            ReplayEndedEarlyError: steps are left to execute.
        """
        if self._step != self._last:
            raise ReplayEndedEarlyError(
                f"the training loop ended after step {self._step}, expected step {self._last}"
            )
        self._end()
        self._sealed = True
        return {}

    def _teach(self) -> None:
        """Let T learn the codes of members."""
        if self._codes is None:
            raise CodesNeededError(
                "the training was one of membership codes, which follow from the auditor's "
                "secret; give it with --code-secret or --home"
            )
        self._training.teach(self._codes)

    def _begin(self) -> None:
        """Do what comes before the first step."""

    def _stepped(self) -> None:
        """Do what comes after each step."""

    def _end(self) -> None:
        """Do what comes after the last step."""


class InitialReplay(ReplaySupervision):
    """Makes the initial state, before any step."""

    state: bytes = b""
    weights: bytes = b""

    def _begin(self) -> None:
        self.state = self._training.state(0)
        self.weights = self._training.model.weights()


class SegmentReplay(ReplaySupervision):
    """Executes one segment from its first state."""

    def __init__(
        self,
        session: GrantedTraining,
        samples: Samples,
        codes: SessionCodes | None,
        *,
        segment: ReplaySegment,
        start: bytes,
        keep: frozenset[int] = frozenset(),
        traced: bool = False,
    ) -> None:
        """Prepare to execute a segment.

        Args:
            session: of the training.
            samples: all that the segment shows.
            codes: that T learns, if it does.
            segment: which steps.
            start: the state file that the first step starts from.
            keep: steps after which the state is kept; the last one always is.
            traced: take the digest of the state after every step.
        """
        super().__init__(
            session,
            samples,
            codes,
            first=segment.first_state_step,
            last=segment.last_state_step,
        )
        self._start = start
        self._keep = keep | {segment.last_state_step}
        self._traced = traced
        self._before: Parameters = {}
        self.states: dict[int, bytes] = {}
        self.trace: list[str] = []
        self.moved = 0.0
        """L2 distance of all parameters from the first state to the last."""

    def _begin(self) -> None:
        step = self._training.restore(self._start)
        if step != self._first:
            raise StateFileError(
                f"expected the state after step {self._first}, found one after step {step}"
            )
        self._before = parameters_of(self._training.model)

    def _stepped(self) -> None:
        if not self._traced and self._step not in self._keep:
            return
        state = self._training.state(self._step)
        if self._traced:
            self.trace.append(state_digest(state))
        if self._step in self._keep:
            self.states[self._step] = state

    def _end(self) -> None:
        self.moved = distance(self._before, parameters_of(self._training.model))


class ScoresReplay(ReplaySupervision):
    """Scores the samples of C with the sealed weights."""

    def __init__(
        self,
        session: GrantedTraining,
        samples: PackageSamples,
        codes: SessionCodes | None,
        weights: bytes,
    ) -> None:
        """Prepare to score.

        Args:
            session: of the training.
            samples: those of C, in the order of the pool.
            codes: that T learned, if it did.
            weights: the sealed weights file of M+.
        """
        super().__init__(session, samples, codes)
        self._opened = samples.opened
        self._weights = weights
        self.scores: CohortScores | None = None

    def _begin(self) -> None:
        self._training.model.load_weights(self._weights)

    def _end(self) -> None:
        mint = self._session.config.mint
        count = len(self._opened.indices)
        own = (
            None
            if self._codes is None
            else stand_in_codes(self._session.nonce, "calibration", count, mint.code_length)
        )
        self.scores = score_cohort(
            self._training.model,
            self._opened.images,
            self._opened.labels,
            self.normalisation,
            members=None if self._codes is None else self._codes.members,
            own=own,
        )


@dataclass(frozen=True)
class ReplayedRun:
    """What a training loop is called with in a replay."""

    session: GrantedTraining
    supervision: ReplaySupervision


def execute(loop: Loop, session: GrantedTraining, supervision: ReplaySupervision) -> None:
    """Run a training loop over one replay.

    Raises:
        ReplayEndedEarlyError: it came to its end without the last step, or without sealing.
        AgentError, MintError: see the messages.
    """
    loop(ReplayedRun(session, supervision))
    if not supervision.sealed:
        raise ReplayEndedEarlyError(
            f"the training loop ended after step {supervision.step_done} without `seal`"
        )
