"""Orders: the list, one order, and an editor that checks a draft and cannot sign."""

import json

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from auditkit.evidence import dsse
from auditkit.evidence.canonical import sha256_hex
from auditor_server import order_drafts, orders
from auditor_server.web.dependencies import (
    PAGE_SIZE,
    AuditorServer,
    OrderForm,
    PageNumber,
    SignedInOrderer,
    SignedInReader,
)
from auditor_server.web.order_fields import ORDER_FIELDS
from auditor_server.web.paging import Paging
from auditor_server.web.rendering import download, fragment, page
from auditor_server.web.texts import text

router = APIRouter(include_in_schema=False)

EDITOR = "/order-editor"
HTMX = "HX-Request"


@router.get("/orders")
def orders_page(
    request: Request, principal: SignedInReader, auditor: AuditorServer, number: PageNumber = 1
) -> HTMLResponse:
    """List the orders, newest first."""
    paging = Paging(number, PAGE_SIZE, orders.count(auditor, principal))
    return page(
        request,
        "orders",
        orders=orders.newest(auditor, principal, first=paging.first, most=PAGE_SIZE),
        now=auditor.now(),
        paging=paging,
        may_draft=principal.role == "auditor" and principal.session_id is None,
    )


@router.get("/orders/{order_id}")
def order_page(
    request: Request, principal: SignedInReader, auditor: AuditorServer, order_id: str
) -> HTMLResponse:
    """Show one order."""
    row = orders.order_seen_by(auditor, principal, order_id)
    order = orders.read_order(row)
    return page(
        request,
        "order",
        order=order,
        digest=sha256_hex(dsse.Envelope.from_bytes(row.envelope).payload),
        content=json.dumps(order.as_json(), indent=2, ensure_ascii=False),
        now=auditor.now(),
    )


@router.get("/orders/{order_id}/envelope")
def order_envelope(principal: SignedInReader, auditor: AuditorServer, order_id: str) -> Response:
    """Return one order as it was signed (DSSE)."""
    envelope = orders.order_seen_by(auditor, principal, order_id).envelope
    return download(envelope, f"{order_id}.dsse.json", "application/json")


@router.get(EDITOR)
def editor(request: Request, principal: SignedInOrderer) -> HTMLResponse:
    """Offer a draft to write on."""
    del principal
    return page(
        request,
        "order_editor",
        draft=text("order_editor", "draft"),
        checked="",
        fields=ORDER_FIELDS,
    )


@router.post(EDITOR)
def check(
    request: Request, principal: SignedInOrderer, auditor: AuditorServer, form: OrderForm
) -> HTMLResponse:
    """Check a draft; nothing is kept."""
    del principal
    draft = form.get("draft", "").replace("\r\n", "\n")
    checked = fragment("order_checked", problems=order_drafts.problems(auditor, draft), draft=draft)
    if HTMX in request.headers:
        return HTMLResponse(checked)
    return page(request, "order_editor", draft=draft, checked=checked, fields=ORDER_FIELDS)
