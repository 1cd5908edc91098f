"""Taking in a session's log: check, store, cosign, in that order."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain

from pydantic import ValidationError

from auditkit.evidence import canonical, dsse, merkle, notes
from auditkit.evidence.canonical import sha256_hex
from auditor_server.context import Auditor
from auditor_server.documents import explain, read_grant
from auditor_server.errors import (
    CheckpointRootError,
    CheckpointSizeError,
    ContinuationRecordError,
    EmptyFlushError,
    ForeignOriginError,
    ForkError,
    GapError,
    GrantRecordError,
    InvalidRecordError,
    RecordSequenceError,
    RecordTimeError,
    SessionExpiredError,
    SessionSealedError,
    TooManyRecordsError,
)
from auditor_server.session_keys import SessionKeys
from auditor_server.store import ContinuationRow, SegmentRow, SessionRow
from schemas import (
    AnyRecord,
    AppendReceipt,
    AppendRequest,
    ContinuationRecord,
    GrantRecord,
    ReceiptRecord,
    SealRecord,
    SessionGrant,
    StepRecord,
    TrustRoot,
    parse_record,
)

MILLISECONDS_PER_MINUTE = 60_000
RESEND = "send exactly the flush again that was sent before, byte for byte"


@dataclass(frozen=True)
class _Flush:
    """A flush whose checkpoint was signed by the key in force; its records are still unread."""

    first: int
    lines: tuple[bytes, ...]
    note: notes.Note
    checkpoint: notes.Checkpoint

    @property
    def end(self) -> int:
        return self.first + len(self.lines)


def append(auditor: Auditor, session: SessionRow, request: AppendRequest) -> AppendReceipt:
    """Append one flush to a session's log and return the cosigned checkpoint over it.

    The caller, an agent, MUST send its flushes in order, MUST NOT send the next one before it
    holds the receipt of the last (the next log segment commits to it), and, when no answer came,
    MUST send the identical flush again. It MAY do so at any time and any number of times.

    The server

    * MUST verify the checkpoint's signature, under the log's origin, by the session key in force
      for its size (see `continuations.continue_session`), that the checkpoint is of this log, that
      it covers exactly the records up to the end of the flush, and that its root is the one which
      the server computes itself from what it has stored;
    * MUST refuse a record that is no valid record in RFC 8785 form, whose `sequence` is not its
      index, or whose time is impossible; a log that does not begin with the grant record of its
      own grant, or does not name a continuation where its key takes over; and anything after
      the seal record;
    * MUST commit the whole flush durably, in one transaction, before it cosigns, and MUST store
      the cosignature before it answers, so that it never vouches for what it could lose;
    * MUST answer a flush that it holds already with the stored cosigned checkpoint, the same bytes
      each time; if it stopped between storing and cosigning, it cosigns now;
    * MUST NOT change or drop a stored record, MUST NOT accept a second history of one log,
      MUST NOT leave a gap, and MUST NOT store a flush that an earlier key signed once a
      continuation was granted.

    Raises:
        TooManyRecordsError, EmptyFlushError: the flush is too large, or empty.
        SessionExpiredError: a session key was revoked, or the session's time is over.
        KeyNotInForceError: another container's key has signed the checkpoint.
        NoteFormatError, UnsignedNoteError, SignatureError, CheckpointFormatError: no checkpoint, or
            not one that the session key signed.
        ForeignOriginError, CheckpointSizeError, CheckpointRootError: a checkpoint of another log,
            or over other records.
        GapError: records before the flush are missing; says which one is expected.
        ForkError: the flush contradicts what is stored, or overlaps its end.
        SessionSealedError: the log has ended.
        InvalidRecordError, RecordSequenceError, GrantRecordError, ContinuationRecordError,
            RecordTimeError: a record that can't be at its place.

    """
    root = auditor.trust_root()
    _check_limits(auditor, request)
    while (segment := _take_in(auditor, root, session, request)) is None:
        # The log grew or was continued meanwhile: judge the flush again by what is stored now.
        session = auditor.store.session(session.id) or session
    return AppendReceipt(checkpoint=segment.cosigned or _cosign(auditor, root, segment))


def cosign_end(auditor: Auditor, root: TrustRoot, session: SessionRow) -> None:
    """Cosign the end of a log if the server stopped between storing it and cosigning it."""
    if session.size:
        last = auditor.store.segments(session.id, session.size - 1)[-1]
        if last.cosigned is None:
            _cosign(auditor, root, last)


def split_lines(segments: Sequence[SegmentRow]) -> list[bytes]:
    """Return the records of consecutive segments, one line each, without their line ends."""
    return list(chain.from_iterable(segment.records.splitlines() for segment in segments))


def _check_limits(auditor: Auditor, request: AppendRequest) -> None:
    most = auditor.settings.most_records_per_flush
    if len(request.records) > most:
        raise TooManyRecordsError(
            f"expected at most {most} records in one flush, found {len(request.records)}; "
            "send them in several"
        )
    if not request.records:
        raise EmptyFlushError("expected at least one record in a flush, found none")


def _take_in(
    auditor: Auditor, root: TrustRoot, session: SessionRow, request: AppendRequest
) -> SegmentRow | None:
    """Return the stored segment that a flush is, or becomes; None if the session has changed."""
    grant, grant_digest = read_grant(session.grant)
    keys = SessionKeys.read(auditor.store, session, grant)
    keys.check_not_revoked(root)
    flush = _read_flush(keys, request)
    if flush.first > session.size:
        raise GapError(
            f"expected a flush that begins with record {session.size}, found one that begins with "
            f"record {flush.first}; send the records from {session.size} on"
        )
    if flush.first < session.size:
        return _stored_segment(auditor, session, flush)
    now = auditor.now()
    check_open(session, grant, now)
    frontier = _grow(session, flush)
    records = _read_records(flush, grant_digest, keys.taking_over(session.size))
    _check_times(records, grant, now, auditor.settings.most_clock_skew_seconds)
    steps = [record for record in records if isinstance(record, StepRecord)]
    segment = SegmentRow(
        session_id=session.id,
        first=flush.first,
        count=len(flush.lines),
        records=b"".join(line + b"\n" for line in flush.lines),
        checkpoint=flush.note.to_bytes().decode(),
        cosigned=None,
        received_at=now,
        cosigned_at=None,
    )
    stored = auditor.store.append_segment(
        segment,
        continuations=session.continuations,
        frontier=frontier.to_bytes(),
        state="sealed" if isinstance(records[-1], SealRecord) else "open",
        step=steps[-1].step if steps else session.step,
        epoch=steps[-1].epoch if steps else session.epoch,
    )
    if not stored:
        return None
    auditor.metrics.records.inc(segment.count)
    return segment


def _read_flush(keys: SessionKeys, request: AppendRequest) -> _Flush:
    """Verify the checkpoint of a flush, all but its root."""
    origin = keys.grant.origin
    note_bytes = request.checkpoint.encode()
    checkpoint = notes.parse_checkpoint(notes.parse(note_bytes).text)
    if checkpoint.origin != origin:
        raise ForeignOriginError(
            f"expected a checkpoint of {origin}, found one of {checkpoint.origin[:200]!r}; "
            "the flush was sent to the wrong session"
        )
    note = keys.verify(note_bytes, checkpoint.size)
    lines = tuple(record.encode() for record in request.records)
    end = request.first + len(lines)
    if checkpoint.size != end:
        raise CheckpointSizeError(
            f"expected a checkpoint of size {end} (records {request.first} to {end - 1}), found "
            f"size {checkpoint.size}; sign the checkpoint over exactly the records of the flush"
        )
    return _Flush(request.first, lines, note, checkpoint)


def check_open(session: SessionRow, grant: SessionGrant, now: datetime) -> None:
    """Check that a log may still grow.

    Raises:
        SessionSealedError: it has ended.
        SessionExpiredError: its time is over.

    """
    if session.state != "open":
        raise SessionSealedError(
            f"the log of session {session.id} ended with its seal at record {session.size - 1}; "
            "nothing may follow, open a new session"
        )
    if now >= grant.valid_until:
        raise SessionExpiredError(
            f"session {session.id} was valid until {grant.valid_until.isoformat()}; open a new one"
        )


def _grow(session: SessionRow, flush: _Flush) -> merkle.Frontier:
    """Return the tree's frontier with the flush appended, and check its root."""
    frontier = merkle.Frontier.from_bytes(session.frontier)
    frontier.extend(merkle.leaf_hash(line) for line in flush.lines)
    found = frontier.root()
    if found != flush.checkpoint.root:
        raise CheckpointRootError(
            f"records 0 to {flush.end - 1} hash to {found.hex()}, the checkpoint says "
            f"{flush.checkpoint.root.hex()}; a record was changed on one side"
        )
    return frontier


