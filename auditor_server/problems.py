"""Every error as problem details (RFC 9457), without anything of the server's inside."""

import logging
from collections.abc import Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DataError as UnstorableError
from starlette.exceptions import HTTPException

from auditkit.data.errors import DataError
from auditkit.evidence.errors import EvidenceError, TrustRootError
from auditkit.mint.errors import MintError
from auditkit.reports.errors import ReportError
from auditor_server import observing
from auditor_server.errors import (
    DatabaseUnavailableError,
    RateLimitError,
    ServerError,
    UnavailableError,
    UnstorableValueError,
)
from auditor_server.store.engine import NO_ANSWER
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
        app.add_exception_handler(kind, _database_away)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid_parameters)
    app.add_exception_handler(Exception, _unexpected_error)


def status_of(error: Exception) -> HTTPStatus:
    """Return the status that an expected error is answered with."""
    if isinstance(error, ServerError):
        return error.status
    if isinstance(error, TrustRootError):
        return HTTPStatus.SERVICE_UNAVAILABLE  # the auditor's own trust root has to be renewed
    return HTTPStatus.UNPROCESSABLE_ENTITY


def _known_error(request: Request, error: Exception) -> JSONResponse:
    name = type(error).__name__
    observing.note_error(request, name)
    title = (type(error).__doc__ or name).strip().splitlines()[0]
    status = status_of(error)
    return _answer(status, TYPE_PREFIX + name, title, str(error), _headers(error, status))


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


def _database_away(request: Request, error: Exception) -> JSONResponse:
    # The driver's message, and not the statement, which has values of the request.
    _LOG.error("the database failed: %s", str(getattr(error, "orig", error)).strip())
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
    return _answer(status, UNTYPED, status.phrase, detail, error.headers)


def _invalid_parameters(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, RequestValidationError):
        return _unexpected_error(request, error)
    problems = "; ".join(
        f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
        for problem in error.errors()
    )
    name, title = "InvalidParameterError", "A parameter of the request is missing or invalid."
    observing.note_error(request, name)
    return _answer(HTTPStatus.UNPROCESSABLE_ENTITY, TYPE_PREFIX + name, title, problems)


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
