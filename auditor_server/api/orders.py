"""Orders: the auditor adds them, everyone with a token reads them."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Response

from auditor_server import orders
from auditor_server.api.dependencies import Anyone, AuditorOnly, AuditorServer, body_up_to
from schemas.wire import OrderSummary

router = APIRouter(prefix="/orders", tags=["orders"])

OrderBody = Annotated[bytes, Depends(body_up_to(lambda settings: settings.most_order_bytes))]


@router.post("", status_code=HTTPStatus.CREATED)
def add_order(principal: AuditorOnly, auditor: AuditorServer, body: OrderBody) -> dict[str, str]:
    """Add a signed order (DSSE)."""
    del principal
    return {"order_id": orders.add_order(auditor, body).order_id}


@router.get("")
def list_orders(principal: Anyone, auditor: AuditorServer) -> list[OrderSummary]:
    """List all orders."""
    del principal
    return orders.summaries(auditor)


@router.get("/{order_id}", response_class=Response)
def get_order(principal: Anyone, auditor: AuditorServer, order_id: str) -> Response:
    """Return one signed order (DSSE)."""
    del principal
    return Response(orders.find_order(auditor, order_id).envelope, media_type="application/json")
