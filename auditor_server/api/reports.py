"""What the evidence says: verification, bundle and report of a session."""

import hashlib
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from typing import IO

from fastapi import APIRouter, Response
from fastapi.responses import HTMLResponse, StreamingResponse

from auditkit.evidence.bundle import Bundle, write_bundle_to
from auditkit.reports.assemble import report_input
from auditkit.reports.html import render_html
from auditor_server import verification
from auditor_server.access import trail
from auditor_server.access.principals import Principal
from auditor_server.api.answers import octets
from auditor_server.api.caching import (
    PRIVATE,
    IfNoneMatch,
    headers_of,
    is_known,
    tagged,
    unchanged,
)
from auditor_server.api.dependencies import Anyone, AskedWitnesses, AuditorServer, Reader, SessionId
from auditor_server.held_submissions import is_held
from auditor_server.store import SessionRow
from auditor_server.store.blobs import CHUNK_BYTES
from schemas import VerificationReport

ZIP = "application/zip"

router = APIRouter(prefix="/sessions/{session_id}", tags=["reports"])


@router.get("/verification")
def session_verification(
    principal: Anyone, auditor: AuditorServer, session_id: SessionId
) -> VerificationReport:
    """Verify a session from what the server has stored."""
    session = auditor.session(session_id, principal)
    trail.record(auditor, principal, "verification", session.id)
    return verification.verify(auditor, session, verification.assemble(auditor, session))


@router.get(
    "/bundle",
    response_class=StreamingResponse,
    responses=tagged(octets("a ZIP file, as the protocol's section on bundles says", ZIP)),
)
def session_bundle(
    principal: Reader,
    auditor: AuditorServer,
    witnesses: AskedWitnesses,
    session_id: SessionId,
    known: IfNoneMatch = None,
) -> Response:
    """Return the evidence bundle, to be verified without this server."""
    session = auditor.session(session_id, principal)
    trail.record(auditor, principal, "bundle", session.id)
    witnesses.gather(session)
    bundle = verification.assemble(auditor, session, verdicts=principal.sees_verdicts)
    file = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the last chunk was sent
    try:
        write_bundle_to(_readable(bundle, session, principal), file)
    except BaseException:
        file.close()
        raise
    size = file.tell()
    file.seek(0)
    headers = headers_of(hashlib.file_digest(file, "sha256").hexdigest(), PRIVATE)
    if is_known(headers["ETag"], known):
        file.close()
        return unchanged(headers)
    file.seek(0)
    return StreamingResponse(
        _chunks(file),
        media_type=ZIP,
        headers=headers
        | {
            "Content-Length": str(size),
            "Content-Disposition": f'attachment; filename="{session.id}.zip"',
        },
    )


@router.get("/report", response_class=HTMLResponse)
def session_report(
    principal: Reader, auditor: AuditorServer, session_id: SessionId
) -> HTMLResponse:
    """Return the report as one HTML page."""
    session = auditor.session(session_id, principal)
    trail.record(auditor, principal, "report", session.id)
    bundle = verification.assemble(auditor, session, verdicts=principal.sees_verdicts)
    findings = verification.verify(auditor, session, bundle)
    content = report_input(
        bundle,
        auditor.home.history(),
        findings,
        auditor.now(),
        with_verdicts=principal.sees_verdicts,
    )
    return HTMLResponse(render_html(content))


def _readable(bundle: Bundle, session: SessionRow, principal: Principal) -> Bundle:
    """Return what of a bundle this reader may have: no T where the auditor must hold it."""
    if is_held(session) and not principal.sees_all:
        return replace(bundle, weights=None, scores=None)
    return bundle


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
