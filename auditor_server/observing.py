"""Watching over requests: each gets a name, a line in the log, and is counted."""

import logging
import re
import secrets
import time
from typing import Final

from fastapi import FastAPI, Request
from fastapi.routing import iter_route_contexts
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from auditor_server.logs import FIELDS, REQUESTS
from auditor_server.metrics import Metrics

REQUEST_ID_HEADER: Final = "X-Request-Id"
UNMATCHED: Final = "unmatched"
# A proxy in front may have named the request already; whatever else it is stays out of the log.
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
REQUEST_ID_BYTES = 8
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER_METHOD: Final = "other"
INTERNAL_ERROR = 500

_LOG = logging.getLogger(REQUESTS)


def note_error(request: Request, name: str) -> None:
    """Say by which rule a request was refused."""
    request.state.error_name = name


def note_principal(request: Request, name: str) -> None:
    """Say who has sent a request."""
    request.state.principal_name = name


def request_id(request: Request) -> str | None:
    """Return the name of a request; None: it is not watched."""
    return getattr(request.state, "request_id", None)


class Observed:
    """Names, logs and counts every request (ASGI middleware)."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics
        self._templates: dict[object, str] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on, and its answer back."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        asked = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
        name = asked if _REQUEST_ID.fullmatch(asked) else secrets.token_hex(REQUEST_ID_BYTES)
        scope.setdefault("state", {})["request_id"] = name
        status = INTERNAL_ERROR

        async def with_name(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = name
            await send(message)

        try:
            await self._app(scope, receive, with_name)
        finally:
            self._note(scope, status, time.perf_counter() - started)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        method = scope["method"] if scope["method"] in METHODS else OTHER_METHOD
        route, state = self._template(scope), scope["state"]
        error = state.get("error_name")
        self._metrics.answered(method, route, status, seconds)
        if error is not None:
            self._metrics.refused(error)
        _LOG.info(
            "request",
            extra={
                FIELDS: {
                    "request": state["request_id"],
                    "method": method,
                    "route": route,
                    "status": status,
                    "seconds": round(seconds, 6),
                    "principal": state.get("principal_name"),
                    "error": error,
                }
            },
        )

    def _template(self, scope: Scope) -> str:
        """Return the address of a route with names in braces where a request has its own."""
        endpoint = scope.get("endpoint")
        if endpoint is None:
            return UNMATCHED
        if endpoint not in self._templates:
            app: FastAPI = scope["app"]
            self._templates |= {
                context.endpoint: str(context.path)
                for context in iter_route_contexts(app.routes)
                if context.endpoint is not None
            }
        return self._templates.get(endpoint, UNMATCHED)
