"""What the developer does when the auditor has drawn: open the drawn segments, and nothing else.

A package holds the two states of a segment and the samples that it shows. Nothing leaves the run
folder that the log does not commit to, so each package is checked, as the auditor will check it,
before it is written. States are needed for as long as the auditor may draw: none may be deleted
before.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np

from auditkit.data.manifest import Manifest, sample_key
from auditkit.data.pools import Pool
from auditkit.evidence import canonical, dsse, statements
from auditkit.evidence.derivation import Indices
from auditkit.evidence.replay import CommittedState, committed_states
from auditkit.evidence.trust_history import TrustHistory
from developer_agent.disk import write_atomically
from developer_agent.errors import AgentError
from developer_agent.granted import GrantedTraining
from developer_agent.replay_evidence import ExecutableSession, Opened
from developer_agent.replay_execution import SegmentTask
from developer_agent.replay_runs import Executed, Execution, Runner
from developer_agent.replayed_loop import CodesNeededError
from developer_agent.run_folder import RunFolder
from developer_agent.segment_package import (
    CALIBRATION_NAME,
    CalibrationDescription,
    CalibrationPackage,
    OpenedSamples,
    SegmentDescription,
    SegmentPackage,
    Trace,
    package_path,
    segment_name,
    shown_rows,
    trace_path,
)
from developer_agent.session import RunMismatchError, read_grant
from developer_agent.spool import Spool
from developer_agent.state import state_digest, state_name
from schemas import ModelDescription, ReplayDraw, ReplaySegment, SessionRequest, parse_record


class DisclosureError(AgentError):
    """A drawn segment cannot be opened."""


class DrawMismatchedError(DisclosureError):
    """A draw is not about this run."""


class StateDeletedError(DisclosureError):
    """A training state that the log commits to is no longer there, or is damaged."""


class StepNotDrawnError(DisclosureError):
    """A step lies in no drawn segment."""


class NotReproducedError(DisclosureError):
    """Executing a segment again does not lead to the state that the log commits to."""


class _Package(Protocol):
    def write_to(self, file: BinaryIO) -> None: ...


@dataclass(frozen=True)
class Disclosure:
    """Opens what one draw asks for.

    Attributes:
        folder: of the run.
        pool: the run's, read again.
        draw: verified.
        draw_digest: SHA-256 of its payload.
        loop: the developer's own training loop, by its name in the image; None: the built-in.
    """

    folder: RunFolder
    pool: Pool
    draw: ReplayDraw
    draw_digest: str
    loop: str | None = None

    @classmethod
    def of(
        cls, folder: RunFolder, pool: Pool, trust_root: bytes, draw: bytes, loop: str | None = None
    ) -> "Disclosure":
        """Verify a draw, and prepare to open it.

        Args:
            folder: of the run.
            pool: the run's, read again.
            trust_root: the auditor's, as it was handed over.
            draw: a DSSE envelope.
            loop: see above.

        Raises:
            EvidenceError: the draw is not signed by the auditor.
            DrawMismatchedError: it is about another session.
            RunMismatchError: the pool is not the one that the run has committed to.
        """
        envelope = dsse.Envelope.from_bytes(draw)
        history = TrustHistory.open(trust_root)
        history.check_current(datetime.now(UTC))
        found = history.verify_statement(
            "replay",
            envelope,
            statements.REPLAY_DRAW_PREDICATE,
            ReplayDraw,
            dated=lambda one: one.drawn_at,
        )
        own = read_grant(folder).session_id
        if found.session_id != own:
            raise DrawMismatchedError(
                f"the draw is about session {found.session_id}, {folder.path} holds {own}"
            )
        disclosure = cls(folder, pool, found, canonical.sha256_hex(envelope.payload), loop)
        if disclosure.manifest.commitment != disclosure.session.request.pool:
            raise RunMismatchError(
                f"the pool differs from what the run in {folder.path} has committed to; restore "
                "the data, nothing else can be opened"
            )
        return disclosure

    @cached_property
    def manifest(self) -> Manifest:
        """The keyed leaves of the pool."""
        return Manifest(self.pool, self.folder.manifest_key.read())

    @cached_property
    def session(self) -> GrantedTraining:
        """Request and grant of the run."""
        request = SessionRequest.from_bytes(self.folder.request.read())
        return GrantedTraining(request=request, grant=read_grant(self.folder))

    @cached_property
    def states(self) -> dict[int, CommittedState]:
        """The states that the log commits to, by their steps."""
        with Spool.open(self.folder.records_path) as log:
            found = committed_states(parse_record(line) for line in log.lines())
        return {state.step: state for state in found}

    @property
    def segments(self) -> tuple[ReplaySegment, ...]:
        """What was drawn, each segment once."""
        return tuple(dict.fromkeys(self.draw.segments))

    def package(self, segment: ReplaySegment) -> SegmentPackage:
        """Return the package of a drawn segment, checked as the auditor will check it.

        Raises:
            StateDeletedError: a state of the segment is gone.
            PackageError: something is not as the log commits to it.
        """
        rows = shown_rows(self.session.schedule, segment)
        package = SegmentPackage(
            SegmentDescription(
                session_id=self.draw.session_id,
                draw_digest=self.draw_digest,
                segment=segment,
                loop=self.loop,
            ),
            self._state(segment.first_state_step),
            self._state(segment.last_state_step),
            self._samples(rows),
        )
        package.check(
            {step: state.state_digest for step, state in self.states.items()},
            rows,
            self.manifest.leaves,
            session_id=self.draw.session_id,
        )
        return package

    def calibration(self) -> CalibrationPackage:
        """Return the package that opens C."""
        description = CalibrationDescription(
            session_id=self.draw.session_id, draw_digest=self.draw_digest
        )
        return CalibrationPackage(
            description, self._samples(self.session.schedule.split.calibration)
        )

    def trace(self, segment: ReplaySegment, runner: Runner) -> Trace:
        """Execute a segment again, and return the digest of the state after each step.

        Raises:
            NotReproducedError: it does not lead to the committed state.
            CodesNeededError: T learned codes, which the developer must not keep.
            AgentError, ContainerError: it cannot be executed.
        """
        with tempfile.TemporaryDirectory(prefix="auditkit-disclose-") as work:
            executed = self._execute(SegmentTask(segment=segment, traced=True), runner, Path(work))
            digests = executed.segment(segment).trace
        return Trace(session_id=self.draw.session_id, segment=segment, digests=digests)

    def step_package(self, step: int, runner: Runner) -> SegmentPackage:
        """Return a package of one step alone: the states before and after it, and its samples.

        Raises:
            StepNotDrawnError: it lies in no drawn segment.
            NotReproducedError, CodesNeededError, AgentError, ContainerError: as for `trace`.
        """
        segment = next(
            (one for one in self.segments if one.first_state_step < step <= one.last_state_step),
            None,
        )
        if segment is None:
            raise StepNotDrawnError(
                f"step {step} lies in none of the {len(self.segments)} drawn segments; only these "
                "are opened"
            )
        single = ReplaySegment(first_state_step=step - 1, last_state_step=step)
        kept = tuple(one for one in (step - 1, step) if one > segment.first_state_step)
        with tempfile.TemporaryDirectory(prefix="auditkit-disclose-") as work:
            executed = self._execute(SegmentTask(segment=segment, keep=kept), runner, Path(work))
            before, after = (
                executed.state(segment, one) if one in kept else self._state(one)
                for one in (step - 1, step)
            )
        description = SegmentDescription(
            session_id=self.draw.session_id,
            draw_digest=self.draw_digest,
            segment=single,
            loop=self.loop,
        )
        samples = self._samples(shown_rows(self.session.schedule, single))
        return SegmentPackage(description, before, after, samples)

    def _execute(self, task: SegmentTask, runner: Runner, work: Path) -> Executed:
        grant = self.session.grant
        if grant.code_commitment is not None:
            raise CodesNeededError(
                f"session {grant.session_id} was one of membership codes; the auditor alone keeps "
                "them after the seal, so the auditor alone can execute its steps again"
            )
        opened = Opened({task.segment: self.package(task.segment)}, None, {}, self.loop)
        description = ModelDescription.from_bytes(self.folder.description.read())
        session = ExecutableSession(
            request=self.session.request,
            grant=grant,
            normalisation=description.normalisation,
            weights=self.folder.weights.read(),
            codes=None,
        )
        executed = Execution(session, opened, runner, work).run([task])
        found = executed.segment(task.segment).end_digest
        expected = self.states[task.segment.last_state_step].state_digest
        if found != expected:
            raise NotReproducedError(
                f"executed again, {segment_name(task.segment)} gives the state {found}, the log "
                f"commits to {expected}; try again on the machine that trained, with nothing else "
                "running"
            )
        return executed

    def _state(self, step: int) -> bytes:
        file = self.folder.state(state_name(step))
        if not file.exists():
            raise StateDeletedError(
                f"the auditor drew a segment with the state after step {step}, and {file.path} is "
                "gone; states must be kept until the auditor releases them: restore it from a "
                "backup, since what is not opened counts as forged"
            )
        data = file.read()
        if step not in self.states or state_digest(data) != self.states[step].state_digest:
            raise StateDeletedError(
                f"{file.path} is not the state after step {step} that the log commits to; restore "
                "it from a backup, since what is not opened counts as forged"
            )
        return data

    def _samples(self, rows: Indices) -> OpenedSamples:
        key = self.folder.manifest_key.read()
        keys = b"".join(sample_key(key, int(index)) for index in rows)
        return OpenedSamples(
            rows,
            self.pool.images[rows],
            self.pool.labels[rows],
            np.frombuffer(keys, dtype=np.uint8).reshape(len(rows), -1),
        )


def write_packages(
    disclosure: Disclosure,
    output: Path,
    *,
    calibration: bool = False,
    on_written: Callable[[Path], None] = lambda _path: None,
) -> None:
    """Write the package of every drawn segment, and of C if asked, into a folder.

    Raises:
        DisclosureError, PackageError: nothing more is written.
        OSError: a file cannot be written.
    """
    output.mkdir(parents=True, exist_ok=True)
    for segment in disclosure.segments:
        path = package_path(output, segment)
        write_package(disclosure.package(segment), path)
        on_written(path)
    if calibration:
        path = output / CALIBRATION_NAME
        write_package(disclosure.calibration(), path)
        on_written(path)


def write_traces(
    disclosure: Disclosure,
    output: Path,
    runner: Runner,
    on_written: Callable[[Path], None] = lambda _path: None,
) -> None:
    """Write the trace of every drawn segment into a folder.

    Raises:
        NotReproducedError, CodesNeededError, AgentError, ContainerError: see `Disclosure.trace`.
    """
    output.mkdir(parents=True, exist_ok=True)
    for segment in disclosure.segments:
        path = trace_path(output, segment)
        write_atomically(path, canonical.to_bytes(disclosure.trace(segment, runner)))
        on_written(path)


def write_package(package: _Package, path: Path) -> None:
    """Write a package's file; a crash leaves none, or a whole one.

    Raises:
        OSError: it cannot be written.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            package.write_to(file)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
