"""The audit trail: auditors see who looked at and asked what."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from auditor_server.access import trail
from auditor_server.api.dependencies import AuditorServer, TrailReader
from auditor_server.api.paging import PAGED, link_next
from schemas.base import Count, Name
from schemas.wire import TrailPage

router = APIRouter(prefix="/audit-trail", tags=["access"])

Before = Annotated[Count | None, Query(description="number that all entries are below")]
About = Annotated[Name | None, Query(description="only what concerns this session")]
Limit = Annotated[int, Query(ge=1, le=trail.MOST_ENTRIES_PER_PAGE)]


@router.get("", responses=PAGED)
def audit_trail(
    *,
    principal: TrailReader,
    auditor: AuditorServer,
    request: Request,
    response: Response,
    before: Before = None,
    session_id: About = None,
    limit: Limit = trail.MOST_ENTRIES_PER_PAGE,
) -> TrailPage:
    """Return a page of the trail, newest first; the first one is itself an entry."""
    page = trail.page(auditor, principal, before, session_id, limit)
    if page.before is not None:
        link_next(request, response, before=page.before)
    return page
