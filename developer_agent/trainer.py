"""The training of `auditkit train`: a client of the supervision API like any other."""

from dataclasses import dataclass
from typing import Protocol

from auditkit.mint.enhanced import EnhancedAuditedModel
from developer_agent.session import Session
from developer_agent.supervised_run import Run, RunResult, SupervisedRun, supervised
from developer_agent.uplink import UplinkState
from schemas import CohortMetrics, CohortName

Cohorts = dict[CohortName, CohortMetrics]


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


class TrainingDisplay(Protocol):
    """What the trainer tells whoever watches, on the training thread."""

    def session_opened(self, session: Session, total_steps: int) -> None:
        """A session is open; training begins or goes on."""

    def resumed(self, step: int, discarded: int) -> None:
        """Training goes on after a saved state; some steps are done anew."""

    def step_done(self, step: StepProgress, uplink: UplinkState) -> None:
        """One step was trained and recorded."""

    def sealing(self) -> None:
        """Training is over; all cohorts are being scored."""

    def sending(self) -> None:
        """The log is sealed; what is left goes to the auditor."""


def train(run: Run, display: TrainingDisplay, *, resume: bool = False) -> tuple[RunResult, Cohorts]:
    """Run one supervised training from the grant to the submission.

    Args:
        run: what to train, and where.
        display: told about progress.
        resume: go on with the run that was broken off in this folder.

    Returns:
        What the auditor has, and the final metrics per cohort (none when an earlier process had
        sealed the run).

    Raises:
        AgentError, EvidenceError, MintError, DataError: see the messages; nothing that was
            recorded is lost.
    """
    EnhancedAuditedModel.build(run.config.training, seed=0)  # mistakes show before the session
    with supervised(run, resume=resume, on_resume=display.resumed) as current:
        display.session_opened(current.session, current.session.schedule.total_steps)
        cohorts = {} if current.sealed_before else _train_to_seal(current, display)
        display.sending()
        return current.finish(), cohorts


def _train_to_seal(current: SupervisedRun, display: TrainingDisplay) -> Cohorts:
    supervision, schedule = current.supervision, current.session.schedule
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
            current.uplink_state,
        )
    display.sealing()
    return supervision.seal()
