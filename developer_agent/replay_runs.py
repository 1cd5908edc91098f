"""Executing parts of a session, each time in a fresh process or in a fresh container."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError

from auditkit.evidence import canonical
from auditkit.mint.scores import CohortScores, read_scores
from developer_agent.environment import SourceFile, code_digest
from developer_agent.replay_evidence import ExecutableSession, Opened, ReplayError
from developer_agent.replay_execution import (
    CALIBRATION_FOLDER,
    CODES,
    OUTCOME,
    SCORES,
    TASK,
    WEIGHTS,
    ExecutedSegment,
    ReplayOutcome,
    ReplayTask,
    SegmentTask,
)
from developer_agent.replay_tolerance import Variant
from developer_agent.segment_package import SAMPLES, START, SegmentPackage, segment_name
from developer_agent.state import state_name
from schemas import ReplaySegment
from schemas.records import ExecutionMode

EXECUTION_MODULE = "developer_agent.replay_execution"
MOST_LINES = 15  # of a failed execution's last words


class ReplayCodeError(ReplayError):
    """The code at hand is not the one that the training ran."""


class ReplayModeError(ReplayError):
    """The replay would not run as the training did."""


class OwnLoopError(ReplayError):
    """The training ran the developer's own loop, and it is not known or not at hand."""


class HeldMintError(ReplayError):
    """Half of the training happened on the auditor's server."""


class ExecutionFailedError(ReplayError):
    """The execution ended without an outcome."""


class Runner(Protocol):
    """Where a task is executed: a plain process, or a closed container of the training's image."""

    @property
    def mode(self) -> ExecutionMode:
        """What the result says about it."""

    @property
    def image_digest(self) -> str | None:
        """Of the image, where there is one."""

    @property
    def code(self) -> tuple[str, ...]:
        """The developer's own source files that are at hand, by name."""

    @property
    def code_digest(self) -> str | None:
        """Digest of the code at hand, where it is known before anything is executed."""

    def run(self, source: Path, target: Path) -> None:
        """Execute the task of a folder into another one.

        Raises:
            AgentError, ContainerError: it could not be executed.
        """


