"""Sessions: the overview, one session, what its verification says, and its files."""

from typing import Annotated, get_args

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, Response

from auditkit.reports import wording
from auditkit.reports.assemble import report_input
from auditor_server import sessions, verification
from auditor_server.access import trail
from auditor_server.api import reports
from auditor_server.api.dependencies import AskedWitnesses
from auditor_server.documents import parse, read_grant
from auditor_server.orders import find_order, read_order
from auditor_server.web import checks
from auditor_server.web.dependencies import (
    PAGE_SIZE,
    AuditorServer,
    PageNumber,
    SignedIn,
    SignedInReader,
)
from auditor_server.web.headers import REPORT_POLICY
from auditor_server.web.paging import Paging
from auditor_server.web.rendering import page
from schemas import AssuranceLevel, SessionRequest
from schemas.wire import SessionState

router = APIRouter(include_in_schema=False)

STATES: tuple[SessionState, ...] = get_args(SessionState)


@router.get("/")
def overview(
    request: Request,
    principal: SignedIn,
    auditor: AuditorServer,
    number: PageNumber = 1,
    state: Annotated[SessionState | None, Query()] = None,
) -> HTMLResponse:
    """Show the sessions that the reader may see, newest first."""
    states = STATES if state is None else (state,)
    paging = Paging(number, PAGE_SIZE, auditor.count_sessions(principal, states))
    rows = auditor.newest_sessions(principal, states, first=paging.first, most=PAGE_SIZE)
    return page(
        request,
        "overview",
        sessions=[sessions.status(auditor, row) for row in rows],
        levels=auditor.store.levels([row.id for row in rows]),
        paging=paging,
        state=state,
        states=STATES,
        meanings=list(AssuranceLevel),
    )


@router.get("/sessions/{session_id}")
def session_page(
    request: Request, principal: SignedIn, auditor: AuditorServer, session_id: str
) -> HTMLResponse:
    """Show one session."""
    session = auditor.session(session_id, principal)
    grant, grant_digest = read_grant(session.grant)
    asked = parse(SessionRequest, session.request)
    level = auditor.store.levels([session.id]).get(session.id)
    return page(
        request,
        "session",
        status=sessions.status(auditor, session),
        grant=grant,
        grant_digest=grant_digest,
        asked=asked,
        order=read_order(find_order(auditor, session.order_id)),
        level=None if level is None else AssuranceLevel(level),
        levels=list(AssuranceLevel),
        configuration=wording.configuration_rows(asked.config),
    )


@router.get("/sessions/{session_id}/verification")
def verification_page(
    request: Request, principal: SignedIn, auditor: AuditorServer, session_id: str
) -> HTMLResponse:
    """Verify a session from what is stored, and show every check."""
    session = auditor.session(session_id, principal)
    trail.record(auditor, principal, "verification", session.id)
    bundle = verification.assemble(auditor, session)
    findings = verification.verify(auditor, session, bundle)
    report = report_input(bundle, auditor.home.history(), findings, auditor.now())
    return page(
        request,
        "verification",
        status=sessions.status(auditor, session),
        report=findings,
        levels=list(AssuranceLevel),
        conclusion=wording.conclusion(report),
        replay_strength=wording.replay_strength(report),
        proven=wording.proven(report),
        not_proven=wording.not_proven(report),
        checks=checks.explained(session, findings.findings),
    )


@router.get("/sessions/{session_id}/bundle")
def bundle(
    principal: SignedInReader, auditor: AuditorServer, witnesses: AskedWitnesses, session_id: str
) -> Response:
    """Return the evidence bundle as a file."""
    return reports.session_bundle(principal, auditor, witnesses, session_id)


@router.get("/sessions/{session_id}/report")
def report(principal: SignedInReader, auditor: AuditorServer, session_id: str) -> Response:
    """Return the report, a page of its own."""
    found = reports.session_report(principal, auditor, session_id)
    found.headers["Content-Security-Policy"] = REPORT_POLICY
    return found
