"""Replays: the auditor draws segments of a sealed log, and hands in what executing them gave."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from auditkit.evidence.errors import EvidenceError
from auditor_server import replays
from auditor_server.api.answers import JSON, document, json_body, refusals
from auditor_server.api.dependencies import (
    AuditorOnly,
    AuditorServer,
    Reader,
    SessionId,
    body_up_to,
)
from auditor_server.api.paging import ITEMS_PER_PAGE, PAGED, ItemLimit, link_next
from auditor_server.documents import parse
from auditor_server.errors import (
    DrawAnsweredError,
    DrawNotFoundError,
    InvalidDocumentError,
    ReplayKeyMissingError,
    TooManyDrawsError,
)
from schemas import DrawRequest, ReplayResult
from schemas.base import Count
from schemas.wire import DrawnReplay, DrawPage, SignedDocument

router = APIRouter(prefix="/sessions/{session_id}", tags=["replays"])

After = Annotated[Count, Query(description="number of a draw; only later ones are listed")]
ReplayBody = Annotated[bytes, Depends(body_up_to(lambda settings: settings.most_replay_bytes))]


@router.post(
    "/draws",
    status_code=HTTPStatus.CREATED,
    response_class=Response,
    openapi_extra=json_body(DrawRequest),
    responses=document(SignedDocument, "a signed ReplayDraw", HTTPStatus.CREATED)
    | refusals(TooManyDrawsError, InvalidDocumentError, EvidenceError, ReplayKeyMissingError),
)
def draw_segments(
    principal: AuditorOnly, auditor: AuditorServer, session_id: SessionId, body: ReplayBody
) -> Response:
    """Draw segments of a sealed log; the answer is the signed draw (DSSE)."""
    session = auditor.session(session_id, principal)
    envelope = replays.add_draw(auditor, session, parse(DrawRequest, body))
    return Response(envelope, HTTPStatus.CREATED, media_type=JSON)


@router.get("/draws", responses=PAGED)
def list_draws(
    *,
    principal: Reader,
    auditor: AuditorServer,
    session_id: SessionId,
    request: Request,
    response: Response,
    after: After = 0,
    limit: ItemLimit = ITEMS_PER_PAGE,
) -> DrawPage:
    """Return the signed draws (DSSE) in their order, each with its signed result, if it has one."""
    session = auditor.session(session_id, principal)
    found = auditor.store.replay_page(session.id, after, limit)
    if len(found) == limit:
        link_next(request, response, after=found[-1].number)
    return DrawPage(
        draws=tuple(
            DrawnReplay(
                draw=SignedDocument.from_bytes(row.draw),
                result=None if row.result is None else SignedDocument.from_bytes(row.result),
            )
            for row in found
        )
    )


@router.post(
    "/replays",
    status_code=HTTPStatus.CREATED,
    response_class=Response,
    openapi_extra=json_body(ReplayResult),
    responses=document(SignedDocument, "the signed ReplayResult", HTTPStatus.CREATED)
    | refusals(
        DrawNotFoundError,
        DrawAnsweredError,
        InvalidDocumentError,
        EvidenceError,
        ReplayKeyMissingError,
    ),
)
def add_result(
    principal: AuditorOnly, auditor: AuditorServer, session_id: SessionId, body: ReplayBody
) -> Response:
    """Hand in what executing a draw's segments gave; the answer is the signed result (DSSE).

    Sending the same result again is harmless.
    """
    session = auditor.session(session_id, principal)
    envelope = replays.add_result(auditor, session, parse(ReplayResult, body))
    return Response(envelope, HTTPStatus.CREATED, media_type=JSON)
