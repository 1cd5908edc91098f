"""Replays: drawing segments once the log is sealed, and keeping what executing them again gave.

Draws and results are signed by the auditor's `replay` role, registered in the transaction that
stores them, numbered without a gap, and exported with every bundle, so nobody can draw until the
segments suit, or lose a result.
"""

import secrets
from datetime import datetime
from typing import TypeVar

from auditkit.evidence import canonical, dsse, notes, statements
from auditkit.evidence.bundle import MAX_CONTINUATIONS
from auditkit.evidence.document_checks import cosignature_time
from auditkit.evidence.replay import LogNotSealedError, SealedLog, SealedLogReader, make_draw
from auditkit.evidence.replay_checks import OpenDraw, check_result
from auditor_server.context import Auditor
from auditor_server.documents import parse
from auditor_server.errors import (
    DrawAnsweredError,
    DrawNotFoundError,
    HomeError,
    ReplayKeyMissingError,
    TooManyDrawsError,
)
from auditor_server.records import cosign_end
from auditor_server.store import ReplayRow, SessionRow
from auditor_server.verification import verify_submission
from schemas import DrawRequest, ReplayDraw, ReplayResult, SessionRequest, parse_record
from schemas.base import Schema

S = TypeVar("S", bound=Schema)

SEED_BYTES = 32
DRAW_ID_RANDOM_BYTES = 8
STEP = b'"kind":"step"'  # in RFC 8785 form; quotes within a text would be escaped
MOST_DRAWS = MAX_CONTINUATIONS  # all numbered series of a bundle have three digits


def add_draw(auditor: Auditor, session: SessionRow, asked: DrawRequest) -> bytes:
    """Draw segments of a sealed log with fresh randomness; return the signed draw (DSSE JSON).

    The server

    * MUST refuse before the log is sealed and its end cosigned;
    * MUST take 32 fresh bytes from the operating system for every draw, and MUST NOT let a caller
      choose or see them before the draw is stored;
    * MUST number, store and register every draw before it answers, and export all of them: a
      second draw is allowed, and does not replace the first.

    Args:
        auditor: the server.
        session: one that the caller may see.
        asked: how many segments.

    Raises:
        LogNotSealedError: the log goes on.
        SegmentTooLongError: a segment has more steps than `asked` allows.
        StateChainError: the log's states do not lead to its sealed weights.
        TooManyDrawsError: more than an evidence bundle can hold.
        ReplayKeyMissingError: the home has no key for the role.

    """
    log = sealed_log(auditor, session)

    def make(number: int) -> ReplayRow:
        if number > MOST_DRAWS:
            raise TooManyDrawsError(
                f"session {session.id} has had {MOST_DRAWS} draws, and no evidence bundle holds "
                "more"
            )
        drawn = make_draw(
            log,
            asked,
            seed=secrets.token_bytes(SEED_BYTES),
            draw_id=f"{session.id}-{secrets.token_hex(DRAW_ID_RANDOM_BYTES)}",
            number=number,
            now=auditor.now(),
        )
        payload = statements.make(
            statements.REPLAY_DRAW_PREDICATE,
            drawn,
            statements.subject("replay-draw", f"{session.id}/{number}", drawn),
        )
        envelope = _sign(auditor, payload, drawn.drawn_at)
        return ReplayRow(
            session_id=session.id,
            number=number,
            draw_digest=canonical.sha256_hex(envelope.payload),
            draw=envelope.to_bytes(),
            drawn_at=drawn.drawn_at,
        )

    return auditor.store.add_draw(session.id, make).draw


def add_result(auditor: Auditor, session: SessionRow, result: ReplayResult) -> bytes:
    """Sign and keep what executing a draw's segments again gave; return it (DSSE JSON).

    A result that speaks against the training is kept like any other, for good. One that cannot be
    a result of this draw is refused. Of several results of one draw only the first is kept; the
    same one again is harmless.

    Args:
        auditor: the server.
        session: one that the caller may see.
        result: what was found, from `auditkit replay`.

    Raises:
        DrawNotFoundError: the session has no such draw.
        DrawAnsweredError: the draw has another result already.
        ResultMismatchError, SegmentMissingError, SegmentChainError, OutcomeError,
            ToleranceTooLongError, ReplayGradeError: it cannot be a result of this draw.
        ReplayKeyMissingError: the home has no key for the role.

    """
    row = next(
        (row for row in auditor.store.replays(session.id) if row.draw_digest == result.draw_digest),
        None,
    )
    if row is None:
        raise DrawNotFoundError(
            f"session {session.id} has no draw with digest {result.draw_digest}; "
            f"`GET /v1/sessions/{session.id}/draws` lists them"
        )
    if row.result is None:
        check_result(
            sealed_log(auditor, session),
            parse(SessionRequest, session.request),
            OpenDraw(
                _read(row.draw, statements.REPLAY_DRAW_PREDICATE, ReplayDraw), row.draw_digest
            ),
            result,
        )
        payload = statements.make(
            statements.REPLAY_RESULT_PREDICATE,
            result,
            statements.subject("replay-result", f"{session.id}/{row.number}", result),
        )
        envelope = _sign(auditor, payload, result.finished_at)
        row = auditor.store.add_replay_result(
            session.id, row.number, envelope.to_bytes(), auditor.now()
        )
    stored = row.result or b""
    if _read(stored, statements.REPLAY_RESULT_PREDICATE, ReplayResult) != result:
        raise DrawAnsweredError(
            f"draw {row.number} of session {session.id} has its result already, and it stays; "
            "draw again to replay more"
        )
    if session.state == "submitted":
        verify_submission(auditor, session)
    return stored


def sealed_log(auditor: Auditor, session: SessionRow) -> SealedLog:
    """Return what a replay rests on.

    Raises:
        LogNotSealedError: the log goes on.
        StateChainError: its states do not lead to its sealed weights.

    """
    if session.state == "open":
        raise LogNotSealedError(
            f"the log of session {session.id} has {session.size} records and no seal; segments "
            "that were drawn now could still be prepared for"
        )
    cosign_end(auditor, auditor.trust_root(), session)
    reader = SealedLogReader()
    segments = auditor.store.segments(session.id)
    for segment in segments:
        for line in segment.records.splitlines():
            if STEP in line:
                continue  # nothing of a step is needed here, and there may be millions
            reader.observe(line, parse_record(line))
    cosigned = (segments[-1].cosigned or "").encode()
    return reader.finish(
        session.id,
        notes.parse_checkpoint(notes.parse(cosigned).text),
        cosignature_time(auditor.home.history(), cosigned),
    )


def _read(envelope: bytes, predicate_type: str, model: type[S]) -> S:
    return statements.parse(dsse.Envelope.from_bytes(envelope).payload, predicate_type, model)


def _sign(auditor: Auditor, payload: bytes, at: datetime) -> dsse.Envelope:
    try:
        key = auditor.signing_key("replay", at)
    except HomeError as error:
        raise ReplayKeyMissingError(
            f"this auditor's home has no key for replays: {error}; add one with `auditkit trust "
            "rotate`"
        ) from error
    return dsse.sign(payload, [key])