@dataclass(frozen=True)
class ProcessRunner:
    """Executes in a plain process on this machine, with this installation's own code."""

    code: tuple[str, ...] = ()
    """The developer's own source files, by name."""
    code_folder: Path | None = None
    """Where they lie."""
    mode: ExecutionMode = field(default="process", init=False)
    image_digest: str | None = field(default=None, init=False)

    @property
    def code_digest(self) -> str | None:
        """Digest of the code at hand."""
        folder = self.code_folder or Path()
        return code_digest(SourceFile(name, folder / name) for name in self.code)

    def run(self, source: Path, target: Path) -> None:
        """Execute the task of a folder into another one.

        Raises:
            ExecutionFailedError: the process failed; its last words are in the message.
        """
        done = subprocess.run(  # noqa: S603 - this very interpreter
            # -P: no module of the working folder may stand in for one of ours.
            [
                *(sys.executable, "-P", "-m", EXECUTION_MODULE, str(source), str(target)),
                *([] if self.code_folder is None else [str(self.code_folder)]),
            ],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode:
            last = "\n  ".join(done.stdout.strip().splitlines()[-MOST_LINES:])
            raise ExecutionFailedError(
                f"the execution ended with exit code {done.returncode}:\n  {last}"
            )


@dataclass(frozen=True)
class Executed:
    """What one execution gave. Its folder of outputs is gone when the replay is over."""

    outcome: ReplayOutcome
    folder: Path

    def segment(self, segment: ReplaySegment) -> ExecutedSegment:
        """Return what was found of a segment."""
        return next(one for one in self.outcome.segments if one.segment == segment)

    def state(self, segment: ReplaySegment, step: int) -> bytes:
        """Return a state that was kept."""
        return (self.folder / segment_name(segment) / state_name(step)).read_bytes()

    def scores(self) -> CohortScores:
        """Return the scores of C."""
        data = (self.folder / CALIBRATION_FOLDER / SCORES).read_bytes()
        return read_scores(data)["calibration"]


class Execution:
    """Executes parts of one session, each time in a fresh process or container."""

    def __init__(
        self, session: ExecutableSession, opened: Opened, runner: Runner, work: Path
    ) -> None:
        """Prepare.

        Args:
            session: whose steps are executed; the runner is not told where they must lead.
            opened: checked packages.
            runner: where to execute.
            work: an empty folder.

        Raises:
            ReplayModeError, OwnLoopError, ReplayCodeError: the runner cannot execute this training.
        """
        self._session = session
        self._opened = opened
        self._runner = runner
        self._work = work
        self._count = 0
        self._check_runner()

    def run(
        self,
        segments: Sequence[SegmentTask] = (),
        *,
        initial: bool = False,
        calibration: bool = False,
        variant: Variant | None = None,
        instead: SegmentPackage | None = None,
    ) -> Executed:
        """Execute once.

        Args:
            segments: which ones, and what to keep of them.
            initial: make the initial state.
            calibration: score C.
            variant: how to execute; None: as the training did.
            instead: a package to take instead of the opened one of its segment.

        Raises:
            ExecutionFailedError: no outcome came.
            ReplayCodeError: other code was executed.
            AgentError, ContainerError: the runner could not execute it.
        """
        self._count += 1
        folder = self._work / f"{self._count:03d}"
        source, target = folder / "in", folder / "out"
        source.mkdir(parents=True)
        target.mkdir()
        config = self._session.request.config
        task = ReplayTask(
            request=self._session.request,
            grant=self._session.grant,
            normalisation=self._session.normalisation,
            loop=self._opened.loop,
            code=self._runner.code,
            threads=config.threads if variant is None else variant.threads,
            cpu_capability=None if variant is None else variant.cpu_capability,
            initial=initial,
            calibration=calibration,
            segments=tuple(segments),
        )
        (source / TASK).write_bytes(canonical.to_bytes(task))
        if self._session.codes is not None:
            (source / CODES).write_bytes(self._session.codes.packed())
        for one in segments:
            package = instead or self._opened.segments[one.segment]
            self._lay_out(source / segment_name(one.segment), package)
        if calibration:
            self._lay_out_calibration(source / CALIBRATION_FOLDER)
        self._runner.run(source, target)
        shutil.rmtree(source)
        try:
            outcome = ReplayOutcome.from_bytes((target / OUTCOME).read_bytes())
        except (OSError, ValidationError) as error:
            raise ExecutionFailedError(
                "the execution ended without a readable outcome; see what it printed"
            ) from error
        self._check_code(outcome.code_digest)
        return Executed(outcome, target)

    @staticmethod
    def _lay_out(folder: Path, package: SegmentPackage) -> None:
        folder.mkdir()
        (folder / START).write_bytes(package.start)
        (folder / SAMPLES).write_bytes(package.samples.to_bytes())

    def _lay_out_calibration(self, folder: Path) -> None:
        if self._opened.calibration is None:
            return
        folder.mkdir()
        (folder / WEIGHTS).write_bytes(self._session.weights)
        (folder / SAMPLES).write_bytes(self._opened.calibration.samples.to_bytes())

    def _check_runner(self) -> None:
        if self._session.request.config.mint.custody == "auditor":
            raise HeldMintError(
                "the auditor held the MINT Model in this training, so no state of the developer's "
                "is a whole one; a replay of such a training is not possible yet"
            )
        image = self._session.request.image_digest
        if image is not None and self._runner.mode != "container":
            raise ReplayModeError(
                f"the training ran in image {image}; replay it in that image, with --image"
            )
        if image is None and self._runner.mode != "process":
            raise ReplayModeError(
                "the training ran in a plain process, so no image is known; replay it with "
                "--no-container"
            )
        if self._runner.image_digest != image:
            raise ReplayModeError(
                f"the training ran in image {image}, this is {self._runner.image_digest}"
            )
        if self._opened.loop is not None and self._opened.loop not in self._runner.code:
            raise OwnLoopError(
                f"the training ran its own loop {self._opened.loop}, at hand are "
                f"{', '.join(self._runner.code) or 'no files of the developer'}; replay it in the "
                "training's image"
            )
        if self._runner.code_digest is not None:
            self._check_code(self._runner.code_digest)

    def _check_code(self, found: str) -> None:
        expected = self._session.request.code_digest
        if found != expected:
            raise ReplayCodeError(
                f"the training ran code with digest {expected}, here it is {found}; install the "
                "version of auditkit that trained, or replay in the training's image"
            )
