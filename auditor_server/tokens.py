"""Bearer tokens: who may do what.

A token is `<id>.<secret>`. The secret has 256 random bits, so one SHA-256 is enough to keep it:
there is nothing to guess, and a slow password hash would only slow down every request.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, cast, get_args

from auditor_server.errors import NotAuthenticatedError
from auditor_server.store.models import TokenRow
from auditor_server.store.store import Store

TokenRole = Literal["auditor", "developer", "compliance-officer"]
ROLES: tuple[TokenRole, ...] = get_args(TokenRole)
SECRET_BYTES = 32


@dataclass(frozen=True)
class Principal:
    """Who sends a request: the token, by name, and its role."""

    token_id: str
    role: TokenRole

    @property
    def sees_only_own(self) -> bool:
        """Developers see the sessions that they opened; the others see all."""
        return self.role == "developer"


def issue(store: Store, role: TokenRole, now: datetime) -> str:
    """Make a token and return it in clear, this once; the store keeps only its hash."""
    token_id = f"{role}-{secrets.token_hex(4)}"
    secret = secrets.token_urlsafe(SECRET_BYTES)
    store.add_token(TokenRow(id=token_id, role=role, secret_hash=_hash(secret), created_at=now))
    return f"{token_id}.{secret}"


def authenticate(store: Store, authorization: str | None) -> Principal:
    """Return who sends the request.

    Args:
        store: holds the tokens.
        authorization: value of the request's Authorization header.

    Raises:
        NotAuthenticatedError: no bearer token, or an unknown one.

    """
    scheme, _, token = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise NotAuthenticatedError(
            "expected the header `Authorization: Bearer <token>`; `auditkit init` makes tokens"
        )
    token_id, _, secret = token.strip().partition(".")
    row = store.token(token_id)
    # An unknown name takes the same path as a wrong secret, so that neither can be told apart.
    expected = row.secret_hash if row is not None else bytes(32)
    if not hmac.compare_digest(_hash(secret), expected) or row is None:
        raise NotAuthenticatedError("this server has not issued the token; check that it is whole")
    return Principal(token_id=row.id, role=cast("TokenRole", row.role))


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
