"""Orders: the auditor adds them, those whom they concern read them."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Response

from auditkit.evidence.errors import EvidenceError
from auditor_server import orders
from auditor_server.api.answers import JSON, document, json_body, refusals
from auditor_server.api.dependencies import AuditorServer, Orderer, Reader, body_up_to
from auditor_server.errors import OrderExistsError, OrderNotFoundError, WitnessNotConfiguredError
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


@router.get("")
def list_orders(principal: Reader, auditor: AuditorServer) -> list[OrderSummary]:
    """List the orders that the caller may see."""
    return orders.summaries(auditor, principal)


@router.get(
    "/{order_id}",
    response_class=Response,
    responses=document(SignedDocument, "a signed AuditOrder") | refusals(OrderNotFoundError),
)
def get_order(principal: Reader, auditor: AuditorServer, order_id: OrderId) -> Response:
    """Return one signed order (DSSE)."""
    order = orders.order_seen_by(auditor, principal, order_id)
    return Response(order.envelope, media_type=JSON)
