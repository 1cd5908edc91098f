"""All queries in one place. Every method is one transaction, durable when it returns."""

from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Select, func, select, update
from sqlalchemy.engine import Engine
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, sessionmaker, undefer

from auditkit.evidence.errors import EvidenceError
from auditor_server.store import registrations
from auditor_server.store.access import AccessStore
from auditor_server.store.custody import CustodyStore
from auditor_server.store.engine import ROW_LOCK, check_durable, reading, settled
from auditor_server.store.inquiries import InquiryStore
from auditor_server.store.lists import ListStore
from auditor_server.store.migrations import check_current, upgrade
from auditor_server.store.models import (
    ContinuationRow,
    InquiryVerdictRow,
    OrderRow,
    ReplayRow,
    SegmentRow,
    SessionKeyRow,
    SessionRow,
    SubmissionRow,
    TokenRow,
    VerdictRow,
    VerificationRow,
)
from auditor_server.store.registrations import Registration
from auditor_server.store.registry import RegistryStore, append
from auditor_server.store.trail import TrailStore
from auditor_server.store.witnessings import SESSION_PREFIX, WitnessingStore
from schemas.registry import EntryKind
from schemas.wire import SessionState

# How many segments are read at a time when a whole log is passed on.
SEGMENTS_AT_ONCE = 16
# Likewise for documents; an envelope has a few kilobytes, a request up to some megabytes.
ROWS_AT_ONCE = 64


