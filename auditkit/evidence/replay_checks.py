"""The check `replay`: what the auditor drew was drawn fairly, and executing it again gave the same.

Two kinds of errors are kept apart. Documents that cannot be what they say (a draw that its seed
does not give, a result of another draw, a grade that its outcomes do not carry) are refused before
they are signed, and fail the check when they turn up in a bundle. Outcomes against the developer (a
segment that differs, or that was not opened) are well-formed evidence; they are signed and kept,
and no later draw washes them away.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from pydantic import ValidationError

from auditkit.evidence import statements
from auditkit.evidence.bundle import Replay
from auditkit.evidence.canonical import sha256_hex
from auditkit.evidence.document_checks import Documents, open_envelope
from auditkit.evidence.errors import EvidenceError, ThresholdError
from auditkit.evidence.findings import Result, Skipped, Warned
from auditkit.evidence.registry_checks import sealed_checkpoint
from auditkit.evidence.replay import (
    LONGEST_TOLERATED_SEGMENT,
    SealedLog,
    SealedLogReader,
    detection,
    draw,
    moves_between,
)
from schemas import (
    DetectionProbability,
    PartResult,
    RegistryExcerpt,
    ReplayDraw,
    ReplayResult,
    SegmentResult,
    SessionRequest,
)
from schemas.base import Schema
from schemas.replay import ReplayGrade

S = TypeVar("S", bound=Schema)

MOVE_TOLERANCE = 1e-6  # relative; sums of many squares differ in the last bits


class ReplayUnsignedError(EvidenceError):
    """A draw or a result is not signed by the auditor's `replay` role."""


class DrawMissingError(EvidenceError):
    """A draw was left out: nobody may draw until the segments suit."""


class DrawMismatchError(EvidenceError):
    """A draw is about another log, or names other segments than seed and log give."""


class DrawTooEarlyError(EvidenceError):
    """Segments were drawn before the log was sealed, when the forger could still avoid them."""


class ResultMismatchError(EvidenceError):
    """A result is of another session, draw or image."""


class SegmentMissingError(EvidenceError):
    """A result does not tell of every drawn segment, once and in the order of the draw."""


class SegmentChainError(EvidenceError):
    """A segment was not executed from the state that the one before it ends in, to the next."""


class OutcomeError(EvidenceError):
    """An outcome contradicts the digests or numbers that stand beside it."""


class ToleranceTooLongError(EvidenceError):
    """A tolerance was applied to a segment so long that it tells nothing."""


class ReplayGradeError(EvidenceError):
    """A result claims a grade that its outcomes do not carry."""


class SegmentDiffersError(EvidenceError):
    """Executing a segment again gave another model than the log commits to."""


class SegmentNotOpenedError(EvidenceError):
    """The developer did not hand over the state and the samples of a drawn segment."""


class FalseMoveError(EvidenceError):
    """The log says that the weights moved by another distance than they did."""


class InitialisationDiffersError(EvidenceError):
    """The training did not start from the weights that the nonce gives."""


class ScoresDifferError(EvidenceError):
    """Scoring the cohorts again gave other scores than were sealed."""


@dataclass(frozen=True)
class OpenDraw:
    """A draw whose signature holds, and the digest that its result must name."""

    document: ReplayDraw
    digest: str


