"""How far each witness has followed each log, and its latest cosignature."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from auditor_server.store.engine import settled
from auditor_server.store.models import SegmentRow, SessionRow, WitnessingRow

SESSION_PREFIX = "sessions/"
"""`<prefix><session id>` names a session's log, as in its origin after the server's own name."""


class WitnessingStore:
    """The server's record of what its witnesses have cosigned.

    Kept apart from the checkpoints themselves: a receipt that was sent must never change.
    """

    def __init__(self, write: sessionmaker[Session], read: sessionmaker[Session]) -> None:
        self._write = write
        self._read = read

    def get(self, log: str, witness: str) -> WitnessingRow | None:
        """Return how far a witness has followed a log."""
        with self._read() as transaction:
            return transaction.get(WitnessingRow, (log, witness))

    def all(self) -> Sequence[WitnessingRow]:
        """Return the latest cosignature of each witness over each log."""
        with self._read() as transaction:
            return transaction.scalars(select(WitnessingRow)).all()

    def put(self, row: WitnessingRow) -> None:
        """Store a cosignature, unless one of a larger tree is there."""

        def attempt() -> None:
            with self._write.begin() as transaction:
                key = (row.log, row.witness)
                stored = transaction.get(WitnessingRow, key, with_for_update=True)
                if stored is None:
                    transaction.add(row)
                elif stored.size <= row.size:
                    transaction.merge(row)

        settled(attempt)

    def of_tree(self, log: str, size: int, root: bytes) -> Sequence[WitnessingRow]:
        """Return the cosignatures of one checkpoint's tree, in the order in which they came."""
        statement = (
            select(WitnessingRow)
            .where(WitnessingRow.log == log, WitnessingRow.size == size, WitnessingRow.root == root)
            .order_by(WitnessingRow.time, WitnessingRow.witness)
        )
        with self._read() as transaction:
            return transaction.scalars(statement).all()

    def behind(self, witness: str) -> Sequence[str]:
        """Return the logs of the sessions that this witness has not cosigned to their end."""
        log = SESSION_PREFIX + SessionRow.id
        statement = (
            select(log)
            .outerjoin(
                WitnessingRow, (WitnessingRow.log == log) & (WitnessingRow.witness == witness)
            )
            .where(
                SessionRow.size > 0,
                WitnessingRow.size.is_(None) | (WitnessingRow.size < SessionRow.size),
            )
            .order_by(SessionRow.opened_at.desc())
        )
        with self._read() as transaction:
            return transaction.scalars(statement).all()

    def checkpoint(self, session_id: str, least: int, most: int) -> str | None:
        """Return the cosigned checkpoint of the largest size from `least` to `most`.

        If there is none in between, the smallest one above; None if there is none at all.
        """
        end = SegmentRow.first + SegmentRow.count
        cosigned = select(SegmentRow.cosigned).where(
            SegmentRow.session_id == session_id, SegmentRow.cosigned.is_not(None)
        )
        within = cosigned.where(end >= least, end <= most).order_by(end.desc()).limit(1)
        above = cosigned.where(end > most).order_by(end).limit(1)
        with self._read() as transaction:
            return transaction.scalar(within) or transaction.scalar(above)
