"""Continuations: a session goes on in a fresh container, under a new session key."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Response

from auditor_server import continuations
from auditor_server.api.dependencies import AuditorServer, Trainer, body_up_to

router = APIRouter(prefix="/sessions/{session_id}/continuations", tags=["continuations"])

ContinuationBody = Annotated[
    bytes, Depends(body_up_to(lambda settings: settings.most_continuation_bytes))
]


@router.post("", status_code=HTTPStatus.CREATED, response_class=Response)
def continue_session(
    principal: Trainer, auditor: AuditorServer, session_id: str, body: ContinuationBody
) -> Response:
    """Certify a fresh container's key; the answer is the signed continuation (DSSE).

    Sending the same request again is harmless.
    """
    session = auditor.session(session_id, principal)
    envelope = continuations.continue_session(auditor, session, body)
    return Response(envelope, HTTPStatus.CREATED, media_type="application/json")
