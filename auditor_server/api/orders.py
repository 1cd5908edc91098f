"""Orders: the auditor adds them, those whom they concern read them."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request, Response

from auditkit.evidence.errors import EvidenceError
from auditor_server import orders
from auditor_server.api.answers import JSON, document, json_body, refusals
from auditor_server.api.caching import PRIVATE, IfNoneMatch, answer, tagged
from auditor_server.api.dependencies import AuditorServer, Orderer, Reader, body_up_to
from auditor_server.api.paging import (
    ITEMS_PER_PAGE,
    PAGED,
    Cursor,
    ItemLimit,
    from_cursor,
    link_next,
    to_cursor,
)
from auditor_server.errors import OrderExistsError, OrderNotFoundError, WitnessNotConfiguredError
from auditor_server.store import Place
from schemas.base import Name
from schemas.wire import OrderAdded, OrderSummary, SignedDocument

router = APIRouter(prefix="/orders", tags=["orders"])

OrderId = Annotated[Name, Path(description="an order's own name")]
OrderBody = Annotated[bytes, Depends(body_up_to(lambda settings: settings.most_order_bytes))]


@router.post(
    "",
    status_code=HTTPStatus.CREATED,
    openapi_extra=json_body(SignedDocument, "an AuditOrder, signed by the `order` role"),
    responses=refusals(OrderExistsError, WitnessNotConfiguredError, EvidenceError),
)
def add_order(principal: Orderer, auditor: AuditorServer, body: OrderBody) -> OrderAdded:
    """Add a signed order (DSSE)."""
    del principal
    return OrderAdded(order_id=orders.add_order(auditor, body).order_id)


@router.get("", responses=PAGED)
def list_orders(
    *,
    principal: Reader,
    auditor: AuditorServer,
    request: Request,
    response: Response,
    cursor: Cursor = None,
    limit: ItemLimit = ITEMS_PER_PAGE,
) -> list[OrderSummary]:
    """List the orders that the caller may see, oldest first."""
    found = orders.page(auditor, principal, from_cursor(cursor), limit)
    if len(found) == limit:
        last = Place(found[-1].received_at, found[-1].order_id)
        link_next(request, response, cursor=to_cursor(last))
    return [orders.summary(row) for row in found]


@router.get(
    "/{order_id}",
    response_class=Response,
    responses=tagged(document(SignedDocument, "a signed AuditOrder"))
    | refusals(OrderNotFoundError),
)
def get_order(
    principal: Reader, auditor: AuditorServer, order_id: OrderId, known: IfNoneMatch = None
) -> Response:
    """Return one signed order (DSSE)."""
    order = orders.order_seen_by(auditor, principal, order_id)
    return answer(order.envelope, JSON, known, PRIVATE)
