"""Organisations, their tokens, and people who sign in, in the database."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, sessionmaker

from auditor_server.errors import (
    OrganisationExistsError,
    OrganisationNotFoundError,
    TokenNotFoundError,
    UserExistsError,
    UserNotFoundError,
)
from auditor_server.store.models import (
    OrganisationRow,
    SignInFailureRow,
    SignInRow,
    TokenRow,
    UserRow,
    UtcDateTime,
)


class AccessStore:
    """Who may come in."""

    def __init__(self, write: sessionmaker[Session], read: sessionmaker[Session]) -> None:
        self._write = write
        self._read = read

    # Organisations

    def add_organisation(self, row: OrganisationRow) -> None:
        """Store an organisation.

        Raises:
            OrganisationExistsError: its identifier or its name is taken.

        """
        try:
            with self._write.begin() as transaction:
                transaction.add(row)
        except IntegrityError as error:
            raise OrganisationExistsError(
                f"an organisation {row.id!r}, or one named {row.name!r}, is there already; choose "
                "another identifier and name, or use that one"
            ) from error

    def organisations(self) -> Sequence[OrganisationRow]:
        """Return all organisations, by identifier."""
        with self._read() as transaction:
            return transaction.scalars(select(OrganisationRow).order_by(OrganisationRow.id)).all()

    def organisation(self, organisation_id: str) -> OrganisationRow:
        """Return one organisation.

        Raises:
            OrganisationNotFoundError: there is none.

        """
        with self._read() as transaction:
            row = transaction.get(OrganisationRow, organisation_id)
        if row is None:
            raise OrganisationNotFoundError(
                f"no organisation {organisation_id!r}; `auditkit access organisation list` shows "
                "those that there are, and `add` makes one"
            )
        return row

    def organisation_named(self, name: str) -> OrganisationRow | None:
        """Return the organisation that has a name, as orders have it."""
        with self._read() as transaction:
            return transaction.scalar(select(OrganisationRow).where(OrganisationRow.name == name))

    # Tokens

    def tokens(self) -> Sequence[TokenRow]:
        """Return all tokens, also those that have ended, oldest first."""
        with self._read() as transaction:
            statement = select(TokenRow).order_by(TokenRow.created_at, TokenRow.id)
            return transaction.scalars(statement).all()

    def revoke_token(self, token_id: str, now: datetime) -> TokenRow:
        """Take a token back, and return it; again changes nothing.

        Raises:
            TokenNotFoundError: there is none of this name.

        """
        with self._write.begin() as transaction:
            row = transaction.get(TokenRow, token_id, with_for_update=True)
            if row is None:
                raise TokenNotFoundError(
                    f"no token is named {token_id!r}; `auditkit access token list` shows them. The "
                    "name is the part before the dot"
                )
            row.revoked_at = row.revoked_at or now
            return row

    # People

    def add_user(self, row: UserRow) -> None:
        """Store a person.

        Raises:
            UserExistsError: the name is taken, perhaps by somebody who is disabled.

        """
        try:
            with self._write.begin() as transaction:
                transaction.add(row)
        except IntegrityError as error:
            raise UserExistsError(
                f"a user {row.name!r} is there already; `auditkit access user list` shows all"
            ) from error

    def users(self) -> Sequence[UserRow]:
        """Return all people, by name."""
        with self._read() as transaction:
            return transaction.scalars(select(UserRow).order_by(UserRow.name)).all()

    def user(self, name: str) -> UserRow | None:
        """Return one person."""
        with self._read() as transaction:
            return transaction.get(UserRow, name)

    def disable_user(self, name: str, now: datetime) -> UserRow:
        """Let a person in no more, and end every sign-in of theirs; again changes nothing.

        Raises:
            UserNotFoundError: there is none of this name.

        """
        with self._write.begin() as transaction:
            row = _user(transaction, name)
            row.disabled_at = row.disabled_at or now
            _end_sign_ins(transaction, name)
            return row

    def set_password(self, name: str, password_hash: str) -> UserRow:
        """Give a person another password, let them in again, and end every sign-in of theirs.

        Raises:
            UserNotFoundError: there is none of this name.

        """
        with self._write.begin() as transaction:
            row = _user(transaction, name)
            row.password_hash, row.disabled_at = password_hash, None
            _end_sign_ins(transaction, name)
            return row

    # Sign-ins

    def add_sign_in(self, row: SignInRow) -> None:
        """Store that a person is signed in."""
        with self._write.begin() as transaction:
            transaction.add(row)

    def signed_in(self, cookie_hash: str, now: datetime) -> SignInRow | None:
        """Return the sign-in of a cookie; None: there is none, or its time is over."""
        with self._read() as transaction:
            row = transaction.get(SignInRow, cookie_hash)
        return row if row is not None and now < row.expires_at else None

    def end_sign_in(self, cookie_hash: str) -> None:
        """Forget a sign-in; one that has ended changes nothing."""
        with self._write.begin() as transaction:
            transaction.execute(delete(SignInRow).where(SignInRow.cookie_hash == cookie_hash))

    def note_attempt(
        self, name: str, name_hash: str, now: datetime, *, since: datetime, most: int
    ) -> datetime | None:
        """Count an attempt to sign in, which is a failure until `forget_failures`.

        Returns:
            None; or, if there have been as many as may be, the time of the first of them, and
            nothing is counted.

        Args:
            name: that was given. Its row is locked, so that two attempts at once are two.
            name_hash: what is kept of it.
            now: time of the attempt.
            since: failures before it count no more.
            most: failures that may be.
        """
        counted = select(
            func.count(), func.min(SignInFailureRow.failed_at, type_=UtcDateTime())
        ).where(SignInFailureRow.name_hash == name_hash, SignInFailureRow.failed_at > since)
        with self._write.begin() as transaction:
            transaction.get(UserRow, name, with_for_update=True)
            count, first = transaction.execute(counted).one()
            if count >= most:
                return first
            transaction.add(SignInFailureRow(name_hash=name_hash, failed_at=now))
        return None

    def forget_failures(self, name_hash: str) -> None:
        """Forget the wrong passwords of a name, after the right one."""
        with self._write.begin() as transaction:
            transaction.execute(
                delete(SignInFailureRow).where(SignInFailureRow.name_hash == name_hash)
            )

    def prune(self, expired: datetime, failed: datetime) -> None:
        """Forget the sign-ins that ended, and the wrong passwords given, before a time each."""
        with self._write.begin() as transaction:
            transaction.execute(delete(SignInRow).where(SignInRow.expires_at <= expired))
            transaction.execute(delete(SignInFailureRow).where(SignInFailureRow.failed_at < failed))


def _user(transaction: Session, name: str) -> UserRow:
    row = transaction.get(UserRow, name, with_for_update=True)
    if row is None:
        raise UserNotFoundError(f"no user is named {name!r}; `auditkit access user list` shows all")
    return row


def _end_sign_ins(transaction: Session, name: str) -> None:
    transaction.execute(delete(SignInRow).where(SignInRow.user_name == name))
