"""Bearer tokens: who may do what.

A token is `<id>.<secret>`. The secret has 256 random bits, so one SHA-256 is enough to keep it:
there is nothing to guess, and a slow password hash would only slow down every request.
"""

import hashlib
import hmac
import secrets
from datetime import datetime, timedelta
from typing import cast

from auditor_server.access.principals import AUTHORITY, ROLES, Principal
from auditor_server.access.principals import Role as TokenRole
from auditor_server.errors import (
    NotAuthenticatedError,
    RoleOrganisationError,
    SessionNotFoundError,
    TokenExpiredError,
    TokenRevokedError,
)
from auditor_server.store.models import TokenRow
from auditor_server.store.store import Store

__all__ = ["ROLES", "Principal", "TokenRole", "authenticate", "check_role", "issue", "principal_of"]

SECRET_BYTES = 32


def issue(
    store: Store,
    role: TokenRole,
    organisation: str,
    now: datetime,
    *,
    lifetime: timedelta | None = None,
    session_id: str | None = None,
    note: str = "",
) -> str:
    """Make a token and return it in clear, this once; the store keeps only its hash.

    Args:
        store: keeps it.
        role: what it may do.
        organisation: identifier of whose it is.
        now: its beginning.
        lifetime: until it ends; None: when it is revoked.
        session_id: the only session that it is good for; None: all that its organisation sees.
        note: who holds it, or what for; shown in lists.

    Raises:
        OrganisationNotFoundError: there is no such organisation.
        RoleOrganisationError: an auditor of another organisation than the auditor's own.
        SessionNotFoundError: there is no such session, or it is another organisation's.

    """
    check_role(role, store.access.organisation(organisation).id)
    token_id = f"{role}-{secrets.token_hex(4)}"
    if session_id is not None:
        seen = (
            store.session(session_id) is not None
            if Principal(token_id, role, organisation).sees_all
            else store.opened_by(organisation, session_id)
        )
        if not seen:
            raise SessionNotFoundError(
                f"organisation {organisation!r} sees no session {session_id!r}; a token can't open "
                "what its organisation does not see"
            )
    secret = secrets.token_urlsafe(SECRET_BYTES)
    store.add_token(
        TokenRow(
            id=token_id,
            role=role,
            organisation=organisation,
            secret_hash=_hash(secret),
            created_at=now,
            expires_at=None if lifetime is None else now + lifetime,
            session_id=session_id,
            note=note,
        )
    )
    return f"{token_id}.{secret}"


def check_role(role: TokenRole, organisation: str) -> None:
    """Check that an organisation can have somebody in a role.

    Raises:
        RoleOrganisationError: an auditor belongs to the auditor's own organisation.

    """
    if role == "auditor" and organisation != AUTHORITY:
        raise RoleOrganisationError(
            f"the role auditor belongs to the organisation {AUTHORITY!r} alone, found "
            f"{organisation!r}; choose another role, or that organisation"
        )


def authenticate(store: Store, authorization: str | None, now: datetime) -> Principal:
    """Return who sends the request.

    Args:
        store: holds the tokens.
        authorization: value of the request's Authorization header.
        now: time of the request.

    Raises:
        NotAuthenticatedError: no bearer token, or an unknown one.
        TokenExpiredError, TokenRevokedError: the token is not good any more.

    """
    scheme, _, token = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise NotAuthenticatedError(
            "expected the header `Authorization: Bearer <token>`; `auditkit init` and `auditkit "
            "access token create` make tokens"
        )
    token_id, _, secret = token.strip().partition(".")
    row = store.token(token_id)
    # An unknown name takes the same path as a wrong secret, so that neither can be told apart.
    expected = row.secret_hash if row is not None else bytes(32)
    if not hmac.compare_digest(_hash(secret), expected) or row is None:
        raise NotAuthenticatedError("this server has not issued the token; check that it is whole")
    return principal_of(row, now)


def principal_of(row: TokenRow, now: datetime) -> Principal:
    """Return who has a token. Only for whoever has shown its secret.

    Raises:
        TokenExpiredError, TokenRevokedError: the token is not good any more.

    """
    if row.revoked_at is not None:
        raise TokenRevokedError(f"the token {row.id} was revoked; ask the auditor for another one")
    if row.expires_at is not None and now >= row.expires_at:
        raise TokenExpiredError(
            f"the token {row.id} ended on {row.expires_at:%Y-%m-%d at %H:%M} UTC; ask the auditor "
            "for another one, which `auditkit access token create` makes"
        )
    return Principal(row.id, cast("TokenRole", row.role), row.organisation, row.session_id)


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
