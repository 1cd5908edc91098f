"""The audit trail, in the database."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Delete, delete, select
from sqlalchemy.orm import Session, sessionmaker

from auditor_server.store.models import TrailRow


class TrailStore:
    """What was looked at and asked."""

    def __init__(self, write: sessionmaker[Session], read: sessionmaker[Session]) -> None:
        self._write = write
        self._read = read

    def add(self, row: TrailRow, kept_since: datetime) -> None:
        """Store an entry, which is there when this returns, and forget those from before a time."""
        with self._write.begin() as transaction:
            transaction.add(row)
            transaction.execute(_before(kept_since))

    def page(
        self, since: datetime, before: int | None, session_id: str | None, most: int
    ) -> Sequence[TrailRow]:
        """Return entries, newest first.

        Args:
            since: leaves out older ones.
            before: leaves out those of this number and above; None: none.
            session_id: leaves out those of other sessions and of none; None: none.
            most: how many at most.
        """
        statement = select(TrailRow).where(TrailRow.at >= since).order_by(TrailRow.number.desc())
        if before is not None:
            statement = statement.where(TrailRow.number < before)
        if session_id is not None:
            statement = statement.where(TrailRow.session_id == session_id)
        with self._read() as transaction:
            return transaction.scalars(statement.limit(most)).all()

    def prune(self, before: datetime) -> int:
        """Forget the entries from before a time, and return how many they were."""
        with self._write.begin() as transaction:
            return transaction.connection().execute(_before(before)).rowcount


def _before(time: datetime) -> Delete:
    return delete(TrailRow).where(TrailRow.at < time)