def _read_records(
    flush: _Flush, grant_digest: str, owed: ContinuationRow | None
) -> list[AnyRecord]:
    """Read the records of a flush; `owed` is the continuation that it must name."""
    records: list[AnyRecord] = []
    for index, line in enumerate(flush.lines, start=flush.first):
        if records and isinstance(records[-1], SealRecord):
            raise SessionSealedError(f"record {index} follows the seal record; nothing may")
        record = _read_record(line, index)
        _check_grant_record(record, index, grant_digest)
        _check_continuation_record(record, index, owed)
        if isinstance(record, ContinuationRecord):
            owed = None
        records.append(record)
    if owed is not None:
        raise ContinuationRecordError(
            f"the flush ends with record {flush.end - 1} and does not name continuation "
            f"{owed.number}; the first flush under its key must"
        )
    return records


def _read_record(line: bytes, index: int) -> AnyRecord:
    try:
        record = parse_record(line)
    except ValidationError as error:
        raise InvalidRecordError(f"record {index} is not valid: {explain(error)}") from error
    if canonical.to_bytes(record) != line:
        raise InvalidRecordError(
            f"record {index} is not in RFC 8785 form; log the exact bytes that "
            "auditkit.evidence.canonical.to_bytes gives"
        )
    if record.sequence != index:
        raise RecordSequenceError(
            f"expected sequence number {index}, found {record.sequence}; "
            "a record's sequence number is its index in the log"
        )
    return record


