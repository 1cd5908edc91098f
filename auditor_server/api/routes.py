"""All routes of the API, in the order in which its description lists them."""

from auditor_server.api import (
    audit_trail,
    codes,
    continuations,
    inquiries,
    mint_custody,
    orders,
    public,
    queries,
    records,
    registry,
    replays,
    reports,
    sessions,
    submissions,
)

API_PREFIX = "/v1"
ROUTERS = tuple(
    module.router
    for module in (
        public,
        orders,
        sessions,
        continuations,
        codes,
        mint_custody,
        records,
        submissions,
        queries,
        inquiries,
        replays,
        reports,
        registry,
        audit_trail,
    )
)
