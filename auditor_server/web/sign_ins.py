"""Who is signed in to the pages. The only module that knows how a browser is told apart.

The browser holds an opaque random identifier in a cookie; what it stands for is in the database.
"""

from dataclasses import dataclass

from fastapi import Request, Response

from auditor_server.access import sign_in as access
from auditor_server.access.principals import Principal, Role
from auditor_server.errors import NotSignedInError

# The prefix makes browsers refuse the cookie unless it is Secure, for this host and for all paths.
COOKIE = "__Host-auditkit"
# Those who may have what is in a bundle or a report, as for the API.
READERS: tuple[Role, ...] = ("auditor", "developer", "compliance-officer")


@dataclass(frozen=True)
class SignIn:
    """One browser of one person; `form_token` is in each form that it may send."""

    principal: Principal
    form_token: str

    @property
    def is_reader(self) -> bool:
        """Whether records, orders, bundles and reports are shown."""
        return self.principal.role in READERS

    @property
    def is_examiner(self) -> bool:
        """Whether pictures may be asked about."""
        return self.principal.sees_verdicts


def current(request: Request) -> SignIn | None:
    """Return the sign-in that a request's cookie stands for; looked up once for each request."""
    if not hasattr(request.state, "sign_in"):
        request.state.sign_in = look_up(request)
    found: SignIn | None = request.state.sign_in
    return found


def look_up(request: Request) -> SignIn | None:
    """Return the sign-in that a request's cookie stands for now."""
    cookie = request.cookies.get(COOKIE)
    if cookie is None:
        return None
    try:
        principal = access.principal_of_cookie(request.app.state.auditor, cookie)
    except NotSignedInError:
        return None
    return SignIn(principal, access.csrf_token(cookie))


def check_form(request: Request, form_token: str | None) -> None:
    """Check that a form comes from a page of this sign-in.

    Raises:
        CsrfError: it does not.

    """
    access.check_csrf(request.cookies.get(COOKIE), form_token)


def remember(request: Request, response: Response, cookie: str) -> None:
    """Sign a browser in; a sign-in that it has already ends."""
    forget(request, response)
    response.set_cookie(
        COOKIE,
        cookie,
        max_age=int(access.SIGN_IN_LIFETIME.total_seconds()),
        secure=True,
        httponly=True,
        samesite="strict",
    )


def forget(request: Request, response: Response) -> None:
    """Sign a browser out."""
    cookie = request.cookies.get(COOKIE)
    if cookie is not None:
        access.sign_out(request.app.state.auditor, cookie)
        response.delete_cookie(COOKIE, secure=True, httponly=True, samesite="strict")
