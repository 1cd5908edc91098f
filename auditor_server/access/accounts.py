"""Organisations and people, as the auditor makes them."""

import re
from datetime import datetime, timedelta
from typing import Final

from auditor_server.access.passwords import hash_password
from auditor_server.access.principals import Role
from auditor_server.errors import AccessNameError
from auditor_server.store import OrganisationRow, Store, UserRow
from auditor_server.tokens import check_role

# Such a name can be typed, printed and put into an address without a thought.
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._@-]{0,99}")
MOST_TITLE_CHARACTERS = 200


def add_organisation(
    store: Store, organisation_id: str, name: str, now: datetime
) -> OrganisationRow:
    """Add an organisation.

    Args:
        store: keeps it.
        organisation_id: short, for commands and lists.
        name: as orders name the developer; those orders are then this organisation's alone.
        now: time of the addition.

    Raises:
        AccessNameError: the identifier or the name can't be used.
        OrganisationExistsError: one of them is taken.

    """
    _check_name(organisation_id, "an organisation's identifier")
    if not 0 < len(name) <= MOST_TITLE_CHARACTERS or not name.isprintable() or name != name.strip():
        raise AccessNameError(
            f"expected an organisation's name of 1 to {MOST_TITLE_CHARACTERS} printable "
            f"characters, without spaces around it, found {name!r}"
        )
    row = OrganisationRow(id=organisation_id, name=name, created_at=now)
    store.access.add_organisation(row)
    return row


def add_user(
    store: Store, name: str, *, organisation: str, role: Role, password: str, now: datetime
) -> UserRow:
    """Add a person who may sign in to pages.

    Raises:
        AccessNameError: the name can't be used.
        OrganisationNotFoundError: there is no such organisation.
        RoleOrganisationError: the organisation can't have anybody in this role.
        PasswordTooShortError: the password can be guessed.
        UserExistsError: the name is taken.

    """
    _check_name(name, "a user's name")
    check_role(role, store.access.organisation(organisation).id)
    row = UserRow(
        name=name,
        organisation=organisation,
        role=role,
        password_hash=hash_password(password),
        created_at=now,
        disabled_at=None,
    )
    store.access.add_user(row)
    return row


def set_password(store: Store, name: str, password: str) -> UserRow:
    """Give a person another password, let them in again if they were disabled, and sign them out.

    Raises:
        PasswordTooShortError: the password can be guessed.
        UserNotFoundError: there is none of this name.

    """
    return store.access.set_password(name, hash_password(password))


def prune(store: Store, now: datetime, failures_count_for: timedelta) -> None:
    """Forget sign-ins that have ended, and wrong passwords that count no more."""
    store.access.prune(now, now - failures_count_for)


def is_name(text: str) -> bool:
    """Tell whether an organisation or a user can have this name, or identifier."""
    return _NAME.fullmatch(text) is not None


def _check_name(name: str, what: str) -> None:
    if not is_name(name):
        raise AccessNameError(
            f"expected {what} of 1 to 100 small letters, digits and . _ @ -, beginning with a "
            f"letter or digit, found {name!r}"
        )
