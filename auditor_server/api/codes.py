"""Membership codes: the training process gets what the model is to learn, encrypted to it."""

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from auditor_server import codes
from auditor_server.api.dependencies import AuditorServer, Trainer, body_up_to

router = APIRouter(prefix="/sessions/{session_id}/membership-codes", tags=["codes"])

CodesBody = Annotated[
    bytes, Depends(body_up_to(lambda settings: settings.most_codes_request_bytes))
]


@router.post("", response_class=Response)
def deliver_codes(
    principal: Trainer, auditor: AuditorServer, session_id: str, body: CodesBody
) -> Response:
    """Return the session's codes, encrypted to the key in the signed request (HPKE)."""
    session = auditor.session(session_id, principal)
    sealed = codes.deliver(auditor, session, body)
    return Response(sealed, media_type="application/octet-stream")
