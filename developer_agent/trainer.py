"""The supervised training run of `auditkit train`: a client of the supervision API like any other.

One run: open or reopen the session, train, seal, send what is left, submit.
"""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol

from auditkit.data.pools import Pool, open_pool
from auditkit.mint.enhanced import EnhancedAuditedModel
from developer_agent.client import ServerClient
from developer_agent.committer import Committer
from developer_agent.environment import make_deterministic
from developer_agent.errors import AgentError, RunFileMissingError, ServerError
from developer_agent.recorder import Recorder
from developer_agent.run_config import RunConfig
from developer_agent.run_folder import RunFolder
from developer_agent.session import Session, load_session, open_session
from developer_agent.spool import Spool
from developer_agent.supervision import Supervision
from developer_agent.uplink import Uplink, UplinkState
from schemas import CohortMetrics, CohortName, ModelConfig, VerificationReport

DRAIN_SECONDS = 30.0  # how long the end of a run waits for the auditor's server


class RunExistsError(AgentError):
    """The run folder holds a run already, and resuming was not asked for."""


class PoolShapeError(AgentError):
    """The images or classes of a data set are not those that the model is configured for."""


class TrainingDisplay(Protocol):
    """What the trainer tells whoever watches."""

    def session_opened(self, session: Session, total_steps: int) -> None:
        """A session is open; training begins or goes on."""

    def resumed(self, step: int, discarded: int) -> None:
        """Training goes on after a saved state; some steps are done anew."""

    def step_done(self, step: "StepProgress", uplink: UplinkState) -> None:
        """One step was trained and recorded."""

    def sealing(self) -> None:
        """Training is over; all cohorts are being scored."""

    def sending(self) -> None:
        """The log is sealed; what is left goes to the auditor."""


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


class RunOutcome(Enum):
    """How a run ended."""

    SUBMITTED = "submitted"
    UNACKNOWLEDGED = "unacknowledged"


@dataclass(frozen=True)
class TrainingResult:
    """What a finished run has to say."""

    session_id: str
    outcome: RunOutcome
    unacknowledged: int
    cohorts: dict[CohortName, CohortMetrics]
    report: VerificationReport | None
    problem: str | None = None


@dataclass(frozen=True)
class Run:
    """One configured run; paths in `config` are relative to `base`."""

    config: RunConfig
    base: Path
    token: str

    @property
    def folder_path(self) -> Path:
        """Where the run lives."""
        return self.base / self.config.output

    def client(self) -> ServerClient:
        """Return a client for the auditor's server."""
        return ServerClient(self.config.server.url, self.token)

    def trust_root_bytes(self) -> bytes:
        """Return the trust root that the auditor handed over.

        Raises:
            RunFileMissingError: there is no such file.
        """
        path = self.base / self.config.server.trust_root
        try:
            return path.read_bytes()
        except OSError as error:
            raise RunFileMissingError(
                f"cannot read the auditor's trust root {path}: {error.strerror}; ask the auditor "
                "for it and name it in the configuration as server.trust_root"
            ) from error


def train(run: Run, display: TrainingDisplay, *, resume: bool = False) -> TrainingResult:
    """Run one supervised training from the grant to the submission.

    Args:
        run: what to train, and where.
        display: told about progress, on the training thread.
        resume: go on with the run that was broken off in this folder.

    Raises:
        RunExistsError: the folder holds a run, and `resume` is false.
        AgentError, EvidenceError, MintError, DataError: see the messages; nothing that was
            recorded is lost.
    """
    config = run.config.training
    make_deterministic(config.threads)
    trust_root = run.trust_root_bytes()
    pool = open_pool(run.config.pool, run.base)
    test = open_pool(run.config.test, run.base)
    check_pool("pool", pool, config.model)
    check_pool("test set", test, config.model)
    EnhancedAuditedModel.build(config, seed=0)  # mistakes in the model show before the session
    folder = RunFolder.create(run.folder_path)
    if folder.grant.exists() and not resume:
        raise RunExistsError(
            f"{folder.path} holds a run already; add --resume to go on with it, or choose another "
            "output folder"
        )
    with folder.lock(), run.client() as client:
        if folder.grant.exists():
            session = load_session(folder, config, pool, test)
        else:
            session = open_session(
                client,
                folder,
                trust_root_bytes=trust_root,
                order_id=run.config.server.order,
                developer=run.config.developer,
                config=config,
                pool=pool,
                test=test,
            )
        return _train_session(run, session, client, display)


