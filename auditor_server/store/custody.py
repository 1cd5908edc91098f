"""The MINT Models that are held here, in the database: secrets, exchanges and rewinds."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, and_, delete, func, or_, select
from sqlalchemy.orm import Session, sessionmaker

from auditor_server.store.models import HeldMintRow, MintExchangeRow, MintRewindRow
from schemas.custody import ExchangeKind


class CustodyStore:
    """What the server knows of the trainings whose T it holds."""

    def __init__(self, write: sessionmaker[Session], read: sessionmaker[Session]) -> None:
        self._write = write
        self._read = read

    def add(self, row: HeldMintRow) -> None:
        """Store that a session's T is held here."""
        with self._write.begin() as transaction:
            transaction.add(row)

    def held(self, session_id: str) -> HeldMintRow | None:
        """Return what is stored of a session's T; None: it has none here yet."""
        with self._read() as transaction:
            return transaction.get(HeldMintRow, session_id)

    def add_exchange(self, row: MintExchangeRow) -> None:
        """Store one exchange.

        Raises:
            sqlalchemy.exc.IntegrityError: it took place already.
        """
        with self._write.begin() as transaction:
            transaction.add(row)

    def exchange(self, wanted: MintExchangeRow) -> MintExchangeRow | None:
        """Return the exchange of the same session, kind, step, cohort and place."""
        key = (wanted.session_id, wanted.kind, wanted.step, wanted.cohort, wanted.first)
        with self._read() as transaction:
            return transaction.get(MintExchangeRow, key)

    def took_place(self, session_id: str, kind: ExchangeKind, step: int) -> bool:
        """Tell whether there was an exchange of a kind that concerns all cohorts."""
        with self._read() as transaction:
            key = (session_id, kind, step, "", 0)
            return transaction.get(MintExchangeRow, key) is not None

    def steps(self, session_id: str, after: int = 0) -> Sequence[MintExchangeRow]:
        """Return the exchanges of all steps after one, in order."""
        statement = (
            select(MintExchangeRow)
            .where(
                MintExchangeRow.session_id == session_id,
                MintExchangeRow.kind == "step",
                MintExchangeRow.step > after,
            )
            .order_by(MintExchangeRow.step)
        )
        with self._read() as transaction:
            return transaction.scalars(statement).all()

    def last_step(self, session_id: str, *, kept: bool = False) -> int:
        """Return the last step that was done, or, if `kept`, whose state is kept; 0: none."""
        statement = select(func.max(MintExchangeRow.step)).where(
            MintExchangeRow.session_id == session_id, MintExchangeRow.kind == "step"
        )
        if kept:
            statement = statement.where(MintExchangeRow.state_digest.is_not(None))
        with self._read() as transaction:
            return transaction.scalar(statement) or 0

    def rewind(self, session_id: str, step: int, now: datetime) -> int:
        """Forget the steps after one, and evaluations of it and of later ones.

        Returns:
            How many steps were forgotten; a rewind that forgets any is itself stored.
        """
        steps = _of(session_id, MintExchangeRow.kind == "step", MintExchangeRow.step > step)
        evaluations = _of(session_id, MintExchangeRow.kind != "step", MintExchangeRow.step >= step)
        count = select(func.count()).select_from(MintExchangeRow).where(steps)
        with self._write.begin() as transaction:
            discarded = transaction.scalar(count) or 0
            transaction.execute(delete(MintExchangeRow).where(or_(steps, evaluations)))
            if discarded:
                transaction.add(
                    MintRewindRow(
                        session_id=session_id,
                        step=step,
                        discarded_steps=discarded,
                        rewound_at=now,
                    )
                )
        return discarded

    def rewinds(self, session_id: str) -> Sequence[MintRewindRow]:
        """Return how often, and how far, a session's T went back, in order."""
        statement = (
            select(MintRewindRow)
            .where(MintRewindRow.session_id == session_id)
            .order_by(MintRewindRow.number)
        )
        with self._read() as transaction:
            return transaction.scalars(statement).all()


def _of(session_id: str, *conditions: ColumnElement[bool]) -> ColumnElement[bool]:
    return and_(MintExchangeRow.session_id == session_id, *conditions)
