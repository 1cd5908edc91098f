"""Live display of a supervised training: a bar, the losses, and what the auditor has."""

from collections.abc import Iterable

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from auditkit.cli.bars import Bars
from auditkit.cli.output import quoted
from developer_agent.session import Session
from developer_agent.trainer import StepProgress
from developer_agent.uplink import UplinkState


class _TwoLineProgress(Progress):
    """A bar with a line of text below it, so that both fit a terminal of 80 columns."""

    detail = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        """Return the bar and the line."""
        yield self.make_tasks_table(self.tasks)
        yield Text.from_markup(self.detail, overflow="ellipsis")


LINES_WITHOUT_TERMINAL = 10  # progress lines in a log file, where a live bar would be noise


class ProgressDisplay(Bars):
    """Implements the trainer's display with rich, or plain lines when output is no terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress: _TwoLineProgress = _TwoLineProgress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(bar_width=16),
            TaskProgressColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(compact=True),
            console=console,
            disable=not console.is_terminal,
        )
        super().__init__(self._progress)
        self._task = self._progress.add_task("training", epoch="–", rate="")

    def session_opened(self, session: Session, total_steps: int) -> None:
        """Say what was granted."""
        split = session.grant.split
        self._console.print(
            f"session [bold]{session.grant.session_id}[/bold] granted by "
            f"{quoted(session.trust_root.auditor)}\n"
            f"  pool of {split.pool}: D {split.told} told + {split.silent} silent, "
            f"{split.told_only} told only, E {split.external}, C {split.calibration}"
        )
        self._progress.update(self._task, total=total_steps)

    def resumed(self, step: int, discarded: int) -> None:
        """Say where training goes on."""
        self._console.print(
            f"resumed after step {step}; {discarded} later steps were lost and are done again, "
            "and the log says so"
        )
        self._progress.update(self._task, completed=step)

    def step_done(self, step: StepProgress, uplink: UplinkState) -> None:
        """Move the bar."""
        speed = self._progress.tasks[0].finished_speed or self._progress.tasks[0].speed
        self._progress.update(
            self._task,
            completed=step.step,
            epoch=f"{step.epoch}/{step.epochs}",
            rate=f"{speed:.1f} step/s" if speed else "",
        )
        self._progress.detail = (
            f"task {step.task_loss:.3f} ({step.task_accuracy:.0%})  "
            f"MINT {step.mint_loss:.3f} ({step.mint_accuracy:.0%})  {_auditor_text(uplink)}"
        )
        every = max(1, step.total_steps // LINES_WITHOUT_TERMINAL)
        if not self._console.is_terminal and step.step % every == 0:
            self._console.print(
                f"  step {step.step}/{step.total_steps}, epoch {step.epoch}/{step.epochs}: "
                f"task loss {step.task_loss:.3f} (accuracy {step.task_accuracy:.0%}), MINT loss "
                f"{step.mint_loss:.3f} ({step.mint_accuracy:.0%}), "
                f"{uplink.acknowledged}/{uplink.spooled} records acknowledged"
            )

    def sealing(self) -> None:
        """Say that the scores are being computed."""
        self._console.print("trained; scoring every cohort and sealing the log")

    def sending(self) -> None:
        """Say that the rest is being sent."""
        self._console.print("sealed; sending what is left to the auditor")


def _auditor_text(uplink: UplinkState) -> str:
    text = f"{uplink.acknowledged}/{uplink.spooled} records acknowledged"
    return f"[yellow]{text}, server away[/yellow]" if uplink.outage_since else text
