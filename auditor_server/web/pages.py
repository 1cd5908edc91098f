"""All pages, joined to the application."""

from fastapi import FastAPI

from auditor_server.context import Auditor
from auditor_server.live_logs import LiveLogs
from auditor_server.web import failures, static
from auditor_server.web.headers import SecurityHeaders
from auditor_server.web.routes import (
    answers,
    desk,
    live,
    models,
    orders,
    records,
    registry,
    sessions,
    signing_in,
)

ROUTES = (
    static,
    signing_in,
    sessions,
    live,
    records,
    registry,
    models,
    orders,
    desk,
    answers,
)


def install(app: FastAPI, auditor: Auditor) -> None:
    """Add the pages to `app`, whose handlers of errors must be installed."""
    app.state.live_logs = LiveLogs(auditor.store)
    for module in ROUTES:
        app.include_router(module.router)
    app.add_middleware(SecurityHeaders)
    failures.install(app)
