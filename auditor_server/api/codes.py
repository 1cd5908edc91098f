"""Membership codes: the training process gets what the model is to learn, encrypted to it."""

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from auditkit.evidence.errors import EvidenceError
from auditor_server import codes
from auditor_server.api.answers import BINARY, json_body, octets, refusals
from auditor_server.api.dependencies import AuditorServer, SessionId, Trainer, body_up_to
from auditor_server.errors import (
    CodesHeldError,
    CodesNotUsedError,
    CodesRequestKeyError,
    CodesRequestMismatchError,
    KeyNotInForceError,
    SessionExpiredError,
    SessionSealedError,
)
from schemas.wire import SignedDocument

router = APIRouter(prefix="/sessions/{session_id}/membership-codes", tags=["codes"])

CodesBody = Annotated[
    bytes, Depends(body_up_to(lambda settings: settings.most_codes_request_bytes))
]


@router.post(
    "",
    response_class=Response,
    openapi_extra=json_body(SignedDocument, "a CodesRequest, signed by the session key"),
    responses=octets("the codes, encrypted")
    | refusals(
        CodesHeldError,
        CodesRequestKeyError,
        KeyNotInForceError,
        SessionExpiredError,
        CodesNotUsedError,
        SessionSealedError,
        CodesRequestMismatchError,
        EvidenceError,
    ),
)
def deliver_codes(
    principal: Trainer, auditor: AuditorServer, session_id: SessionId, body: CodesBody
) -> Response:
    """Return the session's codes, encrypted to the key in the signed request (HPKE)."""
    session = auditor.session(session_id, principal)
    sealed = codes.deliver(auditor, session, body)
    return Response(sealed, media_type=BINARY)
