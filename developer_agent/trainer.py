"""The training of `auditkit train`: a client of the supervision API like any other."""

from collections.abc import Mapping
from typing import Protocol

from auditkit.mint.enhanced import EnhancedAuditedModel
from developer_agent.loop_interface import RunInterface
from developer_agent.session import Session
from developer_agent.source_files import source_files
from developer_agent.supervised_run import Run, RunResult, supervised
from developer_agent.supervision import StepProgress
from developer_agent.training_loop import TrainingLoop, load_loop
from developer_agent.uplink import UplinkState
from schemas import CohortMetrics, CohortName

__all__ = ["Cohorts", "StepProgress", "TrainingDisplay", "built_in_loop", "train"]

Cohorts = Mapping[CohortName, CohortMetrics]


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
        run: what to train, and where; its own training loop is taken if the configuration has one.
        display: told about progress.
        resume: go on with the run that was broken off in this folder.

    Returns:
        What the auditor has, and the final metrics per cohort (none when an earlier process had
        sealed the run).

    Raises:
        AgentError, EvidenceError, MintError, DataError: see the messages; nothing that was
            recorded is lost.
    """
    loop = _loop(run)
    with supervised(
        run,
        resume=resume,
        on_resume=display.resumed,
        on_step=display.step_done,
        on_sealing=display.sealing,
    ) as current:
        display.session_opened(current.session, current.session.schedule.total_steps)
        cohorts = {} if current.sealed_before else loop(current)
        display.sending()
        return current.finish(), cohorts


def built_in_loop(run: RunInterface) -> Cohorts:
    """Train the configured architecture, without more than that."""
    supervision = run.supervision
    supervision.enhance()
    optimiser = supervision.optimiser()
    for batch in supervision.batches():
        losses = supervision.losses(batch)
        optimiser.zero_grad(set_to_none=True)
        losses.total.backward()  # type: ignore[no-untyped-call] # torch
        optimiser.step()
        supervision.step(batch, losses)
    return supervision.seal()


def _loop(run: Run) -> TrainingLoop:
    """Return the loop to run. Mistakes in it, or in the model, show before a session is opened."""
    if run.config.code is not None:
        source_files(run.config.code, run.code_path)  # refuses what lies outside, before it runs
        return load_loop(run.code_path / run.config.code.loop)
    EnhancedAuditedModel.build(run.config.training, seed=0)
    return built_in_loop
