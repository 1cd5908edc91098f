"""The supervision API: what a training loop needs to run under supervision, and nothing else.

    with Supervision(session, spool) as supervision:
        enhanced = supervision.enhance()
        optimiser = supervision.optimiser()
        for batch in supervision.batches():
            losses = supervision.losses(batch)
            optimiser.zero_grad()
            losses.total.backward()
            optimiser.step()
            supervision.step(batch, losses)
        supervision.seal()

The trainer of this package is such a loop. A developer's own loop may do more between those lines,
but whatever it does must be repeatable from the nonce, or a replay will find it out.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from types import TracebackType

import numpy as np
from numpy.typing import NDArray
from torch import nn
from torch.optim import Optimizer

from auditkit.evidence import canonical
from auditkit.evidence.derivation import Indices, batch_digest
from auditkit.evidence.membership_codes import Codes, SessionCodes, stand_in_codes
from auditkit.mint.enhanced import EnhancedAuditedModel
from auditkit.mint.evaluation import score_cohort
from auditkit.mint.metrics import cohort_metrics
from auditkit.mint.objective import Losses
from auditkit.mint.preprocessing import normalisation_of
from auditkit.mint.scores import COHORT_NAMES, CohortScores, write_scores
from auditkit.mint.split_training import audited_answers, evaluated_rows, part_rows
from developer_agent.errors import AgentError
from developer_agent.joint_training import Batch, JointTraining, SupervisionOrderError
from developer_agent.recorder import Recorder, read_records
from developer_agent.remote_mint import RemoteMint
from developer_agent.session import Session, record_grant
from developer_agent.spool import Spool
from developer_agent.state import Parameters, distance, parameters_of, state_digest, state_name
from schemas import (
    CalibrationRecord,
    CohortMetrics,
    CohortName,
    EvaluationRecord,
    ModelDescription,
    Normalisation,
    ResumeRecord,
    SealRecord,
    StateRecord,
    StepRecord,
)
from schemas.evaluation import INTERIM_SAMPLES

__all__ = ["Batch", "StepProgress", "Supervision", "SupervisionOrderError"]


class CodesMissingError(AgentError):
    """T is to learn codes, and this process has none."""


class StateMissingError(AgentError):
    """No saved state of the interrupted run can be read."""


class PoolSamples:
    """The samples of a session's own pool."""

    def __init__(self, session: Session) -> None:
        self._session = session

    @cached_property
    def normalisation(self) -> Normalisation:
        """Pixel scaling, measured on the samples that M trains on."""
        trained = self._session.schedule.split.trained
        return normalisation_of(self._session.pool.images[trained])

    def pick(self, rows: Indices) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Return pixels (B, H, W, C) and classes (B,) of these samples of the pool."""
        return self._session.pool.images[rows], self._session.pool.labels[rows]


@dataclass(frozen=True)
class StepProgress:
    """One step, for display."""

    step: int
    total_steps: int
    epoch: int
    epochs: int
    task_loss: float
    mint_loss: float
    task_accuracy: float
    mint_accuracy: float


@dataclass(frozen=True)
class _Evaluated:
    """Metrics of all cohorts, and the scores behind them unless the auditor keeps those."""

    metrics: tuple[CohortMetrics, ...]
    scores: dict[CohortName, CohortScores]


@dataclass(frozen=True)
class _HandedOver:
    """What the log is sealed with; the parts of M+ only where the auditor holds T."""

    weights_digest: str
    scores_digest: str
    parameters: int
    audited_weights_digest: str | None = None
    mint_weights_digest: str | None = None


class Supervision:
    """One supervised training: hands out the nonce's batches and records what is done with them."""

    def __init__(
        self,
        session: Session,
        spool: Spool,
        permit: Callable[[], None] = lambda: None,
        *,
        fetch_codes: Callable[[], SessionCodes | None] = lambda: None,
        remote_mint: RemoteMint | None = None,
        on_resume: Callable[[int, int], None] = lambda _step, _discarded: None,
        on_step: Callable[[StepProgress], None] = lambda _progress: None,
        on_sealing: Callable[[], None] = lambda: None,
    ) -> None:
        """Supervise one session.

        Args:
            session: open and granted.
            spool: where the records go.
            permit: called before each step; waits or raises as the order's outage policy says.
            fetch_codes: called once before the first step, if T is to learn codes here.
            remote_mint: T, where the auditor's server holds it.
            on_resume: told the step that training goes on from, and how many steps were lost.
            on_step: told about each step after it is recorded, on the training thread.
            on_sealing: told that training is over and all cohorts are being scored.
        """
        self._session = session
        self._spool = spool
        self._recorder = Recorder(spool)
        self._permit = permit
        self._fetch_codes = fetch_codes
        # In memory only, and gone with the process: the auditor alone may keep codes.
        self._codes: SessionCodes | None = None
        self._remote = remote_mint
        self._on_resume = on_resume
        self._on_step = on_step
        self._on_sealing = on_sealing
        self._samples = PoolSamples(session)
        self._training = JointTraining(
            session.config, session.nonce, session.schedule, self._samples
        )
        if remote_mint is not None:
            self._training.entrust(remote_mint)
        self._step = 0
        self._saved_step: int | None = None
        self._saved_parameters: Parameters | None = None

    # -- setting up -----------------------------------------------------------------------------

    def enhance(self, model: nn.Module | None = None) -> EnhancedAuditedModel:
        """Build M+ with the nonce's initial weights; `model` is the developer's own M, if any."""
        return self._training.enhance(model)

    def optimiser(self) -> Optimizer:
        """Return the configured optimiser over all of M+; its weight decay is the L2 of Eq. 1."""
        return self._training.optimiser()

    @property
    def sealed(self) -> bool:
        """True once the log has its seal, be it from this process or an earlier one."""
        return self._recorder.sealed

    @property
    def step_done(self) -> int:
        """Number of steps done."""
        return self._step

    @property
    def normalisation(self) -> Normalisation:
        """Pixel scaling, measured on the samples that M trains on."""
        return self._samples.normalisation

    # -- the loop -------------------------------------------------------------------------------

    def batches(self) -> Iterator[Batch]:
        """Yield the remaining steps' batches; commits or restores the state first.

        Raises:
            StateMissingError: an interrupted run left no readable state.
            CodesMissingError: T is to learn codes, and there are none.
            ServerOutageError: the order says stop, and the server is gone.
        """
        self._begin()
        for plan, words in self._training.plans(after=self._step):
            self._permit()
            yield self._training.prepare(plan, words)
            if self._step != plan.step:
                raise SupervisionOrderError(
                    f"batch {plan.step} was handed out and `step` was not called for it"
                )

    def losses(self, batch: Batch) -> Losses:
        """Run the mixed batch through M+ and evaluate Eq. 1.

        Raises:
            NonFiniteLossError: the training has diverged.
        """
        return self._training.losses(batch)

    def step(self, batch: Batch, losses: Losses) -> None:
        """Record one finished optimisation step, and save and evaluate where that is due."""
        config, plan = self._session.config, batch.plan
        self._step = plan.step
        self._recorder.record(
            StepRecord,
            step=plan.step,
            epoch=plan.epoch,
            batch=batch_digest(self._session.manifest.leaves, plan),
            task_loss=losses.task,
            mint_loss=losses.mint,
            objective=losses.total.item(),
            task_accuracy=losses.task_accuracy,
            mint_accuracy=losses.mint_accuracy,
            learning_rate=self._training.rate(plan.step),
            task_weight=config.mint.task_weight,
            mint_weight=config.mint.mint_weight,
            **({} if self._remote is None else self._remote.exchanged(plan.step)),
        )
        schedule = self._session.schedule
        last = plan.step == schedule.total_steps
        if last or plan.step % config.state_interval_steps == 0:
            self._save_state()
        epoch_ends = plan.step % schedule.steps_per_epoch == 0
        if epoch_ends and not last and (plan.epoch + 1) % config.evaluation_interval_epochs == 0:
            self._evaluate(plan.epoch, INTERIM_SAMPLES)
        self._on_step(
            StepProgress(
                step=plan.step,
                total_steps=schedule.total_steps,
                epoch=plan.epoch + 1,
                epochs=schedule.epochs,
                task_loss=losses.task,
                mint_loss=losses.mint,
                task_accuracy=losses.task_accuracy,
                mint_accuracy=losses.mint_accuracy,
            )
        )

    def seal(self) -> dict[CohortName, CohortMetrics]:
        """Score every cohort, commit the calibration, write the submission and seal the log.

        Returns:
            The final metrics per cohort.

        Raises:
            SupervisionOrderError: the schedule is not at its end.
        """
        session, schedule = self._session, self._session.schedule
        if self._step != schedule.total_steps:
            raise SupervisionOrderError(
                f"the training stands at step {self._step} of {schedule.total_steps}; it can only "
                "be sealed at its end"
            )
        self._on_sealing()
        evaluated = self._evaluate(schedule.epochs - 1, None)
        handed = self._hand_over(evaluated)
        description = canonical.to_bytes(
            ModelDescription(
                session_id=session.grant.session_id,
                model=session.config.model,
                taps=session.config.taps,
                mint=session.config.mint,
                normalisation=self.normalisation,
                class_names=session.pool.class_names,
                weights_digest=handed.weights_digest,
                parameters=handed.parameters,
            )
        )
        session.folder.description.write(description)
        self._recorder.record(
            CalibrationRecord,
            scores_digest=handed.scores_digest,
            calibration_size=session.grant.split.calibration,
        )
        self._recorder.record(
            SealRecord,
            step=self._step,
            weights_digest=handed.weights_digest,
            description_digest=canonical.sha256_hex(description),
            scores_digest=handed.scores_digest,
            audited_weights_digest=handed.audited_weights_digest,
            mint_weights_digest=handed.mint_weights_digest,
        )
        return {metrics.cohort: metrics for metrics in evaluated.metrics}

    # -- inside ---------------------------------------------------------------------------------

    def _begin(self) -> None:
        if not self._training.ready:
            raise SupervisionOrderError("call `optimiser` before `batches`")
        mint = self._session.config.mint
        if mint.custody == "developer" and mint.evidence == "codes":
            self._take_codes()
        if len(self._spool):
            self._resume()
            return
        record_grant(self._recorder, self._session)
        self._meet(0)
        self._save_state()

    def _meet(self, step: int) -> None:
        """Let T, where the auditor holds it, stand where M stands."""
        if self._remote is not None:
            self._remote.begin(step, tuple(self._training.model.aad_shapes.values()))

    def _take_codes(self) -> None:
        self._codes = self._fetch_codes()
        if self._codes is None:
            raise CodesMissingError(
                "the configuration has mint.evidence = 'codes' and no codes came; run the loop "
                "under `developer_agent.supervised_run.supervised`, which asks the auditor"
            )
        self._training.teach(self._codes)

    def _resume(self) -> None:
        last_step = 0
        states: list[StateRecord] = []
        for record in read_records(self._spool):
            match record:
                case StepRecord(step=step):
                    last_step = step
                case ResumeRecord(step=step):
                    last_step = step
                    states = [state for state in states if state.step <= step]
                case StateRecord():
                    states.append(record)
        if not states:  # broken off before the initial state was committed: nothing is lost
            self._meet(0)
            self._save_state()
            return
        record, data = self._last_readable(states)
        self._step = self._saved_step = self._training.restore(data)
        self._saved_parameters = parameters_of(self._training.model)
        self._meet(self._step)
        self._recorder.record(
            ResumeRecord,
            step=self._step,
            state_digest=record.state_digest,
            discarded_steps=last_step - self._step,
            environment=self._session.request.environment,
        )
        self._on_resume(self._step, last_step - self._step)

    def _last_readable(self, states: list[StateRecord]) -> tuple[StateRecord, bytes]:
        for record in reversed(states):
            file = self._session.folder.state(state_name(record.step))
            if file.exists():
                data = file.read()
                if state_digest(data) == record.state_digest:
                    return record, data
        raise StateMissingError(
            f"none of the {len(states)} states that the log commits to can be read in "
            f"{self._session.folder.states}; restore one from a backup, or start a new session"
        )

    def _save_state(self) -> None:
        if self._saved_step == self._step:
            return
        data = self._training.state(self._step)
        self._session.folder.state(state_name(self._step)).write(data)
        before, self._saved_parameters = (
            self._saved_parameters,
            parameters_of(self._training.model),
        )
        self._recorder.record(
            StateRecord,
            step=self._step,
            state_digest=state_digest(data),
            weights_digest=canonical.sha256_hex(self._training.model.weights()),
            moved=None if before is None else distance(before, self._saved_parameters),
            **({} if self._remote is None else self._remote.standing(self._step)),
        )
        self._saved_step = self._step

    def _hand_over(self, evaluated: "_Evaluated") -> "_HandedOver":
        """Write what is submitted, or hand M over to be put together with T."""
        folder, weights = self._session.folder, self._training.model.weights()
        parameters = sum(p.numel() for p in self._training.model.parameters())
        folder.weights.write(weights)
        if self._remote is None:
            scores = write_scores(evaluated.scores)
            folder.scores.write(scores)
            digest = canonical.sha256_hex(weights)
            return _HandedOver(digest, canonical.sha256_hex(scores), parameters)
        final = self._remote.final(self._step, weights)
        return _HandedOver(
            final.weights_digest,
            final.scores_digest,
            parameters + final.mint_parameters,
            final.audited_weights_digest,
            final.mint_weights_digest,
        )

    def _evaluate(self, epoch: int, limit: int | None) -> "_Evaluated":
        """Measure all cohorts with up to `limit` samples each, and record the result."""
        if self._remote is None:
            scores = {cohort: self._score(cohort, limit) for cohort in COHORT_NAMES}
            scores = {cohort: found for cohort, found in scores.items() if found.size}
            evaluated = _Evaluated(tuple(cohort_metrics(scores)), scores)
        else:
            for cohort in COHORT_NAMES:
                self._send(self._remote, cohort, limit)
            evaluated = _Evaluated(self._remote.evaluation(self._step), {})
        self._recorder.record(
            EvaluationRecord, step=self._step, epoch=epoch, cohorts=evaluated.metrics
        )
        return evaluated

    def _score(self, cohort: CohortName, limit: int | None) -> CohortScores:
        images, labels, taken = self._evaluated_samples(cohort, limit)
        own = None if self._codes is None else self._own_codes(cohort)[taken]
        # In float32 whatever the training used: queries are scored so, on any machine.
        return score_cohort(
            self._training.model,
            images,
            labels,
            self.normalisation,
            members=None if self._codes is None else self._codes.members,
            own=own,
        )

    def _send(self, remote: RemoteMint, cohort: CohortName, limit: int | None) -> None:
        """Have a cohort scored by T's holder, part by part."""
        images, labels, _ = self._evaluated_samples(cohort, limit)
        shapes = tuple(self._training.model.aad_shapes.values())
        most = part_rows(shapes, self._session.config.mint.wire_precision)
        for first in range(0, len(images), most):
            part = slice(first, first + most)
            answers = audited_answers(
                self._training.model, images[part], labels[part], self.normalisation
            )
            remote.score(
                self._step,
                cohort,
                first,
                answers.maps,
                task_losses=answers.task_losses,
                correct=answers.correct,
            )

    def _evaluated_samples(
        self, cohort: CohortName, limit: int | None
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64], slice]:
        """Return the samples of a cohort that are evaluated, and which of all they are."""
        pool = self._session.test if cohort == "test" else self._session.pool
        indices = self._indices(cohort)
        taken = evaluated_rows(len(indices), limit)
        return pool.images[indices[taken]], pool.labels[indices[taken]], taken

    def _indices(self, cohort: CohortName) -> Indices:
        if cohort == "test":
            return np.arange(len(self._session.test.labels))
        found: Indices = getattr(self._session.schedule.split, cohort)
        return found

    def _own_codes(self, cohort: CohortName) -> Codes:
        if self._codes is not None and cohort in ("told", "told_only"):
            found: Codes = getattr(self._codes, cohort)
            return found
        length = self._session.config.mint.code_length
        return stand_in_codes(self._session.nonce, cohort, len(self._indices(cohort)), length)

    def __enter__(self) -> "Supervision":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._spool.sync()
