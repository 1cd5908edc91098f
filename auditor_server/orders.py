"""Taking in the auditor's signed orders."""

from collections.abc import Sequence
from typing import Final

from auditkit.evidence import dsse, statements
from auditkit.evidence.canonical import sha256_hex
from auditkit.evidence.image_signatures import check_image_key
from auditor_server.access.principals import Principal
from auditor_server.context import Auditor
from auditor_server.errors import OrderExistsError, OrderNotFoundError
from auditor_server.store import OrderRow, Place
from auditor_server.witnesses import check_policy
from schemas import AuditOrder
from schemas.wire import OrderSummary

NO_ORDER: Final = ""  # as none can be called


def add_order(auditor: Auditor, data: bytes) -> AuditOrder:
    """Store an order. The same order again changes nothing.

    Args:
        auditor: the server.
        data: DSSE envelope as JSON, signed by the `order` role.

    Raises:
        EvidenceError: not an order, or not signed by the order role.
        ImageKeyError: it lists a key that can have signed no image.
        WitnessPolicyError, WitnessNotConfiguredError: its witnesses can't be relied on, or are
            not asked by this server.
        OrderExistsError: another order has the same name.

    """
    envelope = dsse.Envelope.from_bytes(data)
    order = auditor.home.history().verify_statement(
        "order",
        envelope,
        statements.ORDER_PREDICATE,
        AuditOrder,
        dated=lambda order: order.issued_at,
        known_by=auditor.now(),
    )
    for key in order.image_keys:
        check_image_key(key)
    if order.witnesses is not None:
        check_policy(auditor, order.witnesses)
    digest = sha256_hex(envelope.payload)
    stored = auditor.store.add_order(
        OrderRow(
            order_id=order.order_id,
            digest=digest,
            developer=order.developer,
            envelope=envelope.to_bytes(),
            received_at=auditor.now(),
        )
    )
    if stored.digest != digest:
        raise OrderExistsError(
            f"another order is named {order.order_id!r}; give the new one a name of its own"
        )
    return order


def find_order(auditor: Auditor, order_id: str) -> OrderRow:
    """Return one order as it was signed.

    Raises:
        OrderNotFoundError: there is none of that name.

    """
    row = auditor.store.order(order_id)
    if row is None:
        raise _not_found(order_id)
    return row


def read_order(row: OrderRow) -> AuditOrder:
    """Return the order inside a stored envelope, which was verified when it came."""
    payload = dsse.Envelope.from_bytes(row.envelope).payload
    return statements.parse(payload, statements.ORDER_PREDICATE, AuditOrder)


def order_seen_by(auditor: Auditor, principal: Principal, order_id: str) -> OrderRow:
    """Return one order as it was signed, if the principal may see it.

    An order is for the developer that it names. If an organisation has that name, no other one
    sees the order or trains under it. A token for one session sees that session's order.

    Raises:
        OrderNotFoundError: there is none of that name, or it is another organisation's; the two
            are not told apart.

    """
    row = find_order(auditor, order_id)
    organisation, only = _seen_by(auditor, principal)
    if not auditor.store.lists.count_orders(organisation, order_id) or only not in {None, order_id}:
        raise _not_found(order_id)
    return row


def page(
    auditor: Auditor, principal: Principal, after: Place | None, most: int
) -> Sequence[OrderRow]:
    """Return a page of the orders that the principal may see, oldest first."""
    return auditor.store.lists.orders(*_seen_by(auditor, principal), after, most)


def count(auditor: Auditor, principal: Principal) -> int:
    """Return how many orders the principal may see."""
    return auditor.store.lists.count_orders(*_seen_by(auditor, principal))


def newest(auditor: Auditor, principal: Principal, *, first: int, most: int) -> list[OrderSummary]:
    """Return a page of the orders that `count` counts, newest first."""
    seen = _seen_by(auditor, principal)
    return [
        summary(row) for row in auditor.store.lists.newest_orders(*seen, first=first, most=most)
    ]


def summary(row: OrderRow) -> OrderSummary:
    """Return what the list says of an order."""
    order = read_order(row)
    return OrderSummary(
        order_id=order.order_id,
        developer=order.developer,
        purpose=order.purpose,
        expires_at=order.expires_at,
    )


def _seen_by(auditor: Auditor, principal: Principal) -> tuple[str | None, str | None]:
    """Return whose orders a principal sees, None: those of all; and the only one, None: any."""
    if principal.session_id is None:
        return (None if principal.sees_all else principal.organisation), None
    session = auditor.store.session(principal.session_id)
    return None, NO_ORDER if session is None else session.order_id


def _not_found(order_id: str) -> OrderNotFoundError:
    return OrderNotFoundError(f"no order is named {order_id!r}; `GET /v1/orders` lists them")
