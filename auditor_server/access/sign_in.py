"""People sign in to pages: a cookie, of which the database has only the hash.

Every worker finds a sign-in in the database. Pages set the cookie `HttpOnly`, `Secure` where there
is TLS, and `SameSite=Lax`; every form carries `csrf_token`, and whatever takes one calls
`check_csrf` first.
"""

import hashlib
import hmac
import math
import secrets
from datetime import timedelta
from typing import Final, cast

from auditor_server.access import trail
from auditor_server.access.passwords import is_password
from auditor_server.access.principals import Principal, Role
from auditor_server.context import Auditor
from auditor_server.errors import (
    CsrfError,
    NotSignedInError,
    SignInError,
    SignInThrottledError,
)
from auditor_server.store.models import SignInRow, UserRow

# A working day. Afterwards the password is asked for again, however busy one was.
SIGN_IN_LIFETIME = timedelta(hours=10)
# Of one name, whoever tries. A guesser gets 960 a day; who mistypes waits a quarter of an hour.
MOST_FAILED_SIGN_INS = 10
FAILURES_COUNT_FOR = timedelta(minutes=15)
COOKIE_BYTES = 32
USER_PREFIX: Final = "user/"
_CSRF_CONTEXT = b"auditkit/csrf/v1"


def sign_in(auditor: Auditor, name: str, password: str) -> str:
    """Let a person in, and return the value of their cookie.

    Raises:
        SignInError: name or password is wrong, or the person was disabled.
        SignInThrottledError: too many passwords were tried for this name.

    """
    now = auditor.now()
    access, name_hash = auditor.store.access, _digest(name)
    first = access.note_attempt(
        name, name_hash, now, since=now - FAILURES_COUNT_FOR, most=MOST_FAILED_SIGN_INS
    )
    if first is not None:
        wait = max(1, math.ceil((first + FAILURES_COUNT_FOR - now).total_seconds()))
        raise SignInThrottledError(
            f"{MOST_FAILED_SIGN_INS} wrong passwords were given for this name; try again in "
            f"{wait} seconds",
            wait,
        )
    user = access.user(name)
    right = is_password(password, None if user is None else user.password_hash)
    if not right or user is None or user.disabled_at is not None:
        raise SignInError("there is no user of this name with this password; check both")
    access.forget_failures(name_hash)
    cookie = secrets.token_urlsafe(COOKIE_BYTES)
    access.add_sign_in(
        SignInRow(
            cookie_hash=_digest(cookie),
            user_name=user.name,
            created_at=now,
            expires_at=now + SIGN_IN_LIFETIME,
        )
    )
    trail.record(auditor, _principal(user), "sign-in")
    return cookie


def principal_of_cookie(auditor: Auditor, cookie: str | None) -> Principal:
    """Return who is signed in with a cookie.

    Raises:
        NotSignedInError: nobody, or not any more.

    """
    user = auditor.store.access.signed_in(_digest(cookie or ""), auditor.now())
    if user is None:
        raise NotSignedInError("you are not signed in, or not any more; sign in again")
    return _principal(user)


def sign_out(auditor: Auditor, cookie: str | None) -> None:
    """End a sign-in; one that has ended, or never was, changes nothing."""
    digest = _digest(cookie or "")
    user = auditor.store.access.signed_in(digest, auditor.now())
    auditor.store.access.end_sign_in(digest)
    if user is not None:
        trail.record(auditor, _principal(user), "sign-out")


def csrf_token(cookie: str) -> str:
    """Return what every form of this sign-in carries. Only who knows the cookie can compute it."""
    return hmac.new(cookie.encode(), _CSRF_CONTEXT, hashlib.sha256).hexdigest()


def check_csrf(cookie: str | None, token: str | None) -> None:
    """Check that a form comes from a page that this sign-in was shown.

    Raises:
        CsrfError: it does not.

    """
    expected = csrf_token(cookie or "").encode()
    if not cookie or not hmac.compare_digest(expected, (token or "").encode()):
        raise CsrfError("the form is not from this sign-in; load the page again, and send it anew")


def _principal(user: UserRow) -> Principal:
    return Principal(USER_PREFIX + user.name, cast("Role", user.role), user.organisation)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
