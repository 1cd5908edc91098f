"""The registry: public, since it holds digests and names of sessions, and nothing else.

Anyone may follow it without a token: the more who do, the fewer a second view can be shown to.
"""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from auditor_server import registry
from auditor_server.api.answers import JSON, document, octets, refusals
from auditor_server.api.dependencies import AuditorServer
from auditor_server.errors import (
    RegistryEntryNotFoundError,
    RegistryKeyMissingError,
    RegistryRangeError,
)
from schemas import ConsistencyProof, InclusionProof, RegistryEntries, RegistryEntry
from schemas.base import Count, Sha256

router = APIRouter(prefix="/registry", tags=["registry"])

CHECKPOINT = "text/plain; charset=utf-8"
Size = Annotated[Count | None, Query()]


@router.get(
    "/checkpoint",
    response_class=Response,
    responses=octets("a C2SP checkpoint", CHECKPOINT) | refusals(RegistryKeyMissingError),
)
def checkpoint(auditor: AuditorServer) -> Response:
    """Return the newest head: a C2SP checkpoint, signed and cosigned."""
    return Response(registry.head(auditor), media_type=CHECKPOINT)


@router.get("/entries", responses=refusals(RegistryRangeError))
def entries(auditor: AuditorServer, start: Count = 0, end: Size = None) -> RegistryEntries:
    """Return raw leaves from `start` up to, not including, `end`, at most a page of them."""
    return registry.entries(auditor, start, end)


@router.get(
    "/entries/{index}",
    response_class=Response,
    responses=document(RegistryEntry, "one leaf") | refusals(RegistryEntryNotFoundError),
)
def entry(auditor: AuditorServer, index: Count) -> Response:
    """Return the exact bytes of one leaf."""
    return Response(registry.leaf(auditor, index), media_type=JSON)


@router.get("/proof/inclusion", responses=refusals(RegistryEntryNotFoundError, RegistryRangeError))
def inclusion(
    auditor: AuditorServer,
    index: Size = None,
    digest: Annotated[Sha256 | None, Query()] = None,
    size: Size = None,
) -> InclusionProof:
    """Prove that an entry, by index or by its document's digest, is in the tree of `size`."""
    return registry.inclusion(auditor, index, digest, size)


@router.get("/proof/consistency", responses=refusals(RegistryRangeError))
def consistency(auditor: AuditorServer, old: Count, new: Size = None) -> ConsistencyProof:
    """Prove that the tree of `new` entries begins with the tree of `old` entries."""
    return registry.consistency(auditor, old, new)
