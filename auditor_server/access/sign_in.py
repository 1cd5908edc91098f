"""People sign in to pages: a cookie, of which the database has only the hash.

Every worker finds a sign-in in the database. Pages set the cookie `HttpOnly`, `Secure`
and `SameSite=Strict`; every form carries `csrf_token`, and whatever takes one calls
`check_csrf` first.
"""

import hashlib
import hmac
import math
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final, cast

from auditor_server import tokens
from auditor_server.access import trail
from auditor_server.access.accounts import is_name
from auditor_server.access.passwords import is_password
from auditor_server.access.principals import Principal, Role
from auditor_server.context import Auditor
from auditor_server.errors import (
    CsrfError,
    NotAuthenticatedError,
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
# While others' passwords are hashed.
MOST_WAITING_SECONDS = 2.0
TRY_AGAIN_SECONDS = 5
COOKIE_BYTES = 32
USER_PREFIX: Final = "user/"
NOBODY: Final = ""
_CSRF_CONTEXT = b"auditkit/csrf/v1"


def sign_in(auditor: Auditor, name: str, password: str) -> str:
    """Let a person in, and return the value of their cookie.

    Raises:
        SignInError: name or password is wrong, or the person was disabled.
        SignInThrottledError: too many passwords were tried for this name, or are hashed right now.

    """
    access, name_hash = auditor.store.access, _digest(name)
    # What nobody can be called, no database needs to be able to look for.
    looked_for = name if is_name(name) else NOBODY
    with _among_few(auditor):
        _count_attempt(auditor, looked_for, name_hash)
        user = access.user(looked_for)
        right = is_password(password, None if user is None else user.password_hash)
    if not right or user is None or user.disabled_at is not None:
        raise SignInError("there is no user of this name with this password; check both")
    access.forget_failures(name_hash)
    return _begin(auditor, _of_user(user), user_name=user.name)


def sign_in_with_token(auditor: Auditor, token: str) -> str:
    """Let in who has a token, and return the value of their cookie.

    Raises:
        NotAuthenticatedError: the token is none of this server's, or not good any more.

    """
    principal = tokens.authenticate(auditor.store, f"Bearer {token.strip()}", auditor.now())
    return _begin(auditor, principal, token_id=principal.name)


def principal_of_cookie(auditor: Auditor, cookie: str | None) -> Principal:
    """Return who is signed in with a cookie.

    Raises:
        NotSignedInError: nobody, or not any more: also because the token was revoked.

    """
    principal = _principal(auditor, auditor.store.access.signed_in(_digest(cookie), auditor.now()))
    if principal is None:
        raise NotSignedInError("you are not signed in, or not any more; sign in again")
    return principal


def sign_out(auditor: Auditor, cookie: str | None) -> None:
    """End a sign-in; one that has ended, or never was, changes nothing."""
    row = auditor.store.access.signed_in(_digest(cookie), auditor.now())
    auditor.store.access.end_sign_in(_digest(cookie))
    principal = _principal(auditor, row)
    if principal is not None:
        trail.record(auditor, principal, "sign-out")


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


def _count_attempt(auditor: Auditor, name: str, name_hash: str) -> None:
    now = auditor.now()
    first = auditor.store.access.note_attempt(
        name, name_hash, now, since=now - FAILURES_COUNT_FOR, most=MOST_FAILED_SIGN_INS
    )
    if first is not None:
        wait = max(1, math.ceil((first + FAILURES_COUNT_FOR - now).total_seconds()))
        raise SignInThrottledError(
            f"{MOST_FAILED_SIGN_INS} wrong passwords were given for this name; try again in "
            f"{wait} seconds",
            wait,
        )


@contextmanager
def _among_few(auditor: Auditor) -> Iterator[None]:
    """Let only a few passwords be hashed at a time: whoever tries many names must not take all."""
    if not auditor.password_checks.acquire(timeout=MOST_WAITING_SECONDS):
        raise SignInThrottledError(
            f"too many people sign in at this moment; try again in {TRY_AGAIN_SECONDS} seconds",
            TRY_AGAIN_SECONDS,
        )
    try:
        yield
    finally:
        auditor.password_checks.release()


def _begin(
    auditor: Auditor,
    principal: Principal,
    *,
    user_name: str | None = None,
    token_id: str | None = None,
) -> str:
    cookie, now = secrets.token_urlsafe(COOKIE_BYTES), auditor.now()
    auditor.store.access.add_sign_in(
        SignInRow(
            cookie_hash=_digest(cookie),
            user_name=user_name,
            token_id=token_id,
            created_at=now,
            expires_at=now + SIGN_IN_LIFETIME,
        )
    )
    trail.record(auditor, principal, "sign-in")
    return cookie


def _principal(auditor: Auditor, row: SignInRow | None) -> Principal | None:
    """Return who signed in, as of now: roles are read anew, and tokens may have ended."""
    if row is None:
        return None
    if row.user_name is not None:
        user = auditor.store.access.user(row.user_name)
        return None if user is None or user.disabled_at is not None else _of_user(user)
    token = None if row.token_id is None else auditor.store.token(row.token_id)
    try:
        return None if token is None else tokens.principal_of(token, auditor.now())
    except NotAuthenticatedError:
        return None


def _of_user(user: UserRow) -> Principal:
    return Principal(USER_PREFIX + user.name, cast("Role", user.role), user.organisation)


def _digest(text: str | None) -> str:
    return hashlib.sha256((text or "").encode(errors="surrogatepass")).hexdigest()
