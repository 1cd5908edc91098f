"""Headers that keep a browser from doing what our pages never ask it to do."""

from collections.abc import Mapping

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from auditor_server.api.routes import API_PREFIX

STATIC_PREFIX = "/static"
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
# The report is one file that carries its own style, and runs and loads nothing.
REPORT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; form-action 'none'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
COMMON = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin"}
# Pages show what only some may see, so that no copy of them outlives the sign-in.
PAGE = COMMON | {
    "Content-Security-Policy": PAGE_POLICY,
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
# What the API answers is kept by nobody, unless the answer says so itself.
API = COMMON | {
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Cache-Control": "no-store",
}


def headers_of(path: str) -> Mapping[str, str]:
    """Return the headers of an answer at `path`; what the answer says itself counts more."""
    return API if is_of_api(path) else PAGE


def is_of_api(path: str) -> bool:
    """Tell whether an address belongs to the API, whose errors are documents and no pages."""
    return path == API_PREFIX or path.startswith(f"{API_PREFIX}/")


class SecurityHeaders:
    """Adds the headers to every answer (ASGI middleware)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on, and its answer back."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in headers_of(scope["path"]).items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, with_headers)
