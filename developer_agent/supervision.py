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
import torch
from torch import nn
from torch.optim import Optimizer

from auditkit.evidence import canonical
from auditkit.evidence.derivation import (
    Indices,
    StepPlan,
    augmentation_words,
    batch_digest,
    generator_seed,
    initialisation_seed,
    learning_rate,
)
from auditkit.evidence.membership_codes import Codes, SessionCodes, stand_in_codes
from auditkit.mint import steps
from auditkit.mint.enhanced import EnhancedAuditedModel
from auditkit.mint.evaluation import score_cohort
from auditkit.mint.metrics import cohort_metrics
from auditkit.mint.objective import Losses
from auditkit.mint.preprocessing import normalisation_of
from auditkit.mint.scores import COHORT_NAMES, CohortScores, write_scores
from developer_agent.errors import AgentError
from developer_agent.recorder import Recorder, read_records
from developer_agent.session import Session, record_grant
from developer_agent.spool import Spool
from developer_agent.state import dump_state, restore_state, state_digest
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

INTERIM_SAMPLES = 500  # per cohort in evaluations during training; the last one takes all
SEED_MODULUS = 2**63


class SupervisionOrderError(AgentError):
    """The calls of the supervision API came in the wrong order."""


class CodesMissingError(AgentError):
    """T is to learn codes, and this process has none."""


class StateMissingError(AgentError):
    """No saved state of the interrupted run can be read."""


@dataclass(frozen=True, kw_only=True)
class Batch(steps.Batch):
    """One step's samples (see `auditkit.mint.steps.Batch`) and the plan that they follow."""

    plan: StepPlan


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