class Store:
    """The server's database.

    Every document is registered in the transaction that stores it: neither can be without the
    other.

    What a caller's `make` decides from is given to it, and it MUST NOT ask the store for more: that
    would take a second connection while the transaction holds its locks, and those who wait for
    these locks may hold all the others.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._write = sessionmaker(engine, expire_on_commit=False)
        self._read = sessionmaker(reading(engine), expire_on_commit=False)
        self.registry = RegistryStore(self._write, self._read)
        self.witnessings = WitnessingStore(self._write, self._read)
        self.custody = CustodyStore(self._write, self._read)
        self.access = AccessStore(self._write, self._read)
        self.trail = TrailStore(self._write, self._read)
        self.lists = ListStore(self._read)
        self.inquiries = InquiryStore(self._write, self._read)

    def prepare(self) -> None:
        """Bring the tables to those of this version of the server.

        Raises:
            DatabaseSchemaError: they are another version's, and can't be brought there.
            DatabaseNotDurableError: the database is set up to lose what it has committed.
            sqlalchemy.exc.DBAPIError: the database can't be used.

        """
        check_durable(self._engine)
        upgrade(self._engine)
        self.registry.create()

    def check_answers(self) -> None:
        """Ask the database for something.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: it gives no answer.

        """
        with self._read() as transaction:
            transaction.scalar(select(1))

    def check_tables(self) -> None:
        """Check that the tables are those of this version of the server.

        Raises:
            DatabaseSchemaError: another version has changed them meanwhile.
            sqlalchemy.exc.SQLAlchemyError: the database gives no answer.

        """
        check_current(self._engine)

    def close(self) -> None:
        """Release all connections."""
        self._engine.dispose()

    # Tokens

    def add_token(self, token: TokenRow) -> None:
        """Store a token."""
        with self._write.begin() as transaction:
            transaction.add(token)

    def token(self, token_id: str) -> TokenRow | None:
        """Return the token with this name."""
        with self._read() as transaction:
            return transaction.get(TokenRow, token_id)

    # Orders

    def add_order(self, order: OrderRow) -> OrderRow:
        """Store an order and return it; if one of that name is there, return that one instead."""
        known = select(OrderRow).where(OrderRow.order_id == order.order_id)
        try:
            with self._write.begin() as transaction:
                transaction.add(order)
                transaction.flush()
                append(transaction, [registrations.of_order(order)], order.received_at)
        except IntegrityError:
            with self._read() as transaction:
                stored = transaction.scalar(known)
            if stored is None:
                raise
            return stored
        return order

    def order(self, order_id: str) -> OrderRow | None:
        """Return one order."""
        with self._read() as transaction:
            return transaction.get(OrderRow, order_id)

    # Sessions

    def add_session(
        self,
        *,
        order_id: str,
        request_digest: str,
        session_key: str,
        make: Callable[[int], SessionRow],
    ) -> SessionRow:
        """Store the next session of an order and return it.

        Args:
            order_id: the order.
            request_digest: of the request; a session that answers it already is returned instead.
            session_key: likewise, be it the key of a session or of one of its continuations.
            make: given the session's number under its order, counted from 1. It is called again
                if another session or continuation has just taken the key.
        """
        known = select(SessionRow).where(
            (SessionRow.request_digest == request_digest)
            | (
                SessionRow.id
                == select(SessionKeyRow.session_id)
                .where(SessionKeyRow.key == session_key)
                .scalar_subquery()
            )
        )
        count = select(func.count()).select_from(SessionRow).where(SessionRow.order_id == order_id)

        def attempt() -> SessionRow:
            with self._write.begin() as transaction:
                transaction.get_one(OrderRow, order_id, with_for_update=ROW_LOCK)
                stored = transaction.scalar(known)
                if stored is not None:
                    return stored
                row = make((transaction.scalar(count) or 0) + 1)
                transaction.add(row)
                transaction.flush()
                transaction.add(SessionKeyRow(key=session_key, session_id=row.id))
                append(transaction, [registrations.of_grant(row)], row.opened_at)
            return row

        return settled(attempt)

    def session(self, session_id: str) -> SessionRow | None:
        """Return one session, without its leaves."""
        with self._read() as transaction:
            return transaction.get(SessionRow, session_id)

    def session_with_leaves(self, session_id: str) -> SessionRow | None:
        """Return one session, with its leaves."""
        with self._read() as transaction:
            options = (undefer(SessionRow.pool_leaves), undefer(SessionRow.test_leaves))
            return transaction.get(SessionRow, session_id, options=options)

    def code_secret(self, session_id: str) -> bytes | None:
        """Return the secret of a session's membership codes; None: it trains without."""
        with self._read() as transaction:
            statement = select(SessionRow.code_secret).where(SessionRow.id == session_id)
            return transaction.scalar(statement)

    def pool_leaves(self, session_id: str) -> bytes:
        """Return the leaves of a session's pool."""
        with self._read() as transaction:
            statement = select(SessionRow.pool_leaves).where(SessionRow.id == session_id)
            return transaction.scalars(statement).one()

    def session_by_request(self, request_digest: str) -> SessionRow | None:
        """Return the session that was opened with this request."""
        with self._read() as transaction:
            statement = select(SessionRow).where(SessionRow.request_digest == request_digest)
            return transaction.scalar(statement)

    def opened_by(self, organisation: str, session_id: str) -> bool:
        """Tell whether a session is there and was opened by one of an organisation's tokens."""
        statement = (
            select(SessionRow.id)
            .join(TokenRow, TokenRow.id == SessionRow.owner)
            .where(SessionRow.id == session_id, TokenRow.organisation == organisation)
        )
        with self._read() as transaction:
            return transaction.scalar(statement) is not None

    def last_cosigned_at(self, session_id: str) -> datetime | None:
        """Return when the last checkpoint of a session was cosigned."""
        statement = select(func.max(SegmentRow.cosigned_at)).where(
            SegmentRow.session_id == session_id
        )
        with self._read() as transaction:
            return transaction.scalar(statement)

    # Continuations

    def add_continuation(
        self,
        *,
        session_id: str,
        request_digest: str,
        session_key: str,
        size: int,
        make: Callable[[SessionRow, Sequence[ContinuationRow], bool], ContinuationRow],
    ) -> ContinuationRow | None:
        """Store the next continuation of a session if its log still ends at `size`; return it.

        Returns None, and changes nothing, if the log has grown in the meantime.

        Args:
            session_id: the session.
            request_digest: of the request; a continuation that answers it already is returned
                instead.
            session_key: the new key.
            size: of the log.
            make: given the session as it is, which nobody changes before this method ends, its
                continuations so far, and whether the key signs for any session already. See
                `add_session`.
        """

        def attempt() -> ContinuationRow | None:
            with self._write.begin() as transaction:
                session = _lock(transaction, session_id)
                stored = transaction.scalar(_answering(session_id, request_digest))
                if stored is not None or session.size != size:
                    return stored
                earlier = transaction.scalars(_continuations_of(session_id)).all()
                key_is_known = transaction.get(SessionKeyRow, session_key) is not None
                row = make(session, earlier, key_is_known)
                transaction.add(SessionKeyRow(key=session_key, session_id=session_id))
                transaction.flush()
                transaction.add(row)
                session.continuations = row.number
                append(transaction, [registrations.of_continuation(row)], row.granted_at)
            return row

        return settled(attempt)

    def continuation_by_request(
        self, session_id: str, request_digest: str
    ) -> ContinuationRow | None:
        """Return the continuation of a session that was asked for with this request."""
        with self._read() as transaction:
            return transaction.scalar(_answering(session_id, request_digest))

    def continuations(self, session_id: str) -> Sequence[ContinuationRow]:
        """Return all continuations of a session in the order in which they were granted."""
        with self._read() as transaction:
            return transaction.scalars(_continuations_of(session_id)).all()

    def history(self, session_id: str) -> tuple[int, Sequence[ContinuationRow]]:
        """Return the size of a session's log and its continuations as they were at one moment."""
        with self._read() as transaction:
            statement = select(SessionRow.size).where(SessionRow.id == session_id)
            size = transaction.scalar(statement) or 0
            return size, transaction.scalars(_continuations_of(session_id)).all()

    # Segments

    def append_segment(
        self,
        segment: SegmentRow,
        *,
        continuations: int,
        frontier: bytes,
        state: SessionState,
        step: int,
        epoch: int,
    ) -> bool:
        """Append a segment if the log still ends where it begins, under the key that signed it.

        Compare-and-swap on the session's size and on how many continuations it has had, under the
        lock of the session's row: of two writers only one can win. Returns False, and changes
        nothing, if the log has grown or was continued in the meantime.

        Args:
            segment: the flush.
            continuations: how many there were when the flush was judged.
            frontier: of the tree, the flush included; `state`, `step` and `epoch` likewise.
            state: see `frontier`.
            step: see `frontier`.
            epoch: see `frontier`.
        """
        grow = (
            update(SessionRow)
            .where(
                SessionRow.id == segment.session_id,
                SessionRow.size == segment.first,
                SessionRow.continuations == continuations,
            )
            .values(
                size=segment.end,
                frontier=frontier,
                state=state,
                step=step,
                epoch=epoch,
            )
        )
        with self._write.begin() as transaction:
            grown = transaction.connection().execute(grow).rowcount == 1
            if grown:
                transaction.add(segment)
            if grown and state == "sealed":
                append(transaction, [registrations.of_seal(segment)], segment.received_at)
        return grown

    def segments(
        self, session_id: str, first: int = 0, end: int | None = None
    ) -> Sequence[SegmentRow]:
        """Return the segments that hold any of the records `first` up to, not including, `end`."""
        statement = _segments_of(session_id).where(SegmentRow.first + SegmentRow.count > first)
        if end is not None:
            statement = statement.where(SegmentRow.first < end)
        with self._read() as transaction:
            return transaction.scalars(statement).all()

    def stream_segments(self, session_id: str, end: int, first: int = 0) -> Iterator[SegmentRow]:
        """Yield the segments that begin at record `first` or later, and before record `end`.

        Only a few are held at once, and no transaction stays open between them: a segment that is
        there never changes, but for its cosignature.
        """
        while first < end:
            statement = _segments_of(session_id).where(
                SegmentRow.first >= first, SegmentRow.first < end
            )
            with self._read() as transaction:
                rows = transaction.scalars(statement.limit(SEGMENTS_AT_ONCE)).all()
            if not rows:
                return
            yield from rows
            first = rows[-1].end

    def cosign_segment(self, session_id: str, first: int, cosigned: str, at: datetime) -> str:
        """Store a cosigned checkpoint unless there is one; return the one that is stored then."""
        sign = (
            update(SegmentRow)
            .where(
                SegmentRow.session_id == session_id,
                SegmentRow.first == first,
                SegmentRow.cosigned.is_(None),
            )
            .values(cosigned=cosigned, cosigned_at=at)
        )
        stored = select(SegmentRow.cosigned).where(
            SegmentRow.session_id == session_id, SegmentRow.first == first
        )
        with self._write.begin() as transaction:
            transaction.execute(sign)
            return transaction.scalar(stored) or cosigned

    # Submissions

    def add_submission(self, submission: SubmissionRow) -> SubmissionRow:
        """Store a submission and mark its session; return the one that is stored then."""
        mark = (
            update(SessionRow)
            .where(SessionRow.id == submission.session_id)
            .values(state="submitted")
        )
        with self._write.begin() as transaction:
            _lock(transaction, submission.session_id)
            stored = transaction.get(SubmissionRow, submission.session_id)
            if stored is None:
                transaction.add(submission)
                transaction.execute(mark)
                append(
                    transaction,
                    [registrations.of_submission(submission)],
                    submission.received_at,
                )
        return stored or submission

    def submission(self, session_id: str) -> SubmissionRow | None:
        """Return what was submitted for a session."""
        with self._read() as transaction:
            return transaction.get(SubmissionRow, session_id)

    def submissions(self) -> Sequence[SubmissionRow]:
        """Return all submissions, oldest first."""
        statement = select(SubmissionRow).order_by(
            SubmissionRow.received_at, SubmissionRow.session_id
        )
        with self._read() as transaction:
            return transaction.scalars(statement).all()

    def drop_weights(self, session_ids: Collection[str], at: datetime) -> None:
        """Note that the weights of submissions are not kept any more."""
        statement = (
            update(SubmissionRow)
            .where(
                SubmissionRow.session_id.in_(session_ids),
                SubmissionRow.weights_dropped_at.is_(None),
            )
            .values(weights_dropped_at=at)
        )
        with self._write.begin() as transaction:
            transaction.execute(statement)

    def levels(self, session_ids: Collection[str]) -> dict[str, int | None]:
        """Return the assurance level of each session that was submitted, as `set_level` kept it."""
        statement = select(SubmissionRow.session_id, SubmissionRow.level).where(
            SubmissionRow.session_id.in_(session_ids)
        )
        with self._read() as transaction:
            return dict(transaction.execute(statement).all())

    def without_weights(self, session_ids: Collection[str]) -> set[str]:
        """Return those of the sessions whose weights were dropped."""
        statement = select(SubmissionRow.session_id).where(
            SubmissionRow.session_id.in_(session_ids), SubmissionRow.weights_dropped_at.is_not(None)
        )
        with self._read() as transaction:
            return set(transaction.scalars(statement))

    def set_level(self, session_id: str, level: int) -> None:
        """Keep the assurance level that the verification of a submission gave."""
        statement = (
            update(SubmissionRow).where(SubmissionRow.session_id == session_id).values(level=level)
        )
        with self._write.begin() as transaction:
            transaction.execute(statement)

    # Verdicts

    def add_verdicts(self, session_id: str, make: Callable[[int], Sequence[VerdictRow]]) -> None:
        """Store verdicts about a session, all or none.

        Args:
            session_id: the session.
            make: given how many verdicts the session has; returns one or more.
        """
        with self._write.begin() as transaction:
            _lock(transaction, session_id)
            verdicts = make(transaction.scalar(_count_verdicts(session_id)) or 0)
            transaction.add_all(verdicts)
            registered = [registrations.of_verdict(verdict) for verdict in verdicts]
            append(transaction, registered, verdicts[-1].issued_at)

    def count_verdicts(self, session_id: str) -> int:
        """Return how many verdicts a session has."""
        with self._read() as transaction:
            return transaction.scalar(_count_verdicts(session_id)) or 0

    def verdicts(self, session_id: str) -> Sequence[VerdictRow]:
        """Return all verdicts of a session in the order of signing."""
        statement = (
            select(VerdictRow)
            .where(VerdictRow.session_id == session_id)
            .order_by(VerdictRow.number)
        )
        with self._read() as transaction:
            return transaction.scalars(statement).all()

    def verdict(self, verdict_id: str) -> VerdictRow | None:
        """Return one verdict."""
        statement = select(VerdictRow).where(VerdictRow.verdict_id == verdict_id)
        with self._read() as transaction:
            return transaction.scalar(statement)

    def verdicts_of_inquiry(self, inquiry: int) -> Sequence[VerdictRow]:
        """Return the verdicts that answer an inquiry in the order of signing."""
        statement = (
            select(VerdictRow)
            .join(InquiryVerdictRow, InquiryVerdictRow.verdict_id == VerdictRow.verdict_id)
            .where(InquiryVerdictRow.inquiry == inquiry)
            .order_by(VerdictRow.number)
        )
        with self._read() as transaction:
            return transaction.scalars(statement).all()

    # Verification summaries

    def add_verification(
        self,
        session_id: str,
        make: Callable[[Sequence[VerificationRow]], VerificationRow | None],
    ) -> None:
        """Store the next verification summary of a session.

        Args:
            session_id: the session.
            make: given all that were signed, in their order; None: there is nothing to add.
        """
        with self._write.begin() as transaction:
            _lock(transaction, session_id)
            row = make(transaction.scalars(_verifications_of(session_id)).all())
            if row is not None:
                transaction.add(row)
                append(transaction, [registrations.of_verification(row)], row.verified_at)

    def verifications(self, session_id: str) -> Sequence[VerificationRow]:
        """Return all verification summaries of a session in the order of signing."""
        with self._read() as transaction:
            return transaction.scalars(_verifications_of(session_id)).all()

    # Replays

    def add_draw(self, session_id: str, make: Callable[[int], ReplayRow]) -> ReplayRow:
        """Store the next draw of a session and return it.

        Args:
            session_id: the session.
            make: given the number of the draw within the session, from 1.
        """
        count = (
            select(func.count()).select_from(ReplayRow).where(ReplayRow.session_id == session_id)
        )
        with self._write.begin() as transaction:
            _lock(transaction, session_id)
            row = make((transaction.scalar(count) or 0) + 1)
            transaction.add(row)
            transaction.flush()
            append(transaction, [registrations.of_draw(row)], row.drawn_at)
        return row

    def add_replay_result(
        self, session_id: str, number: int, result: bytes, now: datetime
    ) -> ReplayRow:
        """Store the result of a draw unless it has one; return the draw with what is stored."""
        with self._write.begin() as transaction:
            row = transaction.get_one(ReplayRow, (session_id, number), with_for_update=ROW_LOCK)
            if row.result is None:
                row.result = result
                append(transaction, [registrations.of_replay(row)], now)
        return row

    def replays(self, session_id: str) -> Sequence[ReplayRow]:
        """Return all draws of a session in the order of drawing."""
        statement = (
            select(ReplayRow).where(ReplayRow.session_id == session_id).order_by(ReplayRow.number)
        )
        with self._read() as transaction:
            return transaction.scalars(statement).all()

    def replay_page(self, session_id: str, after: int, most: int) -> Sequence[ReplayRow]:
        """Return draws of a session with numbers above `after`, in the order of drawing."""
        statement = (
            select(ReplayRow)
            .where(ReplayRow.session_id == session_id, ReplayRow.number > after)
            .order_by(ReplayRow.number)
        )
        with self._read() as transaction:
            return transaction.scalars(statement.limit(most)).all()

    # What was stored before there was a registry

    def register_all(self, now: datetime) -> None:
        """Register every document that is stored and not registered, in the order of the story.

        Only documents from before the database had a registry can be; they count as of now.
        """
        counts = self.registry.counts()
        for kind, rows, register in _DOCUMENTS:
            with self._write.begin() as transaction:
                stored = transaction.scalar(select(func.count()).select_from(rows.subquery())) or 0
                if stored > counts.get(kind, 0):
                    append(transaction, [register(row) for row in transaction.scalars(rows)], now)

    def registrations(self) -> Iterator[tuple[EntryKind, str, Registration | Exception]]:
        """Yield what is to be registered of every stored document.

        With the document's kind and what it is of, for messages; an error where it can't be read.
        """
        for kind, rows, register in (*_DOCUMENTS, *_REPLAYS):
            with self._read() as transaction:
                for row in transaction.scalars(rows.execution_options(yield_per=ROWS_AT_ONCE)):
                    session_id = getattr(row, "session_id", None) or getattr(row, "id", None)
                    subject = row.order_id if session_id is None else SESSION_PREFIX + session_id
                    try:
                        yield kind, subject, register(row)
                    except (EvidenceError, ValueError) as error:
                        yield kind, subject, error


