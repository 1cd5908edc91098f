"""The registry: public, since it holds digests and names of sessions, and nothing else.

Anyone may follow it without a token: the more who do, the fewer a second view can be shown to.
"""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from auditor_server import registry
from auditor_server.api.answers import JSON, document, octets, refusals
from auditor_server.api.caching import FOR_EVER, IfNoneMatch, answer, tagged
from auditor_server.api.dependencies import AuditorServer
from auditor_server.api.paging import PAGED, link_next
from auditor_server.errors import (
    RegistryEntryNotFoundError,
    RegistryKeyMissingError,
    RegistryRangeError,
)
from schemas import ConsistencyProof, InclusionProof, RegistryEntries, RegistryEntry
from schemas.base import Count, Sha256

router = APIRouter(prefix="/registry", tags=["registry"])

CHECKPOINT = "text/plain; charset=utf-8"
EntryLimit = Annotated[
    int,
    Query(ge=1, le=registry.MOST_ENTRIES_PER_PAGE, description="leaves on a page, at most"),
]
Size = Annotated[Count | None, Query()]


@router.get(
    "/checkpoint",
    response_class=Response,
    responses=octets("a C2SP checkpoint", CHECKPOINT) | refusals(RegistryKeyMissingError),
)
def checkpoint(auditor: AuditorServer) -> Response:
    """Return the newest head: a C2SP checkpoint, signed and cosigned."""
    return Response(registry.head(auditor), media_type=CHECKPOINT)


@router.get("/entries", responses=PAGED | refusals(RegistryRangeError))
def entries(
    *,
    auditor: AuditorServer,
    request: Request,
    response: Response,
    start: Count = 0,
    end: Size = None,
    limit: EntryLimit = registry.MOST_ENTRIES_PER_PAGE,
) -> RegistryEntries:
    """Return raw leaves from `start` up to, not including, `end`, at most a page of them."""
    page = registry.entries(auditor, start, end, limit)
    following = start + len(page.leaves)
    if following < min(page.size, page.size if end is None else end):
        link_next(request, response, start=following)
    return page


@router.get(
    "/entries/{index}",
    response_class=Response,
    responses=tagged(document(RegistryEntry, "one leaf")) | refusals(RegistryEntryNotFoundError),
)
def entry(auditor: AuditorServer, index: Count, known: IfNoneMatch = None) -> Response:
    """Return the exact bytes of one leaf."""
    return answer(registry.leaf(auditor, index), JSON, known, FOR_EVER)


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