def _check_grant_record(record: AnyRecord, index: int, grant_digest: str) -> None:
    if isinstance(record, GrantRecord) != (index == 0):
        raise GrantRecordError(
            f"record {index} is of kind {record.kind!r}; a log has one grant record, and it is "
            "the first"
        )
    if isinstance(record, GrantRecord) and record.grant_digest != grant_digest:
        raise GrantRecordError(
            f"expected the grant with digest {grant_digest}, found {record.grant_digest}; "
            "the log belongs to another session"
        )


def _check_continuation_record(record: AnyRecord, index: int, owed: ContinuationRow | None) -> None:
    if owed is None:
        if isinstance(record, ContinuationRecord):
            raise ContinuationRecordError(
                f"record {index} names a continuation, and the log has none to name here"
            )
        return
    expected = sha256_hex(dsse.Envelope.from_bytes(owed.envelope).payload)
    if isinstance(record, ContinuationRecord):
        if record.continuation_digest != expected:
            raise ContinuationRecordError(
                f"record {index} names the continuation {record.continuation_digest}, expected "
                f"{expected}, number {owed.number} of this session; only the last one counts"
            )
    # All that may stand before it: the grant of an empty log, the receipt of any other.
    elif not isinstance(record, ReceiptRecord if owed.log_size else GrantRecord):
        raise ContinuationRecordError(
            f"record {index} is of kind {record.kind!r}; since continuation {owed.number} at size "
            f"{owed.log_size}, the log must first name it in a continuation record"
        )