class ReplayCheck:
    """The check, and what it found out about its own strength."""

    def __init__(
        self, documents: Documents, log: SealedLogReader | None, cosigned_at: Sequence[int]
    ) -> None:
        """Prepare the check.

        Args:
            documents: of the session.
            log: has read all of its records; None if they cannot be read.
            cosigned_at: when the auditor cosigned each checkpoint, in Unix seconds; empty if that
                is not known.
        """
        self._documents = documents
        self._log = log
        self._cosigned_at = cosigned_at
        self.detection: DetectionProbability | None = None

    def run(self, *, initial_weights_hold: bool) -> Result:
        """Check every draw and every result.

        Args:
            initial_weights_hold: whether the initial weights were rebuilt here, so that no replay
                needs to have done it.
        """
        replays = self._documents.bundle.replays
        if not replays:
            return Skipped("no replay was performed: a forged training is not excluded")
        if self._log is None:
            return Skipped("the log cannot be read to its end")
        if not self._cosigned_at:
            return Skipped("no cosignature tells when the log was sealed")
        log = self._log.finish(
            self._documents.grant.session_id,
            sealed_checkpoint(self._documents.bundle),
            self._cosigned_at[-1],
        )
        draws = [
            self._open_draw(log, number, replay) for number, replay in enumerate(replays, start=1)
        ]
        answered = [
            (found, self._open_result(log, found, replay.result))
            for found, replay in zip(draws, replays, strict=True)
            if replay.result is not None
        ]
        for _, result in answered:
            judge(log, result)
        if len(answered) < len(draws):
            return Skipped(
                f"{len(draws) - len(answered)} of {len(draws)} draws have no result yet; execute "
                "the segments with `auditkit replay`"
            )
        return self._conclude(log, answered, initial_weights_hold)

    def _open_draw(self, log: SealedLog, number: int, replay: Replay) -> OpenDraw:
        found, digest = _signed(
            self._documents,
            replay.draw,
            statements.REPLAY_DRAW_PREDICATE,
            ReplayDraw,
            lambda found: found.drawn_at,
        )
        check_draw(log, found, number)
        self._check_registered_after_seal(log, digest)
        return OpenDraw(found, digest)

    def _open_result(self, log: SealedLog, drawn: OpenDraw, data: bytes) -> ReplayResult:
        found, _ = _signed(
            self._documents,
            data,
            statements.REPLAY_RESULT_PREDICATE,
            ReplayResult,
            lambda found: found.finished_at,
        )
        check_result(log, self._documents.request, drawn, found)
        return found

    def _check_registered_after_seal(self, log: SealedLog, digest: str) -> None:
        """Compare places in the registry; that they are proven is the check of the registry."""
        if self._documents.bundle.registry is None:
            return
        try:
            excerpt = RegistryExcerpt.from_bytes(self._documents.bundle.registry)
        except ValidationError:
            return  # the check of the registry has said so
        places = {(found.entry.kind, found.entry.digest): found.index for found in excerpt.entries}
        sealed, drawn = places.get(("seal", log.seal_digest)), places.get(("draw", digest))
        if sealed is not None and drawn is not None and drawn < sealed:
            raise DrawTooEarlyError(
                f"a draw is entry {drawn} of the registry, the seal is entry {sealed}: the "
                "segments were drawn before the training had ended"
            )

    def _conclude(
        self,
        log: SealedLog,
        answered: Sequence[tuple[OpenDraw, ReplayResult]],
        initial_weights_hold: bool,
    ) -> Result:
        results = [result for _, result in answered]
        if not initial_weights_hold and _unchecked(result.initialisation for result in results):
            return Skipped("neither this verification nor a replay made the initial weights anew")
        if _unchecked(result.scores for result in results):
            return Skipped("no replay covered the calibration scores")
        grade: ReplayGrade = (
            "weak" if any(result.grade == "weak" for result in results) else "strong"
        )
        self.detection = detection(log.segments, [found.document for found, _ in answered], grade)
        found = (
            f"{self.detection.executed} of {self.detection.segments} segments executed again, "
            f"{self.detection.uniform} of them drawn at random"
        )
        if grade == "weak":
            return Warned(
                f"{found}; weak: not equal bit by bit, but within the tolerance that honest noise "
                f"between machine classes explains over at most {LONGEST_TOLERATED_SEGMENT} steps"
            )
        return f"{found}; strong: every one is equal bit by bit"


