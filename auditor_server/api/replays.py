"""Replays: the auditor draws segments of a sealed log, and hands in what executing them gave."""

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response

from auditkit.evidence import canonical
from auditor_server import replays
from auditor_server.api.dependencies import AuditorOnly, AuditorServer, Reader, body_up_to
from auditor_server.documents import parse
from schemas import DrawRequest, ReplayResult

router = APIRouter(prefix="/sessions/{session_id}", tags=["replays"])

ReplayBody = Annotated[bytes, Depends(body_up_to(lambda settings: settings.most_replay_bytes))]


@router.post("/draws", status_code=HTTPStatus.CREATED, response_class=Response)
def draw_segments(
    principal: AuditorOnly, auditor: AuditorServer, session_id: str, body: ReplayBody
) -> Response:
    """Draw segments of a sealed log; the answer is the signed draw (DSSE)."""
    session = auditor.session(session_id, principal)
    envelope = replays.add_draw(auditor, session, parse(DrawRequest, body))
    return Response(envelope, HTTPStatus.CREATED, media_type="application/json")


@router.get("/draws")
def list_draws(
    principal: Reader, auditor: AuditorServer, session_id: str
) -> dict[str, list[dict[str, Any]]]:
    """Return every signed draw (DSSE) in its order, each with its signed result, if it has one."""
    session = auditor.session(session_id, principal)
    return {
        "draws": [
            {
                "draw": canonical.parse(row.draw),
                "result": None if row.result is None else canonical.parse(row.result),
            }
            for row in auditor.store.replays(session.id)
        ]
    }


@router.post("/replays", status_code=HTTPStatus.CREATED, response_class=Response)
def add_result(
    principal: AuditorOnly, auditor: AuditorServer, session_id: str, body: ReplayBody
) -> Response:
    """Hand in what executing a draw's segments gave; the answer is the signed result (DSSE).

    Sending the same result again is harmless.
    """
    session = auditor.session(session_id, principal)
    envelope = replays.add_result(auditor, session, parse(ReplayResult, body))
    return Response(envelope, HTTPStatus.CREATED, media_type="application/json")