class Supervision:
    """One supervised training: hands out the nonce's batches and records what is done with them."""

    def __init__(
        self,
        session: Session,
        spool: Spool,
        permit: Callable[[], None] = lambda: None,
        *,
        fetch_codes: Callable[[], SessionCodes | None] = lambda: None,
        on_resume: Callable[[int, int], None] = lambda _step, _discarded: None,
        on_step: Callable[[StepProgress], None] = lambda _progress: None,
        on_sealing: Callable[[], None] = lambda: None,
    ) -> None:
        """Supervise one session.

        Args:
            session: open and granted.
            spool: where the records go.
            permit: called before each step; waits or raises as the order's outage policy says.
            fetch_codes: called once before the first step, if T is to learn codes.
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
        self._code_rows: Indices | None = None
        self._on_resume = on_resume
        self._on_step = on_step
        self._on_sealing = on_sealing
        self._enhanced: EnhancedAuditedModel | None = None
        self._optimiser: Optimizer | None = None
        self._objective = steps.new_objective(session.config.mint)
        self._step = 0
        self._saved_step: int | None = None

    # -- setting up -----------------------------------------------------------------------------

    def enhance(self, model: nn.Module | None = None) -> EnhancedAuditedModel:
        """Build M+ with the nonce's initial weights; `model` is the developer's own M, if any."""
        self._enhanced = EnhancedAuditedModel.build(
            self._session.config, initialisation_seed(self._session.nonce), model
        )
        self._enhanced.to(memory_format=torch.channels_last)
        return self._enhanced

    def optimiser(self) -> Optimizer:
        """Return the configured optimiser over all of M+; its weight decay is the L2 of Eq. 1."""
        self._optimiser = steps.new_optimiser(self._model, self._session.config.optimiser)
        return self._optimiser

    @property
    def sealed(self) -> bool:
        """True once the log has its seal, be it from this process or an earlier one."""
        return self._recorder.sealed

    @property
    def step_done(self) -> int:
        """Number of steps done."""
        return self._step

    @cached_property
    def normalisation(self) -> Normalisation:
        """Pixel scaling, measured on the samples that M trains on."""
        trained = self._session.schedule.split.trained
        return normalisation_of(self._session.pool.images[trained])

    # -- the loop -------------------------------------------------------------------------------

    def batches(self) -> Iterator[Batch]:
        """Yield the remaining steps' batches; commits or restores the state first.

        Raises:
            StateMissingError: an interrupted run left no readable state.
            CodesMissingError: T is to learn codes, and there are none.
            ServerOutageError: the order says stop, and the server is gone.
        """
        self._begin()
        schedule = self._session.schedule
        words = np.empty(0, dtype=np.uint32)
        epoch = -1
        for plan in schedule.steps(after=self._step):
            if plan.epoch != epoch:
                epoch = plan.epoch
                words = augmentation_words(
                    self._session.nonce, epoch, self._session.grant.split.pool
                )
            self._permit()
            self._prepare_step(plan)
            yield self._batch(plan, words)
            if self._step != plan.step:
                raise SupervisionOrderError(
                    f"batch {plan.step} was handed out and `step` was not called for it"
                )

    def losses(self, batch: Batch) -> Losses:
        """Run the mixed batch through M+ and evaluate Eq. 1.

        Raises:
            NonFiniteLossError: the training has diverged.
        """
        return steps.joint_losses(self._model, self._objective, batch, self._session.config)

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
            learning_rate=self._rate(plan.step),
            task_weight=config.mint.task_weight,
            mint_weight=config.mint.mint_weight,
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
        scores = self._evaluate(schedule.epochs - 1, None)
        scores_bytes = write_scores(scores)
        weights = self._model.weights()
        description = canonical.to_bytes(
            ModelDescription(
                session_id=session.grant.session_id,
                model=session.config.model,
                taps=session.config.taps,
                mint=session.config.mint,
                normalisation=self.normalisation,
                class_names=session.pool.class_names,
                weights_digest=canonical.sha256_hex(weights),
                parameters=sum(p.numel() for p in self._model.parameters()),
            )
        )
        session.folder.weights.write(weights)
        session.folder.description.write(description)
        session.folder.scores.write(scores_bytes)
        digest = canonical.sha256_hex(scores_bytes)
        self._recorder.record(
            CalibrationRecord,
            scores_digest=digest,
            calibration_size=scores["calibration"].size,
        )
        self._recorder.record(
            SealRecord,
            step=self._step,
            weights_digest=canonical.sha256_hex(weights),
            description_digest=canonical.sha256_hex(description),
            scores_digest=digest,
        )
        return {metrics.cohort: metrics for metrics in cohort_metrics(scores)}

    # -- inside ---------------------------------------------------------------------------------

    @property
    def _model(self) -> EnhancedAuditedModel:
        if self._enhanced is None:
            raise SupervisionOrderError("call `enhance` first: there is no model yet")
        return self._enhanced

    def _begin(self) -> None:
        if self._optimiser is None:
            raise SupervisionOrderError("call `optimiser` before `batches`")
        if self._session.config.mint.evidence == "codes":
            self._take_codes()
        if len(self._spool):
            self._resume(self._optimiser)
            return
        record_grant(self._recorder, self._session)
        self._save_state()

    def _take_codes(self) -> None:
        self._codes = self._fetch_codes()
        if self._codes is None:
            raise CodesMissingError(
                "the configuration has mint.evidence = 'codes' and no codes came; run the loop "
                "under `developer_agent.supervised_run.supervised`, which asks the auditor"
            )
        self._code_rows = self._codes.rows(self._session.schedule.split)
        self._objective = steps.new_objective(self._session.config.mint, self._codes.members)

    def _resume(self, optimiser: Optimizer) -> None:
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
            self._save_state()
            return
        record, data = self._last_readable(states)
        self._step = self._saved_step = restore_state(data, self._model, optimiser, self._objective)
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
            file = self._session.folder.state(_state_name(record.step))
            if file.exists():
                data = file.read()
                if state_digest(data) == record.state_digest:
                    return record, data
        raise StateMissingError(
            f"none of the {len(states)} states that the log commits to can be read in "
            f"{self._session.folder.states}; restore one from a backup, or start a new session"
        )

    def _prepare_step(self, plan: StepPlan) -> None:
        if self._optimiser is None:
            raise SupervisionOrderError("call `optimiser` first")
        steps.set_learning_rate(self._optimiser, self._rate(plan.step))
        # Seeding each step from the nonce leaves no generator state to save or to replay.
        torch.manual_seed((generator_seed(self._session.nonce) + plan.step) % SEED_MODULUS)
        self._model.train()

    def _rate(self, step: int) -> float:
        return learning_rate(
            self._session.config.optimiser, step, self._session.schedule.total_steps
        )

    def _batch(self, plan: StepPlan, words: np.ndarray[tuple[int], np.dtype[np.uint32]]) -> Batch:
        pool = self._session.pool
        batch = steps.new_batch(
            pool.images[plan.rows],
            pool.labels[plan.rows],
            steps.RowCounts(
                len(plan.told), len(plan.silent), len(plan.told_only), len(plan.external)
            ),
            words=words[plan.rows],
            config=self._session.config,
            normalisation=self.normalisation,
            own_codes=None if self._code_rows is None else self._code_rows[plan.seen],
        )
        return Batch(**vars(batch), plan=plan)

    def _save_state(self) -> None:
        if self._optimiser is None or self._saved_step == self._step:
            return
        data = dump_state(self._step, self._model, self._optimiser, self._objective)
        self._session.folder.state(_state_name(self._step)).write(data)
        self._recorder.record(
            StateRecord,
            step=self._step,
            state_digest=state_digest(data),
            weights_digest=canonical.sha256_hex(self._model.weights()),
        )
        self._saved_step = self._step

    def _evaluate(self, epoch: int, limit: int | None) -> dict[CohortName, CohortScores]:
        scores = {cohort: self._score(cohort, limit) for cohort in COHORT_NAMES}
        scores = {cohort: found for cohort, found in scores.items() if found.size}
        self._recorder.record(
            EvaluationRecord, step=self._step, epoch=epoch, cohorts=tuple(cohort_metrics(scores))
        )
        return scores

    def _score(self, cohort: CohortName, limit: int | None) -> CohortScores:
        pool = self._session.test if cohort == "test" else self._session.pool
        indices: Indices = (
            np.arange(len(pool.labels))
            if cohort == "test"
            else getattr(self._session.schedule.split, cohort)
        )
        # Pools are often sorted by class: every k-th sample keeps the classes balanced.
        taken = slice(None)
        if limit is not None:
            every = max(1, len(indices) // limit)
            taken = slice(0, every * limit, every)
        own = None if self._codes is None else self._own_codes(cohort, len(indices))[taken]
        # In float32 whatever the training used: queries are scored so, on any machine.
        return score_cohort(
            self._model,
            pool.images[indices[taken]],
            pool.labels[indices[taken]],
            self.normalisation,
            members=None if self._codes is None else self._codes.members,
            own=own,
        )

    def _own_codes(self, cohort: CohortName, size: int) -> Codes:
        if self._codes is not None and cohort in ("told", "told_only"):
            found: Codes = getattr(self._codes, cohort)
            return found
        length = self._session.config.mint.code_length
        return stand_in_codes(self._session.nonce, cohort, size, length)

    def __enter__(self) -> "Supervision":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._spool.sync()


def _state_name(step: int) -> str:
    return f"step-{step:08d}.safetensors"