def check_draw(log: SealedLog, found: ReplayDraw, number: int) -> None:
    """Check that a draw is about this log, was made after its seal, and follows from its seed.

    Args:
        log: that it must be about.
        found: the draw.
        number: that it must have.

    Raises:
        DrawMissingError: it has another number.
        DrawMismatchError: it is about another log, or `draw` gives other segments for its seed.
        DrawTooEarlyError: it was made before the auditor had cosigned the sealed log.
    """
    if found.number != number:
        raise DrawMissingError(
            f"draw {found.number} stands where number {number} is expected; show every draw, from "
            "the first one on"
        )
    for what, named, expected in (
        ("session", found.session_id, log.session_id),
        ("seal", found.seal_digest, log.seal_digest),
        ("size of the log", found.log_size, log.size),
        ("root of the log", found.log_root, log.root),
    ):
        if named != expected:
            raise DrawMismatchError(
                f"draw {found.draw_id} names {what} {named}, this log has {expected}"
            )
    if found.drawn_at.timestamp() < log.cosigned_at:
        raise DrawTooEarlyError(
            f"draw {found.draw_id} is of {found.drawn_at.isoformat()}, "
            f"{log.cosigned_at - found.drawn_at.timestamp():.0f} s before the sealed log was "
            "cosigned: a forger could still avoid the drawn segments"
        )
    segments = draw(
        bytes.fromhex(found.seed),
        log.segments,
        moves_between(log.states),
        found.uniform,
        found.largest,
    )
    if found.segments != segments:
        raise DrawMismatchError(
            f"draw {found.draw_id} names {len(found.segments)} segments, not those that its seed "
            "and the log give: they were chosen"
        )


def check_result(
    log: SealedLog, request: SessionRequest, drawn: OpenDraw, result: ReplayResult
) -> None:
    """Check that a result is one of this draw, and that it does not contradict itself.

    It may well tell that the training was forged: see `judge`.

    Args:
        log: of the session.
        request: of the session.
        drawn: what was to be executed.
        result: what was found.

    Raises:
        ResultMismatchError, SegmentMissingError, SegmentChainError, OutcomeError,
            ToleranceTooLongError, ReplayGradeError: see there.
    """
    for what, named, expected in (
        ("session", result.session_id, drawn.document.session_id),
        ("draw", result.draw_digest, drawn.digest),
        ("image", result.image_digest, request.image_digest),
        ("mode", result.mode, "process" if request.image_digest is None else "container"),
    ):
        if named != expected:
            raise ResultMismatchError(
                f"a replay's result names {what} {named}, expected was {expected}"
            )
    told = tuple(outcome.segment for outcome in result.segments)
    if told != drawn.document.segments:
        raise SegmentMissingError(
            f"{len(drawn.document.segments)} segments were drawn, the result tells of {len(told)}, "
            "or of others; every drawn one must have its outcome, in the order of the draw"
        )
    digests = {state.step: state.state_digest for state in log.states}
    for outcome in result.segments:
        _check_segment(outcome, digests)
    _check_part("initialisation", result.initialisation, log.states[0].weights_digest)
    _check_part("calibration scores", result.scores, log.scores_digest)
    carried = "weak" if "within_tolerance" in outcomes_of(result) else "strong"
    if result.grade != carried:
        raise ReplayGradeError(
            f"the result claims to be {result.grade}, its outcomes make it {carried}: strong is "
            "only what is equal bit by bit"
        )


def outcomes_of(result: ReplayResult) -> set[str]:
    """Return every outcome that a result tells of: segments, initialisation and scores."""
    return {
        *(found.outcome for found in result.segments),
        result.initialisation.outcome,
        result.scores.outcome,
    }


