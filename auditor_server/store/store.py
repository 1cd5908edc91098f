"""All queries in one place. Every method is one transaction, durable when it returns."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import Select, create_engine, event, func, select, update
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import sessionmaker, undefer

from auditor_server.store.models import (
    Base,
    ContinuationRow,
    OrderRow,
    SegmentRow,
    SessionKeyRow,
    SessionRow,
    SubmissionRow,
    TokenRow,
    VerdictRow,
)
from schemas.wire import SessionState

RowT = TypeVar("RowT", bound=Base)

# How long a writer waits for another one before SQLite gives up.
BUSY_TIMEOUT_MILLISECONDS = 30_000


def make_engine(database_url: str) -> Engine:
    """Open the database; SQLite in WAL mode, synced to disk at every commit."""
    engine = create_engine(database_url)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:  # noqa: ANN401 - the driver's own
    # The driver must not open transactions by itself; `_begin_sqlite` does.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (
        f"busy_timeout = {BUSY_TIMEOUT_MILLISECONDS}",
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # A writer takes its lock at once: upgrading a read lock later can fail without waiting.
    reads_only = connection.get_execution_options().get("reads_only", False)
    connection.exec_driver_sql("BEGIN" if reads_only else "BEGIN IMMEDIATE")


class Store:
    """The server's database."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._write = sessionmaker(engine, expire_on_commit=False)
        self._read = sessionmaker(engine.execution_options(reads_only=True), expire_on_commit=False)

    def create_tables(self) -> None:
        """Create what is not there yet."""
        Base.metadata.create_all(self._engine)

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
        return self._add_or_get(order, select(OrderRow).where(OrderRow.order_id == order.order_id))

    def order(self, order_id: str) -> OrderRow | None:
        """Return one order."""
        with self._read() as transaction:
            return transaction.get(OrderRow, order_id)

    def orders(self) -> Sequence[OrderRow]:
        """Return all orders, oldest first."""
        with self._read() as transaction:
            statement = select(OrderRow).order_by(OrderRow.received_at, OrderRow.order_id)
            return transaction.scalars(statement).all()

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
            make: given the session's number under its order, counted from 1.
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
        with self._write.begin() as transaction:
            stored = transaction.scalar(known)
            if stored is not None:
                return stored
            row = make((transaction.scalar(count) or 0) + 1)
            transaction.add(row)
            transaction.flush()
            transaction.add(SessionKeyRow(key=session_key, session_id=row.id))
        return row

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

    def sessions(self, owner: str | None = None) -> Sequence[SessionRow]:
        """Return all sessions, or those of one owner, oldest first."""
        statement = select(SessionRow).order_by(SessionRow.opened_at, SessionRow.id)
        if owner is not None:
            statement = statement.where(SessionRow.owner == owner)
        with self._read() as transaction:
            return transaction.scalars(statement).all()

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
        make: Callable[[SessionRow, bool], ContinuationRow],
    ) -> ContinuationRow | None:
        """Store the next continuation of a session if its log still ends at `size`; return it.

        Returns None, and changes nothing, if the log has grown in the meantime.

        Args:
            session_id: the session.
            request_digest: of the request; a continuation that answers it already is returned
                instead.
            session_key: the new key.
            size: of the log.
            make: given the session as it is, which nobody changes before this method ends, and
                whether the key signs for any session already.
        """
        with self._write.begin() as transaction:
            session = transaction.get_one(SessionRow, session_id, with_for_update=True)
            stored = transaction.scalar(_answering(session_id, request_digest))
            if stored is not None or session.size != size:
                return stored
            row = make(session, transaction.get(SessionKeyRow, session_key) is not None)
            transaction.add(SessionKeyRow(key=session_key, session_id=session_id))
            transaction.flush()
            transaction.add(row)
            session.continuations = row.number
        return row

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

    def history(self, session_id: str) -> tuple[Sequence[SegmentRow], Sequence[ContinuationRow]]:
        """Return a session's whole log and its continuations as they were at one moment."""
        with self._read() as transaction:
            segments = transaction.scalars(_segments_of(session_id)).all()
            return segments, transaction.scalars(_continuations_of(session_id)).all()

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

        Compare-and-swap on the session's size and on how many continuations it has had: of two
        writers only one can win. Returns False, and changes nothing, if the log has grown or was
        continued in the meantime.

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
            stored = transaction.get(SubmissionRow, submission.session_id)
            if stored is None:
                transaction.add(submission)
                transaction.execute(mark)
        return stored or submission

    def submission(self, session_id: str) -> SubmissionRow | None:
        """Return what was submitted for a session."""
        with self._read() as transaction:
            return transaction.get(SubmissionRow, session_id)

    def set_level(self, session_id: str, level: int) -> None:
        """Keep the assurance level that the verification of a submission gave."""
        statement = (
            update(SubmissionRow).where(SubmissionRow.session_id == session_id).values(level=level)
        )
        with self._write.begin() as transaction:
            transaction.execute(statement)

    # Verdicts

    def add_verdicts(self, verdicts: Sequence[VerdictRow]) -> None:
        """Store verdicts, all or none."""
        with self._write.begin() as transaction:
            transaction.add_all(verdicts)

    def verdicts(self, session_id: str) -> Sequence[VerdictRow]:
        """Return all verdicts of a session in the order of signing."""
        statement = (
            select(VerdictRow)
            .where(VerdictRow.session_id == session_id)
            .order_by(VerdictRow.number)
        )
        with self._read() as transaction:
            return transaction.scalars(statement).all()

    def _add_or_get(self, row: RowT, known: Select[RowT]) -> RowT:
        try:
            with self._write.begin() as transaction:
                transaction.add(row)
        except IntegrityError:
            with self._read() as transaction:
                stored = transaction.scalar(known)
            if stored is None:
                raise
            return stored
        return row


def _segments_of(session_id: str) -> Select[SegmentRow]:
    return select(SegmentRow).where(SegmentRow.session_id == session_id).order_by(SegmentRow.first)


def _continuations_of(session_id: str) -> Select[ContinuationRow]:
    return (
        select(ContinuationRow)
        .where(ContinuationRow.session_id == session_id)
        .order_by(ContinuationRow.number)
    )


def _answering(session_id: str, request_digest: str) -> Select[ContinuationRow]:
    return select(ContinuationRow).where(
        ContinuationRow.session_id == session_id,
        ContinuationRow.request_digest == request_digest,
    )
