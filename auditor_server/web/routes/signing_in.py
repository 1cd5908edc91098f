"""Signing in and out."""

from http import HTTPStatus

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from auditor_server.access import sign_in as access
from auditor_server.errors import NotAuthenticatedError, SignInThrottledError
from auditor_server.web.dependencies import AuditorServer, SmallForm
from auditor_server.web.rendering import address, page
from auditor_server.web.sign_ins import current, forget, remember
from auditor_server.web.texts import text

router = APIRouter(include_in_schema=False)

SIGN_IN = "/sign-in"
HOME = "/"


@router.get(SIGN_IN)
def sign_in_page(request: Request, next: str = HOME) -> Response:  # noqa: A002 - as browsers send it
    """Ask for a token."""
    if current(request) is not None:
        return RedirectResponse(_own(next), HTTPStatus.SEE_OTHER)
    return _page(request, _own(next))


@router.post(SIGN_IN)
def sign_in(request: Request, auditor: AuditorServer, form: SmallForm) -> Response:
    """Sign in with name and password, or with a token."""
    following = _own(form.get("next", HOME))
    try:
        cookie = (
            access.sign_in_with_token(auditor, form["token"])
            if "token" in form
            else access.sign_in(auditor, form.get("name", ""), form.get("password", ""))
        )
    except (NotAuthenticatedError, SignInThrottledError) as error:
        return _page(request, following, str(error), error.status)
    answer = RedirectResponse(address(f"{SIGN_IN}/done", next=following), HTTPStatus.SEE_OTHER)
    remember(request, answer, cookie)
    return answer


@router.get(f"{SIGN_IN}/done")
def signed_in(request: Request, next: str = HOME) -> Response:  # noqa: A002 - as browsers send it
    """Go on to the page that was asked for, or say why that is not possible."""
    if current(request) is not None:
        return RedirectResponse(_own(next), HTTPStatus.SEE_OTHER)
    return _page(request, _own(next), text("sign_in", "no_cookie"), HTTPStatus.UNAUTHORIZED)


@router.post("/sign-out")
def sign_out(request: Request, form: SmallForm) -> Response:
    """Sign out."""
    del form
    answer = RedirectResponse(SIGN_IN, HTTPStatus.SEE_OTHER)
    forget(request, answer)
    return answer


def _page(
    request: Request, following: str, problem: str | None = None, status: int = HTTPStatus.OK
) -> HTMLResponse:
    return page(request, "sign_in", code=status, next=following, home=HOME, problem=problem)


def _own(path: str) -> str:
    """Return a path on this server; anything that a browser would take for another's is not."""
    is_own = path.startswith("/") and not path.startswith("//")
    is_plain = path.isprintable() and "\\" not in path
    return path if is_own and is_plain else HOME
