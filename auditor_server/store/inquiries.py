"""Inquiries: what was asked at once, in the database."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Select, delete, select
from sqlalchemy.orm import Session, sessionmaker

from auditor_server.store.models import InquiryRow, InquiryVerdictRow


class InquiryStore:
    """Inquiries, and which verdicts answer them."""

    def __init__(self, write: sessionmaker[Session], read: sessionmaker[Session]) -> None:
        self._write = write
        self._read = read

    def add(self, row: InquiryRow, verdict_ids: Sequence[str], kept_since: datetime) -> None:
        """Store an inquiry, and forget those from before a time."""
        with self._write.begin() as transaction:
            transaction.add(row)
            transaction.flush()
            transaction.add_all(
                InquiryVerdictRow(verdict_id=verdict_id, inquiry=row.number)
                for verdict_id in verdict_ids
            )
            _forget(transaction, kept_since)

    def find(self, inquiry_id: str, since: datetime) -> InquiryRow | None:
        """Return one inquiry, unless it is from before a time."""
        return self._first(select(InquiryRow).where(InquiryRow.id == inquiry_id), since)

    def answered_by(self, verdict_id: str, since: datetime) -> InquiryRow | None:
        """Return the inquiry that a verdict answers, unless it is from before a time."""
        statement = (
            select(InquiryRow)
            .join(InquiryVerdictRow, InquiryVerdictRow.inquiry == InquiryRow.number)
            .where(InquiryVerdictRow.verdict_id == verdict_id)
        )
        return self._first(statement, since)

    def newest(
        self, organisation: str | None, role: str | None, since: datetime, most: int
    ) -> Sequence[InquiryRow]:
        """Return inquiries, newest first.

        Args:
            organisation: that asked; None: any.
            role: in which they were asked; None: any.
            since: leaves out older ones.
            most: how many at most.
        """
        statement = select(InquiryRow).where(InquiryRow.at >= since)
        if organisation is not None:
            statement = statement.where(InquiryRow.organisation == organisation)
        if role is not None:
            statement = statement.where(InquiryRow.role == role)
        with self._read() as transaction:
            newest = statement.order_by(InquiryRow.number.desc()).limit(most)
            return transaction.scalars(newest).all()

    def prune(self, before: datetime) -> None:
        """Forget the inquiries from before a time; their verdicts stay."""
        with self._write.begin() as transaction:
            _forget(transaction, before)

    def _first(self, statement: Select[InquiryRow], since: datetime) -> InquiryRow | None:
        with self._read() as transaction:
            return transaction.scalar(statement.where(InquiryRow.at >= since))


def _forget(transaction: Session, before: datetime) -> None:
    old = select(InquiryRow.number).where(InquiryRow.at < before)
    transaction.execute(delete(InquiryVerdictRow).where(InquiryVerdictRow.inquiry.in_(old)))
    transaction.execute(delete(InquiryRow).where(InquiryRow.at < before))
