"""Exchanges with the MINT Models that this server holds."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from auditkit.evidence.errors import EvidenceError
from auditkit.mint.errors import MintError
from auditor_server.api.answers import BINARY, body, octets, refusals
from auditor_server.api.dependencies import AuditorServer, SessionId, Trainer, body_up_to
from auditor_server.errors import (
    CustodyNotUsedError,
    ExchangeKeyError,
    ExchangeOrderError,
    ExchangeRepeatedError,
    ExchangeSessionError,
    HeldStateLostError,
    InvalidDocumentError,
    KeyNotInForceError,
    SessionExpiredError,
    SessionSealedError,
    TapShapesError,
    WeightsError,
)
from auditor_server.mint_custody import MintCustody

router = APIRouter(prefix="/sessions/{session_id}/mint-exchanges", tags=["custody"])

# The last exchange of a training carries the weights of M; `MintCustody` limits the others.
ExchangeBody = Annotated[
    bytes,
    Depends(
        body_up_to(lambda settings: settings.most_exchange_bytes + settings.most_weights_bytes)
    ),
]


def _custody(request: Request) -> MintCustody:
    custody: MintCustody = request.app.state.custody
    return custody


@router.post(
    "",
    response_class=Response,
    openapi_extra=body(
        BINARY,
        {"contentMediaType": BINARY},
        "a message of the protocol's section \"An auditor's T\"",
    ),
    responses=octets("the answer, a message of the same kind")
    | refusals(
        ExchangeKeyError,
        KeyNotInForceError,
        SessionExpiredError,
        CustodyNotUsedError,
        ExchangeOrderError,
        ExchangeRepeatedError,
        HeldStateLostError,
        SessionSealedError,
        ExchangeSessionError,
        InvalidDocumentError,
        TapShapesError,
        WeightsError,
        EvidenceError,
        MintError,
    ),
)
def exchange(
    *,
    principal: Trainer,
    auditor: AuditorServer,
    custody: Annotated[MintCustody, Depends(_custody)],
    session_id: SessionId,
    message: ExchangeBody,
) -> Response:
    """Train the MINT Model that is held here on the activations in a signed message."""
    answer = custody.exchange(auditor.session(session_id, principal), message)
    return Response(answer, media_type=BINARY)
