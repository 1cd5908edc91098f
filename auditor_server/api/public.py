"""What anyone may read: that the server is there, and which keys speak for the auditor."""

from typing import Annotated, cast

from fastapi import APIRouter, Path, Request, Response

from auditor_server.api.answers import JSON, document, refusals
from auditor_server.api.caching import FOR_EVER, PUBLIC, IfNoneMatch, answer, tagged
from auditor_server.api.dependencies import AuditorServer
from auditor_server.errors import NotReadyError, TrustRootNotFoundError
from auditor_server.readiness import Readiness as ReadinessChecks
from schemas.base import Count
from schemas.wire import Health, Readiness, SignedDocument

router = APIRouter(tags=["public"])

Version = Annotated[Count, Path(ge=1, description="of the trust root, from 1")]


@router.get("/health")
def health() -> Health:
    """Say that the server answers."""
    return Health()


@router.get("/ready", responses=refusals(NotReadyError))
def ready(request: Request) -> Readiness:
    """Say that the server can do its work: database, blobs and keys are there."""
    cast("ReadinessChecks", request.app.state.readiness).check()
    return Readiness()


@router.get(
    "/trust-root",
    response_class=Response,
    responses=tagged(document(SignedDocument, "a signed TrustRoot")),
)
def trust_root(auditor: AuditorServer, known: IfNoneMatch = None) -> Response:
    """Return the newest version of the trust root, signed (DSSE)."""
    return answer(auditor.home.trust_root_bytes, JSON, known, PUBLIC)


@router.get(
    "/trust-root/{version}",
    response_class=Response,
    responses=tagged(document(SignedDocument, "a signed TrustRoot"))
    | refusals(TrustRootNotFoundError),
)
def trust_root_version(
    auditor: AuditorServer, version: Version, known: IfNoneMatch = None
) -> Response:
    """Return one version of the trust root, signed (DSSE)."""
    return answer(auditor.home.trust_root_version(version), JSON, known, FOR_EVER)
