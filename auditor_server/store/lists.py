"""Lists of orders and sessions, as much of them as somebody looks at."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, func, not_, select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session, sessionmaker

from auditor_server.store.models import OrderRow, OrganisationRow, SessionRow, TokenRow
from schemas.wire import SessionState


@dataclass(frozen=True)
class Place:
    """A row's place in a list that is ordered by time; the name decides between equal times."""

    at: datetime
    name: str


class ListStore:
    """Pages of lists; whoever asks says whose rows may be on them."""

    def __init__(self, read: sessionmaker[Session]) -> None:
        self._read = read

    # Orders

    def orders(
        self, organisation: str | None, order_id: str | None, after: Place | None, most: int
    ) -> Sequence[OrderRow]:
        """Return a page of orders, oldest first.

        Args:
            organisation: leaves out orders for another organisation, by its name; None: none.
            order_id: the only one that counts; None: all do.
            after: where the page before ended; None: from the beginning.
            most: how many at most.
        """
        statement = (
            select(OrderRow)
            .where(
                _for_organisation(organisation, order_id),
                _follows(OrderRow.received_at, OrderRow.order_id, after),
            )
            .order_by(OrderRow.received_at, OrderRow.order_id)
        )
        with self._read() as transaction:
            return transaction.scalars(statement.limit(most)).all()

    def count_orders(self, organisation: str | None, order_id: str | None) -> int:
        """Return how many orders all pages have together."""
        among = _for_organisation(organisation, order_id)
        with self._read() as transaction:
            found = transaction.scalar(select(func.count()).select_from(OrderRow).where(among))
        return found or 0

    def newest_orders(
        self, organisation: str | None, order_id: str | None, *, first: int, most: int
    ) -> Sequence[OrderRow]:
        """Return a page of the orders that `count_orders` counts, newest first."""
        newest = (
            select(OrderRow)
            .where(_for_organisation(organisation, order_id))
            .order_by(OrderRow.received_at.desc(), OrderRow.order_id.desc())
        )
        with self._read() as transaction:
            return transaction.scalars(newest.offset(first).limit(most)).all()

    # Sessions

    def sessions(
        self,
        organisation: str | None,
        session_id: str | None,
        after: Place | None,
        most: int | None,
    ) -> Sequence[SessionRow]:
        """Return a page of sessions, oldest first; see `orders`, and `count_sessions`.

        All of them if `most` is None.
        """
        statement = (
            select(SessionRow)
            .where(
                _is_among(organisation, session_id),
                _follows(SessionRow.opened_at, SessionRow.id, after),
            )
            .order_by(SessionRow.opened_at, SessionRow.id)
        )
        with self._read() as transaction:
            return transaction.scalars(statement.limit(most)).all()

    def count_sessions(
        self, organisation: str | None, session_id: str | None, states: Collection[SessionState]
    ) -> int:
        """Return how many sessions are in one of `states`.

        Args:
            organisation: that opened them; None: any.
            session_id: the only one that counts; None: all do.
            states: in which they are.
        """
        among = _is_among(organisation, session_id), SessionRow.state.in_(states)
        with self._read() as transaction:
            found = transaction.scalar(select(func.count()).select_from(SessionRow).where(*among))
        return found or 0

    def newest_sessions(
        self,
        organisation: str | None,
        session_id: str | None,
        states: Collection[SessionState],
        *,
        first: int,
        most: int,
    ) -> Sequence[SessionRow]:
        """Return a page of the sessions that `count_sessions` counts, newest first."""
        newest = (
            select(SessionRow)
            .where(_is_among(organisation, session_id), SessionRow.state.in_(states))
            .order_by(SessionRow.opened_at.desc(), SessionRow.id.desc())
        )
        with self._read() as transaction:
            return transaction.scalars(newest.offset(first).limit(most)).all()


def _for_organisation(organisation: str | None, order_id: str | None) -> ColumnElement[bool]:
    conditions: list[ColumnElement[bool]] = []
    if organisation is not None:
        another = select(OrganisationRow.id).where(
            OrganisationRow.name == OrderRow.developer, OrganisationRow.id != organisation
        )
        conditions.append(not_(another.exists()))
    if order_id is not None:
        conditions.append(OrderRow.order_id == order_id)
    return and_(True, *conditions)  # noqa: FBT003 - a condition that always holds


def _is_among(organisation: str | None, session_id: str | None) -> ColumnElement[bool]:
    conditions: list[ColumnElement[bool]] = []
    if organisation is not None:
        owners = select(TokenRow.id).where(TokenRow.organisation == organisation)
        conditions.append(SessionRow.owner.in_(owners))
    if session_id is not None:
        conditions.append(SessionRow.id == session_id)
    return and_(True, *conditions)  # noqa: FBT003 - a condition that always holds


def _follows(
    time: InstrumentedAttribute[datetime], name: InstrumentedAttribute[str], after: Place | None
) -> ColumnElement[Any]:
    if after is None:
        return and_(True)  # noqa: FBT003 - a condition that always holds
    return tuple_(time, name) > tuple_(after.at, after.name)
