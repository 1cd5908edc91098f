"""Errors as pages for browsers; the API's callers go on getting problem documents."""

from collections.abc import Awaitable, Callable
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response

from auditor_server.errors import NotSignedInError, ServerError
from auditor_server.problems import PROBLEM_MEDIA_TYPE, UNTYPED
from auditor_server.store.engine import NO_ANSWER
from auditor_server.web.errors import PageError
from auditor_server.web.headers import headers_of, is_of_api
from auditor_server.web.rendering import address, page
from schemas.wire import Problem

Handler = Callable[[Request, Exception], Response | Awaitable[Response]]


def install(app: FastAPI) -> None:
    """Show every error of `app` as a page where a page was asked for.

    Call it when all handlers of errors are installed: what they answer is what the page says.
    """
    app.add_exception_handler(PageError, _page_error)
    known = app.exception_handlers[ServerError]
    for kind, handler in list(app.exception_handlers.items()):
        app.add_exception_handler(kind, _as_page(handler))
    app.add_exception_handler(NotSignedInError, _to_sign_in(known))


def _as_page(handler: Handler) -> Handler:
    def answer(request: Request, error: Exception) -> Response:
        found = handler(request, error)
        if not isinstance(found, JSONResponse) or not _wants_page(request):
            assert isinstance(found, Response)  # noqa: S101 - ours are no coroutines
            return found
        if isinstance(error, NO_ANSWER):
            request.state.sign_in = None  # who it is can't be looked up now
        problem = Problem.from_bytes(bytes(found.body))
        shown = page(request, "failure", code=problem.status, problem=problem)
        # An error that nobody foresaw is answered outside of everything that adds headers.
        shown.headers.update(headers_of(request.url.path))
        if "Retry-After" in found.headers:
            shown.headers["Retry-After"] = found.headers["Retry-After"]
        return shown

    return answer


def _wants_page(request: Request) -> bool:
    return not is_of_api(request.url.path) and "text/html" in request.headers.get("Accept", "")


def _page_error(_request: Request, error: Exception) -> Response:
    status = error.status if isinstance(error, PageError) else HTTPStatus.INTERNAL_SERVER_ERROR
    title = (type(error).__doc__ or "").strip().splitlines()[0]
    problem = Problem(type=UNTYPED, title=title, status=int(status), detail=str(error))
    return JSONResponse(problem.as_json(), int(status), media_type=PROBLEM_MEDIA_TYPE)


def _to_sign_in(handler: Handler) -> Handler:
    def answer(request: Request, error: Exception) -> Response | Awaitable[Response]:
        if not _wants_page(request) or request.method != "GET":
            return handler(request, error)
        asked = address(request.url.path, **dict(request.query_params))
        return RedirectResponse(address("/sign-in", next=asked), HTTPStatus.SEE_OTHER)

    return answer
