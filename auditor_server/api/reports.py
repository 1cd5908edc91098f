"""What the evidence says: verification, bundle and report of a session."""

import tempfile
from collections.abc import Iterator
from typing import IO

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, StreamingResponse

from auditkit.evidence.bundle import write_bundle_to
from auditkit.reports.assemble import report_input
from auditkit.reports.html import render_html
from auditor_server import verification
from auditor_server.api.dependencies import Anyone, AuditorServer
from auditor_server.store.blobs import CHUNK_BYTES
from schemas import VerificationReport

router = APIRouter(prefix="/sessions/{session_id}", tags=["reports"])


@router.get("/verification")
def session_verification(
    principal: Anyone, auditor: AuditorServer, session_id: str
) -> VerificationReport:
    """Verify a session from what the server has stored."""
    session = auditor.session(session_id, principal)
    return verification.verify(auditor, session, verification.assemble(auditor, session))


@router.get("/bundle", response_class=StreamingResponse)
def session_bundle(principal: Anyone, auditor: AuditorServer, session_id: str) -> StreamingResponse:
    """Return the evidence bundle, to be verified without this server."""
    session = auditor.session(session_id, principal)
    file = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the last chunk was sent
    try:
        write_bundle_to(verification.assemble(auditor, session), file)
    except BaseException:
        file.close()
        raise
    size = file.tell()
    file.seek(0)
    return StreamingResponse(
        _chunks(file),
        media_type="application/zip",
        headers={
            "Content-Length": str(size),
            "Content-Disposition": f'attachment; filename="{session.id}.zip"',
        },
    )


@router.get("/report")
def session_report(principal: Anyone, auditor: AuditorServer, session_id: str) -> HTMLResponse:
    """Return the report as one HTML page."""
    session = auditor.session(session_id, principal)
    bundle = verification.assemble(auditor, session)
    findings = verification.verify(auditor, session, bundle)
    return HTMLResponse(
        render_html(report_input(bundle, auditor.trust_root(), findings, auditor.now()))
    )


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
