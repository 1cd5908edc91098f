"""The record explorer: find a record, see it and its proof, take both along."""

import json
import re
from dataclasses import dataclass, field
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, Response

from auditor_server import explorer, sessions
from auditor_server.context import Auditor
from auditor_server.explorer import LoggedRecord, Sample
from auditor_server.store import SessionRow
from auditor_server.web.dependencies import PAGE_SIZE, AuditorServer, PageNumber, SignedInReader
from auditor_server.web.errors import PageNotFoundError
from auditor_server.web.paging import Paging
from auditor_server.web.rendering import download, page
from auditor_server.web.texts import text
from schemas.base import Count

router = APIRouter(include_in_schema=False, prefix="/sessions/{session_id}/records")

By = Literal["step", "index", "digest", "sample"]
DIGEST = re.compile(r"[0-9a-f]{64}")
NUMBER = re.compile(r"[0-9]{1,15}")


@dataclass(frozen=True)
class Search:
    """What was looked for, and what was found; `problem` says why nothing could be."""

    by: By
    value: str
    records: list[LoggedRecord] = field(default_factory=list)
    sample: Sample | None = None
    problem: str | None = None


@router.get("")
def records_page(
    *,
    request: Request,
    principal: SignedInReader,
    auditor: AuditorServer,
    session_id: str,
    number: PageNumber = 1,
    by: By = "step",
    value: Annotated[str, Query(max_length=200)] = "",
) -> HTMLResponse:
    """List a session's records, or those that were looked for."""
    session = auditor.session(session_id, principal)
    wanted = value.strip().lower()
    search = _search(auditor, session, by, wanted) if wanted else None
    paging = Paging(number, PAGE_SIZE, session.size)
    return page(
        request,
        "records",
        status=sessions.status(auditor, session),
        search=search,
        paging=paging,
        records=explorer.page(auditor, session, paging.first, PAGE_SIZE) if search is None else [],
        most=explorer.MOST_FOUND,
    )


@router.get("/{index}")
def record_page(
    request: Request,
    principal: SignedInReader,
    auditor: AuditorServer,
    session_id: str,
    index: Count,
) -> HTMLResponse:
    """Show one record, and the proof that it is in the log."""
    session = auditor.session(session_id, principal)
    found = _find(auditor, session, index)
    return page(
        request,
        "record",
        status=sessions.status(auditor, session),
        found=found,
        content=json.dumps(json.loads(found.line), indent=2, ensure_ascii=False),
        proof=explorer.prove(auditor, session, index),
    )


@router.get("/{index}/proof")
def record_proof(
    principal: SignedInReader, auditor: AuditorServer, session_id: str, index: Count
) -> Response:
    """Return the proof as a file (C2SP tlog-proof)."""
    session = auditor.session(session_id, principal)
    _find(auditor, session, index)
    proof = explorer.prove(auditor, session, index)
    if proof is None:
        raise PageNotFoundError(text("record", "not_cosigned"))
    return download(proof.to_bytes(), f"{session.id}-{index}.tlog-proof", "text/plain")


@router.get("/{index}/leaf")
def record_leaf(
    principal: SignedInReader, auditor: AuditorServer, session_id: str, index: Count
) -> Response:
    """Return the record as it was logged, byte for byte."""
    session = auditor.session(session_id, principal)
    line = _find(auditor, session, index).line
    return download(line, f"{session.id}-{index}.json", "application/json")


def _find(auditor: Auditor, session: SessionRow, index: int) -> LoggedRecord:
    found = explorer.find_record(auditor, session, index)
    if found is None:
        raise PageNotFoundError(
            f"the log of session {session.id} has {session.size} records, and none at {index}"
        )
    return found


def _search(auditor: Auditor, session: SessionRow, by: By, value: str) -> Search:
    is_number = by in {"step", "index"}
    if not (NUMBER if is_number else DIGEST).fullmatch(value):
        expected = text("records", "expected_number" if is_number else "expected_digest")
        return Search(by, value, problem=expected)
    match by:
        case "step":
            return Search(by, value, explorer.find_step(auditor, session, int(value)))
        case "index":
            return Search(by, value, explorer.page(auditor, session, int(value), 1))
        case "digest":
            return Search(by, value, explorer.find_digest(auditor, session, value))
        case "sample":
            return Search(by, value, sample=explorer.find_sample(auditor, session, value))