def _train_session(
    run: Run, session: Session, client: ServerClient, display: TrainingDisplay
) -> TrainingResult:
    folder = session.folder
    cohorts: dict[CohortName, CohortMetrics] = {}
    with Spool.open(folder.spool_path) as spool:
        committer = Committer.open(folder, spool, run.client(), session.trust_root)
        with Uplink(
            committer,
            spool,
            policy=session.order.outage_policy,
            late_after_seconds=session.order.late_after_seconds,
        ) as uplink:
            display.session_opened(session, session.schedule.total_steps)
            if not Recorder(spool).sealed:
                cohorts = _train_to_seal(session, spool, uplink, display)
            display.sending()
            remaining = uplink.drain(DRAIN_SECONDS)
            error = uplink.state.error
    if remaining:
        return TrainingResult(
            session_id=session.grant.session_id,
            outcome=RunOutcome.UNACKNOWLEDGED,
            unacknowledged=remaining,
            cohorts=cohorts,
            report=None,
            problem=str(error) if error else "the auditor's server does not answer",
        )
    return submit(session.grant.session_id, folder, client, cohorts)


def check_pool(what: str, pool: Pool, model: ModelConfig) -> None:
    """Check that a data set fits the model's configuration.

    Raises:
        PoolShapeError: size, channels or number of classes differ.
    """
    height, width, channels = pool.shape
    if (height, width, channels) != (model.height, model.width, model.channels):
        raise PoolShapeError(
            f"the {what} has images of {height} x {width} pixels and {channels} channels, the "
            f"model expects {model.height} x {model.width} and {model.channels}; change "
            "training.model, or let the data source resize"
        )
    if len(pool.class_names) != model.classes:
        raise PoolShapeError(
            f"the {what} has {len(pool.class_names)} classes, training.model.classes is "
            f"{model.classes}; set it to {len(pool.class_names)}"
        )


def submit(
    session_id: str,
    folder: RunFolder,
    client: ServerClient,
    cohorts: dict[CohortName, CohortMetrics],
) -> TrainingResult:
    """Hand over M+ after its log has been acknowledged."""
    try:
        report = client.submit(
            session_id, folder.weights.path, folder.description.path, folder.scores.path
        )
    except ServerError as error:
        if not error.temporary:
            raise
        return TrainingResult(
            session_id, RunOutcome.UNACKNOWLEDGED, 0, cohorts, None, problem=str(error)
        )
    return TrainingResult(session_id, RunOutcome.SUBMITTED, 0, cohorts, report)


def _train_to_seal(
    session: Session, spool: Spool, uplink: Uplink, display: TrainingDisplay
) -> dict[CohortName, CohortMetrics]:
    schedule = session.schedule
    with Supervision(session, spool, uplink.permit, display.resumed) as supervision:
        supervision.enhance()
        optimiser = supervision.optimiser()
        for batch in supervision.batches():
            losses = supervision.losses(batch)
            optimiser.zero_grad(set_to_none=True)
            losses.total.backward()  # type: ignore[no-untyped-call] # torch
            optimiser.step()
            supervision.step(batch, losses)
            display.step_done(
                StepProgress(
                    step=batch.plan.step,
                    total_steps=schedule.total_steps,
                    epoch=batch.plan.epoch + 1,
                    epochs=schedule.epochs,
                    task_loss=losses.task,
                    mint_loss=losses.mint,
                    task_accuracy=losses.task_accuracy,
                    mint_accuracy=losses.mint_accuracy,
                ),
                uplink.state,
            )
        display.sealing()
        return supervision.seal()