def judge(log: SealedLog, result: ReplayResult) -> None:
    """Say whether a well-formed result speaks against the training.

    Args:
        log: of the session.
        result: what was found.

    Raises:
        SegmentNotOpenedError, SegmentDiffersError, FalseMoveError, InitialisationDiffersError,
            ScoresDifferError: it does.
    """
    moves = {state.step: state.moved for state in log.states}
    for outcome in result.segments:
        name = _name(outcome)
        if outcome.outcome == "not_opened":
            raise SegmentNotOpenedError(
                f"{name} was drawn, and the developer did not open it; what is not shown counts "
                "as forged"
            )
        if outcome.outcome == "differs":
            raise SegmentDiffersError(
                f"{name} was executed again and gave another model than the log commits to"
                f"{_how_far(outcome)}"
            )
        logged = moves[outcome.segment.last_state_step]
        if (
            outcome.outcome == "exact"
            and None not in (logged, outcome.moved)
            and not math.isclose(logged or 0.0, outcome.moved or 0.0, rel_tol=MOVE_TOLERANCE)
        ):
            raise FalseMoveError(
                f"the log says that the weights moved by {logged} in {name}, they moved by "
                f"{outcome.moved}: which moves are the largest was made up"
            )
    if result.initialisation.outcome == "differs":
        raise InitialisationDiffersError(
            "building the model from the nonce gave other weights than those that the training "
            f"started from{_how_far(result.initialisation)}"
        )
    if result.scores.outcome == "differs":
        raise ScoresDifferError(
            "scoring the cohorts with the sealed model gave other scores than were sealed"
            f"{_how_far(result.scores)}"
        )


def _signed(
    documents: Documents,
    data: bytes,
    predicate_type: str,
    model: type[S],
    dated: Callable[[S], datetime],
) -> tuple[S, str]:
    envelope = open_envelope(data)
    try:
        found = documents.history.verify_statement(
            "replay",
            envelope,
            predicate_type,
            model,
            dated=dated,
            known_by=documents.registered_by(envelope),
        )
    except ThresholdError as error:
        raise ReplayUnsignedError(
            f"a {model.__name__} is not signed by the auditor's replay role: {error}"
        ) from error
    return found, sha256_hex(envelope.payload)


def _check_segment(found: SegmentResult, digests: dict[int, str]) -> None:
    name, segment = _name(found), found.segment
    if found.outcome in ("exact", "within_tolerance"):
        if found.start_digest != digests[segment.first_state_step]:
            raise SegmentChainError(
                f"{name} was executed from state {found.start_digest}, the segment before it ends "
                f"in {digests[segment.first_state_step]}"
            )
        if found.steps != segment.steps:
            raise OutcomeError(f"{name} has {segment.steps} steps, executed were {found.steps}")
    if found.outcome == "exact" and found.end_digest != digests[segment.last_state_step]:
        raise SegmentChainError(
            f"{name} is said to be exact and ended in state {found.end_digest}, the next segment "
            f"starts from {digests[segment.last_state_step]}"
        )
    if found.outcome == "within_tolerance":
        if segment.steps > LONGEST_TOLERATED_SEGMENT:
            raise ToleranceTooLongError(
                f"{name} has {segment.steps} steps and was judged by tolerance; honest noise hides "
                f"a forgery in more than {LONGEST_TOLERATED_SEGMENT}"
            )
        _check_tolerance(name, found)


def _check_part(what: str, found: PartResult, committed: str) -> None:
    if found.outcome == "exact" and found.digest != committed:
        raise OutcomeError(
            f"the {what} are said to be exact and hash to {found.digest}, the log commits to "
            f"{committed}"
        )
    if found.outcome == "within_tolerance":
        _check_tolerance(f"the {what}", found)


def _check_tolerance(what: str, found: SegmentResult | PartResult) -> None:
    if found.distance is None or found.tolerance is None or found.distance > found.tolerance:
        raise OutcomeError(
            f"{what} are said to lie within tolerance, with distance {found.distance} and "
            f"tolerance {found.tolerance}"
        )


def _unchecked(parts: Iterable[PartResult]) -> bool:
    return all(part.outcome == "not_checked" for part in parts)


def _name(found: SegmentResult) -> str:
    return (
        f"the segment from step {found.segment.first_state_step} to {found.segment.last_state_step}"
    )


def _how_far(found: SegmentResult | PartResult) -> str:
    """Return what is known of a difference, as the end of a sentence."""
    parts = []
    if found.distance is not None:
        parts.append(f"distance {found.distance:.3g}")
    if found.tolerance is not None:
        parts.append(f"honest noise reaches {found.tolerance:.3g}")
    if isinstance(found, SegmentResult) and found.first_differing_step is not None:
        parts.append(f"the first differing step is {found.first_differing_step}")
    return f" ({', '.join(parts)})" if parts else ""
