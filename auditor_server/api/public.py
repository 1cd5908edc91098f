"""What anyone may read: that the server is there, and which keys speak for the auditor."""

from fastapi import APIRouter, Response

from auditor_server.api.dependencies import AuditorServer

router = APIRouter(tags=["public"])


@router.get("/health")
def health() -> dict[str, str]:
    """Say that the server answers."""
    return {"status": "ok"}


@router.get("/trust-root", response_class=Response)
def trust_root(auditor: AuditorServer) -> Response:
    """Return the newest version of the trust root, signed (DSSE)."""
    return Response(auditor.home.trust_root_bytes, media_type="application/json")


@router.get("/trust-root/{version}", response_class=Response)
def trust_root_version(auditor: AuditorServer, version: int) -> Response:
    """Return one version of the trust root, signed (DSSE)."""
    return Response(auditor.home.trust_root_version(version), media_type="application/json")
