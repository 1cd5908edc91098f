"""Continuations: a session goes on in a fresh container, under a new session key."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Response

from auditkit.evidence.errors import EvidenceError
from auditor_server import continuations
from auditor_server.api.answers import JSON, document, json_body, refusals
from auditor_server.api.dependencies import AuditorServer, SessionId, Trainer, body_up_to
from auditor_server.errors import (
    ContinuationError,
    InvalidDocumentError,
    SessionExpiredError,
    SessionKeyReusedError,
    SessionSealedError,
    TooManyContinuationsError,
)
from schemas import ContinuationRequest
from schemas.wire import SignedDocument

router = APIRouter(prefix="/sessions/{session_id}/continuations", tags=["continuations"])

ContinuationBody = Annotated[
    bytes, Depends(body_up_to(lambda settings: settings.most_continuation_bytes))
]


@router.post(
    "",
    status_code=HTTPStatus.CREATED,
    response_class=Response,
    openapi_extra=json_body(ContinuationRequest, "in RFC 8785 form"),
    responses=document(SignedDocument, "a signed SessionContinuation", HTTPStatus.CREATED)
    | refusals(
        SessionExpiredError,
        SessionKeyReusedError,
        SessionSealedError,
        TooManyContinuationsError,
        InvalidDocumentError,
        ContinuationError,
        EvidenceError,
    ),
)
def continue_session(
    principal: Trainer, auditor: AuditorServer, session_id: SessionId, body: ContinuationBody
) -> Response:
    """Certify a fresh container's key; the answer is the signed continuation (DSSE).

    Sending the same request again is harmless.
    """
    session = auditor.session(session_id, principal)
    envelope = continuations.continue_session(auditor, session, body)
    return Response(envelope, HTTPStatus.CREATED, media_type=JSON)
