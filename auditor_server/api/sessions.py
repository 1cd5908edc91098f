"""Sessions: a developer opens one and follows its progress."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Response

from auditor_server import sessions
from auditor_server.api.dependencies import Anyone, AuditorServer, Opener, body_up_to
from auditor_server.documents import parse
from schemas.wire import SessionOpening, SessionStatus

router = APIRouter(prefix="/sessions", tags=["sessions"])

SessionBody = Annotated[bytes, Depends(body_up_to(lambda settings: settings.most_session_bytes))]


@router.post("", status_code=HTTPStatus.CREATED, response_class=Response)
def open_session(principal: Opener, auditor: AuditorServer, body: SessionBody) -> Response:
    """Open a session; the answer is the signed grant (DSSE)."""
    grant = sessions.open_session(auditor, principal, parse(SessionOpening, body))
    return Response(grant, HTTPStatus.CREATED, media_type="application/json")


@router.get("")
def list_sessions(principal: Anyone, auditor: AuditorServer) -> list[SessionStatus]:
    """List the sessions that the caller may see."""
    return [sessions.status(auditor, session) for session in auditor.sessions(principal)]


@router.get("/{session_id}")
def session_status(principal: Anyone, auditor: AuditorServer, session_id: str) -> SessionStatus:
    """Return how far a session has come."""
    return sessions.status(auditor, auditor.session(session_id, principal))
