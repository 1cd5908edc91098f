"""Orders: the auditor adds them, those whom they concern read them."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Response

from auditor_server import orders
from auditor_server.api.dependencies import AuditorServer, Orderer, Reader, body_up_to
from schemas.wire import OrderSummary

router = APIRouter(prefix="/orders", tags=["orders"])

OrderBody = Annotated[bytes, Depends(body_up_to(lambda settings: settings.most_order_bytes))]


@router.post("", status_code=HTTPStatus.CREATED)
def add_order(principal: Orderer, auditor: AuditorServer, body: OrderBody) -> dict[str, str]:
    """Add a signed order (DSSE)."""
    del principal
    return {"order_id": orders.add_order(auditor, body).order_id}


@router.get("")
def list_orders(principal: Reader, auditor: AuditorServer) -> list[OrderSummary]:
    """List the orders that the caller may see."""
    return orders.summaries(auditor, principal)


@router.get("/{order_id}", response_class=Response)
def get_order(principal: Reader, auditor: AuditorServer, order_id: str) -> Response:
    """Return one signed order (DSSE)."""
    order = orders.order_seen_by(auditor, principal, order_id)
    return Response(order.envelope, media_type="application/json")
