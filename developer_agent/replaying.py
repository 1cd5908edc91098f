"""The auditor's replay: execute the drawn segments again, and say what came of it.

Everything that a package opens is checked against the log before anything is executed, and what is
executed is never told which end state is expected. A state that is not equal bit by bit is executed
once more in a fresh process, since a loaded machine has been seen to err. What then still differs
is judged by tolerance if, and only if, the machine is of another class and the segment is short.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from torch import Tensor

from auditkit.evidence import canonical
from auditkit.evidence.replay import LONGEST_TOLERATED_SEGMENT
from auditkit.evidence.replay_checks import OpenDraw, check_result
from auditkit.mint.scores import read_scores, write_scores
from developer_agent.replay_evidence import Opened, ReplayError, SealedSession
from developer_agent.replay_execution import SegmentTask
from developer_agent.replay_runs import Executed, Execution, Runner
from developer_agent.replay_tolerance import (
    Deviation,
    Variant,
    class_differences,
    deviation,
    honest_variants,
    score_parts,
    state_parts,
)
from developer_agent.segment_package import (
    package_path,
    read_package,
    segment_name,
    shown_rows,
    with_one_swapped,
)
from developer_agent.state import read_tensors, weights_digest
from schemas import PartResult, ReplayResult, ReplaySegment, SegmentResult
from schemas.replay import PartOutcome


class MachineClassError(ReplayError):
    """This machine is of another class than the training's, and the segment is too long."""


class ToleranceTooWideError(ReplayError):
    """Honest noise is as large as a forgery, so that a tolerance tells nothing."""


class TraceMismatchError(ReplayError):
    """A trace is not of its segment, or does not lead to the committed state."""