def _lock(transaction: Session, session_id: str) -> SessionRow:
    """Let nobody else change a session before the transaction ends."""
    return transaction.get_one(SessionRow, session_id, with_for_update=ROW_LOCK)


def _segments_of(session_id: str) -> Select[SegmentRow]:
    return select(SegmentRow).where(SegmentRow.session_id == session_id).order_by(SegmentRow.first)


def _continuations_of(session_id: str) -> Select[ContinuationRow]:
    return (
        select(ContinuationRow)
        .where(ContinuationRow.session_id == session_id)
        .order_by(ContinuationRow.number)
    )


def _verifications_of(session_id: str) -> Select[VerificationRow]:
    return (
        select(VerificationRow)
        .where(VerificationRow.session_id == session_id)
        .order_by(VerificationRow.number)
    )


def _count_verdicts(session_id: str) -> Select[int]:
    return select(func.count()).select_from(VerdictRow).where(VerdictRow.session_id == session_id)


def _answering(session_id: str, request_digest: str) -> Select[ContinuationRow]:
    return select(ContinuationRow).where(
        ContinuationRow.session_id == session_id,
        ContinuationRow.request_digest == request_digest,
    )


_LAST_SEGMENTS = (
    select(SegmentRow)
    .join(SessionRow, SessionRow.id == SegmentRow.session_id)
    .where(SessionRow.state != "open", SegmentRow.first + SegmentRow.count == SessionRow.size)
    .order_by(SegmentRow.received_at)
)
_DOCUMENTS: tuple[tuple[EntryKind, Select[Any], Callable[[Any], Registration]], ...] = (
    ("order", select(OrderRow).order_by(OrderRow.received_at), registrations.of_order),
    ("grant", select(SessionRow).order_by(SessionRow.opened_at), registrations.of_grant),
    (
        "continuation",
        select(ContinuationRow).order_by(ContinuationRow.granted_at),
        registrations.of_continuation,
    ),
    ("seal", _LAST_SEGMENTS, registrations.of_seal),
    (
        "submission",
        select(SubmissionRow).order_by(SubmissionRow.received_at),
        registrations.of_submission,
    ),
    (
        "verification",
        select(VerificationRow).order_by(VerificationRow.number),
        registrations.of_verification,
    ),
    ("verdict", select(VerdictRow).order_by(VerdictRow.number), registrations.of_verdict),
)
"""What a registry that is new to its database lacks: rows of each kind, and what is registered."""

_REPLAYS: tuple[tuple[EntryKind, Select[Any], Callable[[Any], Registration]], ...] = (
    ("draw", select(ReplayRow).order_by(ReplayRow.drawn_at), registrations.of_draw),
    ("replay", select(ReplayRow).where(ReplayRow.result.is_not(None)), registrations.of_replay),
)
