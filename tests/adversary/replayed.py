"""Staged sessions whose segments were drawn and executed again, honestly or not."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from forge import ENVIRONMENT, ROLE_KEYS, SESSION, Changes, Plot, StoryEdit, digest_of

from auditkit.evidence import dsse, notes, statements
from auditkit.evidence.bundle import Bundle, Replay
from auditkit.evidence.canonical import sha256_hex
from auditkit.evidence.keys import SigningKey
from auditkit.evidence.replay import SealedLog, SealedLogReader, make_draw
from schemas import (
    DrawRequest,
    PartResult,
    Record,
    ReplayDraw,
    ReplayResult,
    ReplaySegment,
    SegmentResult,
    SessionRequest,
    StateRecord,
    parse_record,
)
from schemas.base import Schema
from tests.evidence.contained import contained_run

STATES_EVERY = 2
SEED = bytes.fromhex(digest_of("32 fresh bytes"))
ASKED = DrawRequest(uniform=2, largest=1)
Segments = tuple[ReplaySegment, ...]


@dataclass(frozen=True)
class ReplayPlot:
    """Where a draw or its result departs from an honest one.

    Attributes:
        draw: changes to the draw.
        chosen: edits which segments it names.
        draw_key: who signs it.
        first: changes to what the result says of the first drawn segment.
        segments: edits what the result says of all of them.
        result: further changes to the result; None: there is none yet.
        result_key: who signs it.
        delay: between the last cosignature and the draw.
    """

    draw: Changes = field(default_factory=dict)
    chosen: Callable[[Segments], Segments] = lambda all_: all_
    draw_key: SigningKey = ROLE_KEYS["replay"]
    first: Changes = field(default_factory=dict)
    segments: Callable[[tuple[SegmentResult, ...]], tuple[SegmentResult, ...]] = lambda all_: all_
    result: Changes | None = field(default_factory=dict)
    result_key: SigningKey = ROLE_KEYS["replay"]
    delay: timedelta = timedelta(hours=1)


def with_moves(story: list[Record]) -> list[Record]:
    """Let every state but the first say how far the weights moved, as agents do."""
    return [
        record.model_copy(update={"moved": 1.0 / record.step})
        if isinstance(record, StateRecord) and record.step
        else record
        for record in story
    ]


def replayed(
    *replays: ReplayPlot,
    interval: int = STATES_EVERY,
    story: tuple[StoryEdit, ...] = (),
    **changes: object,
) -> Plot:
    """A session in a closed container whose segments were drawn and executed again."""
    return Plot(
        container=contained_run(),
        config={"state_interval_steps": interval},
        story=(with_moves, *story),
        verdicts=(),
        bundle=lambda bundle: with_replays(bundle, replays),
        **changes,  # type: ignore[arg-type]
    )


def with_replays(bundle: Bundle, plots: tuple[ReplayPlot, ...]) -> Bundle:
    log = sealed_log(bundle)
    request = SessionRequest.from_bytes(bundle.request)
    made = tuple(_replay(log, request, number, plot) for number, plot in enumerate(plots, start=1))
    return replace(bundle, replays=made)


def sealed_log(bundle: Bundle) -> SealedLog:
    reader = SealedLogReader()
    for line in bundle.records:
        reader.observe(line, parse_record(line))
    note = notes.parse(tuple(bundle.checkpoints)[-1])
    cosignature = next(line for line in note.signatures if line.name.endswith("/cosigner"))
    time = int.from_bytes(cosignature.signature[:8], "big")
    return reader.finish(SESSION, notes.parse_checkpoint(note.text), time)


def signed(predicate_type: str, predicate: Schema, key: SigningKey) -> dsse.Envelope:
    subject = {f"replay/{SESSION}": digest_of("a replay")}
    return dsse.sign(statements.make(predicate_type, predicate, subject), [key])


def executed(log: SealedLog, drawn: ReplayDraw) -> tuple[SegmentResult, ...]:
    """What executing the drawn segments of an honest training gives."""
    states = {state.step: state for state in log.states}
    return tuple(
        SegmentResult(
            segment=segment,
            outcome="exact",
            start_digest=states[segment.first_state_step].state_digest,
            end_digest=states[segment.last_state_step].state_digest,
            moved=states[segment.last_state_step].moved,
            steps=segment.steps,
            seconds=1.5,
        )
        for segment in drawn.segments
    )


def _replay(log: SealedLog, request: SessionRequest, number: int, plot: ReplayPlot) -> Replay:
    drawn_at = datetime.fromtimestamp(log.cosigned_at, UTC) + number * plot.delay
    honest = make_draw(
        log, ASKED, seed=SEED, draw_id=f"{SESSION}-{number}", number=number, now=drawn_at
    )
    drawn = honest.model_copy(update={"segments": plot.chosen(honest.segments), **plot.draw})
    draw_envelope = signed(statements.REPLAY_DRAW_PREDICATE, drawn, plot.draw_key)
    if plot.result is None:
        return Replay(draw_envelope.to_bytes())
    first, *others = executed(log, drawn)
    honest_result = ReplayResult(
        session_id=SESSION,
        draw_digest=sha256_hex(draw_envelope.payload),
        environment=ENVIRONMENT,
        mode="process" if request.image_digest is None else "container",
        image_digest=request.image_digest,
        segments=plot.segments((first.model_copy(update=plot.first), *others)),
        initialisation=PartResult(outcome="exact", digest=log.states[0].weights_digest),
        scores=PartResult(outcome="exact", digest=log.scores_digest),
        grade="strong",
        started_at=drawn_at + timedelta(minutes=1),
        finished_at=drawn_at + timedelta(minutes=2),
    )
    result = honest_result.model_copy(update=plot.result)
    envelope = signed(statements.REPLAY_RESULT_PREDICATE, result, plot.result_key)
    return Replay(draw_envelope.to_bytes(), envelope.to_bytes())