class Replaying:
    """Replays one draw."""

    def __init__(
        self,
        sealed: SealedSession,
        drawn: OpenDraw,
        opened: Opened,
        runner: Runner,
        *,
        bisect: bool = False,
        steps_folder: Path | None = None,
        say: Callable[[str], None] = lambda _text: None,
    ) -> None:
        """Prepare.

        Args:
            sealed: what to compare with.
            drawn: which segments.
            opened: checked packages of them.
            runner: where to execute.
            bisect: find the first differing step of a segment that differs.
            steps_folder: where packages of single steps lie.
            say: told what is done, for display.
        """
        self._sealed = sealed
        self._drawn = drawn
        self._opened = opened
        self._runner = runner
        self._bisect = bisect
        self._steps_folder = steps_folder
        self._say = say

    def run(self) -> ReplayResult:
        """Execute all that was opened, and return the result.

        Raises:
            ReplayError: nothing can be said; the subclass says why.
            AgentError, ContainerError: see the messages.
        """
        started_at = datetime.now(UTC)
        opened = tuple(
            segment for segment in self._drawn.document.segments if segment in self._opened.segments
        )
        with _work_folder() as work:
            execution = Execution(self._sealed, self._opened, self._runner, work)
            self._say(f"executing {sum(one.steps for one in opened)} steps again")
            first = execution.run(
                [SegmentTask(segment=one) for one in dict.fromkeys(opened)],
                initial=True,
                calibration=self._opened.calibration is not None,
            )
            results = self._segments(execution, first)
            segments = tuple(results[one] for one in self._drawn.document.segments)
            result = ReplayResult(
                session_id=self._sealed.grant.session_id,
                draw_digest=self._drawn.digest,
                environment=first.outcome.environment,
                mode=self._runner.mode,
                image_digest=self._runner.image_digest,
                segments=segments,
                initialisation=self._initialisation(first),
                scores=self._scores(execution, first),
                grade="strong",
                started_at=started_at,
                finished_at=datetime.now(UTC),
            )
        outcomes = {
            *(one.outcome for one in segments),
            result.initialisation.outcome,
            result.scores.outcome,
        }
        if "within_tolerance" in outcomes:
            result = result.model_copy(update={"grade": "weak"})
        check_result(self._sealed.log, self._sealed.request, self._drawn, result)
        return result

    # -- segments -------------------------------------------------------------------------------

    def _segments(
        self, execution: Execution, first: Executed
    ) -> dict[ReplaySegment, SegmentResult]:
        drawn = tuple(dict.fromkeys(self._drawn.document.segments))
        last = dict.fromkeys(self._opened.segments, first)
        wrong = [one for one in self._opened.segments if not self._is_exact(first, one)]
        if wrong:
            self._say(f"{len(wrong)} segments are not equal; executing them once more")
            again = execution.run([SegmentTask(segment=one) for one in wrong])
            last |= dict.fromkeys(wrong, again)
        return {
            one: self._judged(execution, last[one], one) if one in last else _not_opened(one)
            for one in drawn
        }

    def _is_exact(self, executed: Executed, segment: ReplaySegment) -> bool:
        committed = self._sealed.states[segment.last_state_step].state_digest
        return executed.segment(segment).end_digest == committed

    def _judged(
        self, execution: Execution, executed: Executed, segment: ReplaySegment
    ) -> SegmentResult:
        found = executed.segment(segment)
        package = self._opened.segments[segment]
        result = SegmentResult(
            segment=segment,
            outcome="exact",
            start_digest=canonical.sha256_hex(package.start),
            end_digest=found.end_digest,
            moved=found.moved,
            steps=segment.steps,
            seconds=found.seconds,
        )
        if not self._has_logged_weights(segment):
            self._say(f"{segment_name(segment)}: the log names weights that its states do not have")
            return result.model_copy(update={"outcome": "differs"})
        if self._is_exact(executed, segment):
            return result
        off = self._deviation(execution, executed, segment)
        result = result.model_copy(
            update={
                "outcome": "differs",
                "distance": off.distance,
                "tolerance": off.tolerance if self._other_class(executed) else None,
            }
        )
        if self._other_class(executed) and off.tolerated:
            return result.model_copy(update={"outcome": "within_tolerance"})
        if self._bisect:
            step = self._first_differing_step(execution, segment)
            result = result.model_copy(update={"first_differing_step": step})
        return result

    def _has_logged_weights(self, segment: ReplaySegment) -> bool:
        """Tell whether the states hold the weights that the log names beside them."""
        package = self._opened.segments[segment]
        return all(
            weights_digest(state) == self._sealed.states[step].weights_digest
            for step, state in (
                (segment.first_state_step, package.start),
                (segment.last_state_step, package.end),
            )
        )

    def _other_class(self, executed: Executed) -> tuple[str, ...]:
        return class_differences(self._sealed.request.environment, executed.outcome.environment)

    def _deviation(
        self, execution: Execution, executed: Executed, segment: ReplaySegment
    ) -> Deviation:
        """Return how far the committed end lies off, by honest noise where that is allowed."""
        step = segment.last_state_step
        other_class = self._other_class(executed)
        if other_class and segment.steps > LONGEST_TOLERATED_SEGMENT:
            raise MachineClassError(
                f"the segment {segment_name(segment)} is not equal bit by bit, which says nothing: "
                f"this machine is of another class ({'; '.join(other_class)}), and over more than "
                f"{LONGEST_TOLERATED_SEGMENT} steps honest noise hides a forgery. Replay on a "
                "machine of the training's class, or order a state_interval_steps of at most "
                f"{LONGEST_TOLERATED_SEGMENT}"
            )
        honest = []
        if other_class:
            for variant in honest_variants(executed.outcome.environment):
                self._say(f"measuring honest noise: {_described(variant)}")
                ran = execution.run([SegmentTask(segment=segment)], variant=variant)
                honest.append(state_parts(read_tensors(ran.state(segment, step))))
            self._check_power(execution, executed, segment, honest)
        return deviation(
            state_parts(read_tensors(executed.state(segment, step))),
            state_parts(read_tensors(self._opened.segments[segment].end)),
            honest,
        )

    def _check_power(
        self,
        execution: Execution,
        executed: Executed,
        segment: ReplaySegment,
        honest: Sequence[Mapping[str, Mapping[str, Tensor]]],
    ) -> None:
        """Check that the tolerance would not let the smallest forgery of interest pass."""
        step = segment.last_state_step
        self._say("measuring what one swapped sample does")
        package = with_one_swapped(self._opened.segments[segment], self._sealed.session.schedule)
        forged = execution.run([SegmentTask(segment=segment)], instead=package)
        found = deviation(
            state_parts(read_tensors(executed.state(segment, step))),
            state_parts(read_tensors(forged.state(segment, step))),
            honest,
        )
        if found.tolerated:
            raise ToleranceTooWideError(
                f"{segment_name(segment)} is not equal bit by bit, and no tolerance can judge it: "
                f"with one sample swapped in its last step the state lies {found.ratio:.2g} "
                "tolerances off, within what honest noise explains. Replay on a machine of the "
                "training's class; training in float32 instead of bfloat16 makes less noise"
            )

    # -- disputes -------------------------------------------------------------------------------

    def _first_differing_step(self, execution: Execution, segment: ReplaySegment) -> int | None:
        """Compare the states after each step with the developer's own account of them."""
        trace = self._opened.traces.get(segment)
        if trace is None:
            self._say(
                f"no trace of {segment_name(segment)}: ask the developer for it with `auditkit "
                "disclose --bisect`"
            )
            return None
        committed = self._sealed.states[segment.last_state_step].state_digest
        if (
            trace.session_id != self._sealed.grant.session_id
            or trace.segment != segment
            or len(trace.digests) != segment.steps
            or trace.digests[-1] != committed
        ):
            raise TraceMismatchError(
                f"the trace of {segment_name(segment)} must have a state for each of its "
                f"{segment.steps} steps and lead to {committed}, which the log commits to"
            )
        self._say(f"bisecting {segment_name(segment)}")
        task = SegmentTask(segment=segment, traced=True)
        own = execution.run([task]).segment(segment).trace
        place = next(
            (
                place
                for place, pair in enumerate(zip(own, trace.digests, strict=True), start=1)
                if pair[0] != pair[1]
            ),
            None,
        )
        if place is None:
            raise TraceMismatchError(
                f"executed step by step, {segment_name(segment)} gives the committed state; this "
                "machine does not give the same every time, so replay on another one"
            )
        step = segment.first_state_step + place
        before = (
            self._sealed.states[segment.first_state_step].state_digest
            if place == 1
            else trace.digests[place - 2]
        )
        self._check_step(step, before, trace.digests[place - 1])
        return step

    def _check_step(self, step: int, before: str, after: str) -> None:
        """Execute the disputed step alone, from the state that both sides agree on."""
        single = ReplaySegment(first_state_step=step - 1, last_state_step=step)
        path = None if self._steps_folder is None else package_path(self._steps_folder, single)
        if path is None or not path.exists():
            self._say(
                f"step {step} is the first that differs; ask for it alone with `auditkit disclose "
                f"--step {step}`"
            )
            return
        package = read_package(path)
        package.check(
            {step - 1: before, step: after},
            shown_rows(self._sealed.session.schedule, single),
            self._sealed.pool_leaves,
            session_id=self._sealed.grant.session_id,
        )
        opened = replace(self._opened, segments={single: package}, calibration=None)
        with _work_folder() as work:
            executed = Execution(self._sealed, opened, self._runner, work).run(
                [SegmentTask(segment=single)]
            )
        if executed.segment(single).end_digest == after:
            raise TraceMismatchError(
                f"executed alone, step {step} gives what the developer says; this machine does not "
                "give the same every time, so replay on another one"
            )
        self._say(f"step {step}, executed alone from the agreed state, differs")

    # -- initialisation and scores --------------------------------------------------------------

    def _initialisation(self, executed: Executed) -> PartResult:
        outcome, committed = executed.outcome, self._sealed.log.states[0]
        equal = (outcome.initial_weights, outcome.initial_state) == (
            committed.weights_digest,
            committed.state_digest,
        )
        if equal:
            return PartResult(outcome="exact", digest=outcome.initial_weights)
        # Without the developer's own initial state there is nothing to measure a distance from.
        unlike: PartOutcome = "not_checked" if self._other_class(executed) else "differs"
        return PartResult(outcome=unlike, digest=outcome.initial_weights)

    def _scores(self, execution: Execution, executed: Executed) -> PartResult:
        if self._opened.calibration is None:
            return PartResult(outcome="not_checked", digest=None)
        sealed = read_scores(self._sealed.scores)
        found = executed.scores()
        # The other cohorts stay the developer's: their samples are not opened.
        digest = canonical.sha256_hex(write_scores({**sealed, "calibration": found}))
        if digest == self._sealed.log.scores_digest:
            return PartResult(outcome="exact", digest=digest)
        honest = []
        if self._other_class(executed):
            for variant in honest_variants(executed.outcome.environment):
                self._say(f"measuring honest noise of the scores: {_described(variant)}")
                ran = execution.run(calibration=True, variant=variant)
                honest.append(score_parts(ran.scores()))
        off = deviation(score_parts(found), score_parts(sealed["calibration"]), honest)
        return PartResult(
            outcome="within_tolerance" if honest and off.tolerated else "differs",
            digest=digest,
            distance=off.distance,
            tolerance=off.tolerance if honest else None,
        )


def _not_opened(segment: ReplaySegment) -> SegmentResult:
    return SegmentResult(
        segment=segment,
        outcome="not_opened",
        start_digest=None,
        end_digest=None,
        steps=0,
        seconds=0.0,
    )


def _described(variant: Variant) -> str:
    processor = variant.cpu_capability or "this processor"
    return f"{variant.threads} threads, {processor}"


@contextmanager
def _work_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="auditkit-replay-") as path:
        yield Path(path)
