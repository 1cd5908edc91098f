"""Who is signed in to the pages. The only module that knows how that is remembered.

The browser holds an opaque random identifier in a cookie. What it stands for stays here, found by
the identifier's hash.
"""

import hashlib
import secrets
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta
from threading import Lock
from typing import Protocol

from fastapi import Request, Response

from auditor_server.tokens import Principal

# The prefix makes browsers refuse the cookie unless it is Secure, for this host and for all paths.
COOKIE = "__Host-auditkit"
IDENTIFIER_BYTES = 32
LONGEST_SIGN_IN = timedelta(hours=12)
MOST_SIGN_INS = 10_000


@dataclass(frozen=True)
class SignIn:
    """One browser of one person; `form_token` is in each form that it may send."""

    principal: Principal
    form_token: str
    expires_at: datetime


class SignIns(Protocol):
    """Where sign-ins are kept."""

    def begin(self, principal: Principal, now: datetime) -> str:
        """Remember a new sign-in and return its identifier."""

    def find(self, identifier: str, now: datetime) -> SignIn | None:
        """Return a sign-in that is still in force."""

    def end(self, identifier: str) -> None:
        """Forget a sign-in."""


class SignInsInMemory:
    """Sign-ins of one worker; they end with it."""

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, SignIn] = OrderedDict()
        self._lock = Lock()

    def begin(self, principal: Principal, now: datetime) -> str:
        """Remember a new sign-in and return its identifier."""
        identifier = secrets.token_urlsafe(IDENTIFIER_BYTES)
        form_token = secrets.token_urlsafe(IDENTIFIER_BYTES)
        with self._lock:
            self._kept[_hash(identifier)] = SignIn(principal, form_token, now + LONGEST_SIGN_IN)
            if len(self._kept) > MOST_SIGN_INS:
                self._kept.popitem(last=False)
        return identifier

    def find(self, identifier: str, now: datetime) -> SignIn | None:
        """Return a sign-in that is still in force."""
        with self._lock:
            found = self._kept.get(_hash(identifier))
            if found is not None and now >= found.expires_at:
                del self._kept[_hash(identifier)]
                return None
        return found

    def end(self, identifier: str) -> None:
        """Forget a sign-in."""
        with self._lock:
            self._kept.pop(_hash(identifier), None)


def current(request: Request) -> SignIn | None:
    """Return the sign-in that a request's cookie stands for."""
    identifier = request.cookies.get(COOKIE)
    if identifier is None:
        return None
    state = request.app.state
    found: SignIn | None = state.sign_ins.find(identifier, state.auditor.now())
    return found


def remember(request: Request, response: Response, principal: Principal) -> None:
    """Sign a browser in; a sign-in that it has already ends."""
    forget(request, response)
    state = request.app.state
    response.set_cookie(
        COOKIE,
        state.sign_ins.begin(principal, state.auditor.now()),
        max_age=int(LONGEST_SIGN_IN.total_seconds()),
        secure=True,
        httponly=True,
        samesite="strict",
    )


def forget(request: Request, response: Response) -> None:
    """Sign a browser out."""
    identifier = request.cookies.get(COOKIE)
    if identifier is not None:
        request.app.state.sign_ins.end(identifier)
        response.delete_cookie(COOKIE, secure=True, httponly=True, samesite="strict")


def _hash(identifier: str) -> bytes:
    return hashlib.sha256(identifier.encode()).digest()
