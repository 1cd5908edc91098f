"""Every error as problem details (RFC 9457), without anything of the server's inside."""

import logging
from collections.abc import Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import iter_route_contexts
from sqlalchemy.exc import DataError as UnstorableError
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from auditkit.data.errors import DataError
from auditkit.evidence.errors import EvidenceError, TrustRootError
from auditkit.mint.errors import MintError
from auditkit.reports.errors import ReportError
from auditor_server import observing
from auditor_server.errors import (
    DatabaseFullError,
    DatabaseUnavailableError,
    InvalidParameterError,
    RateLimitError,
    ServerError,
    UnavailableError,
    UnstorableValueError,
)
from auditor_server.store.engine import NO_ANSWER, is_full
from schemas.wire import Problem

PROBLEM_MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:auditkit:error:"
# RFC 9457, section 4.2.1: nothing more to say than the status code says.
UNTYPED = "about:blank"

_LOG = logging.getLogger(__name__)


def install(app: FastAPI) -> None:
    """Answer every exception of `app` with problem details."""
    app.add_exception_handler(ServerError, _known_error)
    app.add_exception_handler(EvidenceError, _known_error)
    app.add_exception_handler(MintError, _known_error)
    app.add_exception_handler(DataError, _known_error)
    app.add_exception_handler(ReportError, _known_error)
    app.add_exception_handler(UnstorableError, _unstorable_value)
    for kind in NO_ANSWER:
        app.add_exception_handler(kind, _database_failed)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid_parameters)
    app.add_exception_handler(Exception, _unexpected_error)


def status_of(error: type[Exception]) -> HTTPStatus:
    """Return the status of the answer that a kind of error becomes."""
    if issubclass(error, ServerError):
        return error.status
    if issubclass(error, TrustRootError):
        return HTTPStatus.SERVICE_UNAVAILABLE  # the auditor's own trust root has to be renewed
    return HTTPStatus.UNPROCESSABLE_ENTITY


def title_of(error: type[Exception]) -> str:
    """Return in one line what a kind of error says."""
    return (error.__doc__ or error.__name__).strip().splitlines()[0]


def _known_error(request: Request, error: Exception) -> JSONResponse:
    kind = type(error)
    observing.note_error(request, kind.__name__)
    status = status_of(kind)
    problem_type = TYPE_PREFIX + kind.__name__
    return _answer(status, problem_type, title_of(kind), str(error), _headers(error, status))


def _headers(error: Exception, status: HTTPStatus) -> dict[str, str]:
    if isinstance(error, RateLimitError | UnavailableError):
        return {"Retry-After": str(error.retry_after_seconds)}
    return {"WWW-Authenticate": "Bearer"} if status is HTTPStatus.UNAUTHORIZED else {}


def _unstorable_value(request: Request, _error: Exception) -> JSONResponse:
    return _known_error(
        request,
        UnstorableValueError(
            "expected text without NUL characters and numbers of at most 64 bits; nothing that is "
            "stored here has such a name or number"
        ),
    )


def _database_failed(request: Request, error: Exception) -> JSONResponse:
    # The driver's message, and not the statement, which has values of the request.
    _LOG.error("the database failed: %s", str(getattr(error, "orig", error)).strip())
    if is_full(error):
        return _known_error(
            request,
            DatabaseFullError(
                "there is no room left on the disk of the auditor's database; what was accepted is "
                "kept. Have its operator make room, then send the same again"
            ),
        )
    return _known_error(
        request,
        DatabaseUnavailableError(
            "the database does not answer; send the same again, which does nothing twice"
        ),
    )


def _http_error(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        return _unexpected_error(request, error)
    status = HTTPStatus(error.status_code)
    detail = f"{request.method} {request.url.path}: {error.detail}"
    headers = error.headers
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        headers = {"Allow": ", ".join(_allowed(request))}
    return _answer(status, UNTYPED, status.phrase, detail, headers)


def _allowed(request: Request) -> list[str]:
    """Return what may be done at this address (RFC 9110, section 10.2.1), by all of its routes."""
    return sorted(
        {
            method
            for route in iter_route_contexts(request.app.routes)
            if route.path is not None and compile_path(route.path)[0].match(request.url.path)
            for method in route.methods or ()
        }
    )


def _invalid_parameters(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, RequestValidationError):
        return _unexpected_error(request, error)
    problems = "; ".join(
        f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
        for problem in error.errors()
    )
    return _known_error(request, InvalidParameterError(problems))


def _unexpected_error(request: Request, error: Exception) -> JSONResponse:
    _LOG.error("%s %s failed", request.method, request.url.path, exc_info=error)
    status = HTTPStatus.INTERNAL_SERVER_ERROR
    detail = "the server failed to answer; its log says why"
    name = observing.request_id(request)
    headers = {} if name is None else {observing.REQUEST_ID_HEADER: name}
    return _answer(status, UNTYPED, status.phrase, detail, headers)


def _answer(
    status: HTTPStatus,
    problem_type: str,
    title: str,
    detail: str,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    problem = Problem(type=problem_type, title=title, status=int(status), detail=detail)
    return JSONResponse(
        problem.as_json(), int(status), headers=headers, media_type=PROBLEM_MEDIA_TYPE
    )
