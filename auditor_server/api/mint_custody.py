"""Exchanges with the MINT Models that this server holds."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from auditor_server.api.dependencies import AuditorServer, Trainer, body_up_to
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


@router.post("", response_class=Response)
def exchange(
    *,
    principal: Trainer,
    auditor: AuditorServer,
    custody: Annotated[MintCustody, Depends(_custody)],
    session_id: str,
    body: ExchangeBody,
) -> Response:
    """Train the MINT Model that is held here on the activations in a signed message."""
    answer = custody.exchange(auditor.session(session_id, principal), body)
    return Response(answer, media_type="application/octet-stream")