def _check_times(
    records: Sequence[AnyRecord], grant: SessionGrant, now: datetime, most_skew_seconds: float
) -> None:
    skew = timedelta(seconds=most_skew_seconds)
    earliest = int((grant.valid_from - skew).timestamp() * 1000)
    latest = int((now + skew).timestamp() * 1000)
    for record in records:
        if record.time_ms > latest:
            ahead = _minutes(record.time_ms - now.timestamp() * 1000)
            raise RecordTimeError(
                f"record {record.sequence} has time {record.time_ms} ms, expected at most {latest} "
                f"ms: the agent's clock is {ahead} ahead of the auditor's; set the one that is "
                "wrong"
            )
        if record.time_ms < earliest:
            behind = _minutes(grant.valid_from.timestamp() * 1000 - record.time_ms)
            raise RecordTimeError(
                f"record {record.sequence} has time {record.time_ms} ms, expected at least "
                f"{earliest} ms: it lies {behind} before the session was granted, so the agent's "
                f"clock is at least {behind} behind the auditor's; set the one that is wrong"
            )


def _minutes(milliseconds: float) -> str:
    return f"{milliseconds / MILLISECONDS_PER_MINUTE:.1f} minutes"


def _stored_segment(auditor: Auditor, session: SessionRow, flush: _Flush) -> SegmentRow:
    """Return the segment that ends where a flush ends which is stored already.

    Raises:
        ForkError: the flush differs from what is stored, or does not end where a segment ends.

    """
    if flush.end > session.size:
        raise ForkError(
            f"the flush holds records {flush.first} to {flush.end - 1}, of which those before "
            f"{session.size} are stored already; {RESEND}, then go on at {session.size}"
        )
    segments = auditor.store.segments(session.id, flush.first, flush.end)
    stored = split_lines(segments)[flush.first - segments[0].first :]
    for index, (line, kept) in enumerate(zip(flush.lines, stored, strict=False), flush.first):
        if line != kept:
            raise ForkError(
                f"record {index} differs from the one that is stored: this log has two histories; "
                "the stored one counts"
            )
    last = segments[-1]
    if last.end != flush.end:
        raise ForkError(
            f"no checkpoint of size {flush.end} is stored, the records went on to {last.end} in "
            f"one flush; {RESEND}"
        )
    kept_root = notes.parse_checkpoint(notes.parse(last.checkpoint.encode()).text).root
    if kept_root != flush.checkpoint.root:
        raise ForkError(
            f"the checkpoint of size {flush.end} has root {flush.checkpoint.root.hex()}, stored is "
            f"{kept_root.hex()}: this log has two histories; the stored one counts"
        )
    return last


def _cosign(auditor: Auditor, root: TrustRoot, segment: SegmentRow) -> str:
    """Cosign a stored segment; of two that try, both return what was stored first."""
    now = max(auditor.now(), _cosigned_before(auditor, segment))
    note = notes.cosign(
        notes.parse(segment.checkpoint.encode()),
        auditor.cosigner_name(root),
        auditor.signing_key("cosigner", now),
        int(now.timestamp()),
    )
    cosigned = note.to_bytes().decode()
    stored = auditor.store.cosign_segment(segment.session_id, segment.first, cosigned, now)
    if stored == cosigned:
        auditor.metrics.checkpoints.inc()
    return stored


def _cosigned_before(auditor: Auditor, segment: SegmentRow) -> datetime:
    """Return the time of the cosignature before this one: times never run backwards in a log."""
    if segment.first == 0:
        return segment.received_at
    before = auditor.store.segments(segment.session_id, segment.first - 1, segment.first)[-1]
    return before.cosigned_at or segment.received_at
