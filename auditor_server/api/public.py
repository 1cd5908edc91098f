"""What anyone may read: that the server is there, and which keys speak for the auditor."""

from typing import cast

from fastapi import APIRouter, Request, Response

from auditor_server.api.dependencies import AuditorServer
from auditor_server.readiness import Readiness

router = APIRouter(tags=["public"])


@router.get("/health")
def health() -> dict[str, str]:
    """Say that the server answers."""
    return {"status": "ok"}


@router.get("/ready")
def ready(request: Request) -> dict[str, str]:
    """Say that the server can do its work: database, blobs and keys are there."""
    cast("Readiness", request.app.state.readiness).check()
    return {"status": "ready"}


@router.get("/trust-root", response_class=Response)
def trust_root(auditor: AuditorServer) -> Response:
    """Return the newest version of the trust root, signed (DSSE)."""
    return Response(auditor.home.trust_root_bytes, media_type="application/json")


@router.get("/trust-root/{version}", response_class=Response)
def trust_root_version(auditor: AuditorServer, version: int) -> Response:
    """Return one version of the trust root, signed (DSSE)."""
    return Response(auditor.home.trust_root_version(version), media_type="application/json")
