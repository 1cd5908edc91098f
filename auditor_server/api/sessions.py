"""Sessions: a developer opens one and follows its progress."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from auditkit.evidence.errors import EvidenceError
from auditor_server import sessions
from auditor_server.api.answers import JSON, document, json_body, refusals
from auditor_server.api.dependencies import Anyone, AuditorServer, Opener, SessionId, body_up_to
from auditor_server.api.paging import (
    ITEMS_PER_PAGE,
    PAGED,
    Cursor,
    ItemLimit,
    from_cursor,
    link_next,
    to_cursor,
)
from auditor_server.documents import parse
from auditor_server.errors import (
    InvalidDocumentError,
    LeavesError,
    OrderMismatchError,
    OrderNotFoundError,
    SessionKeyReusedError,
)
from auditor_server.store import Place
from schemas.wire import SessionOpening, SessionStatus, SignedDocument

router = APIRouter(prefix="/sessions", tags=["sessions"])

SessionBody = Annotated[bytes, Depends(body_up_to(lambda settings: settings.most_session_bytes))]


@router.post(
    "",
    status_code=HTTPStatus.CREATED,
    response_class=Response,
    openapi_extra=json_body(SessionOpening),
    responses=document(SignedDocument, "a signed SessionGrant", HTTPStatus.CREATED)
    | refusals(
        OrderNotFoundError,
        SessionKeyReusedError,
        InvalidDocumentError,
        LeavesError,
        OrderMismatchError,
        EvidenceError,
    ),
)
def open_session(principal: Opener, auditor: AuditorServer, body: SessionBody) -> Response:
    """Open a session; the answer is the signed grant (DSSE)."""
    grant = sessions.open_session(auditor, principal, parse(SessionOpening, body))
    return Response(grant, HTTPStatus.CREATED, media_type=JSON)


@router.get("", responses=PAGED)
def list_sessions(
    *,
    principal: Anyone,
    auditor: AuditorServer,
    request: Request,
    response: Response,
    cursor: Cursor = None,
    limit: ItemLimit = ITEMS_PER_PAGE,
) -> list[SessionStatus]:
    """List the sessions that the caller may see, oldest first."""
    found = auditor.sessions(principal, from_cursor(cursor), limit)
    if len(found) == limit:
        link_next(request, response, cursor=to_cursor(Place(found[-1].opened_at, found[-1].id)))
    return [sessions.status(auditor, session) for session in found]


@router.get("/{session_id}")
def session_status(
    principal: Anyone, auditor: AuditorServer, session_id: SessionId
) -> SessionStatus:
    """Return how far a session has come."""
    return sessions.status(auditor, auditor.session(session_id, principal))
