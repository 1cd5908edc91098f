"""What is kept of organisations, tokens, people and the trail, on both databases."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from auditor_server import tokens
from auditor_server.access.accounts import add_organisation
from auditor_server.access.principals import AUTHORITY
from auditor_server.errors import (
    OrganisationExistsError,
    OrganisationNotFoundError,
    TokenNotFoundError,
    UserExistsError,
    UserNotFoundError,
)
from auditor_server.store import OrderRow, SessionRow, Store, TrailRow, UserRow
from auditor_server.store.engine import make_engine
from auditor_server.store.models import SignInRow

NOW = datetime(2026, 11, 21, 9, 30, 0, 123456, tzinfo=UTC)
DIGEST = "ab" * 32
NAME = "Böse & Söhne GmbH"


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    store = Store(make_engine(database_url))
    store.prepare()
    yield store
    store.close()


def user(name: str, **changes: Any) -> UserRow:
    return UserRow(
        **{
            "name": name,
            "organisation": AUTHORITY,
            "role": "auditor",
            "password_hash": "hash",
            "created_at": NOW,
            **changes,
        }
    )


def session(number: int, owner: str) -> SessionRow:
    return SessionRow(
        id=f"s-{number}",
        order_id="order",
        number=number,
        owner=owner,
        request_digest=f"request-{number}",
        request=b"",
        grant=b"",
        pool_leaves=b"",
        test_leaves=b"",
        opened_at=NOW,
        state="open",
        frontier=b"",
        size=0,
        step=0,
        epoch=0,
    )


def test_a_new_database_has_the_auditor_s_organisation(store: Store) -> None:
    assert [row.id for row in store.access.organisations()] == [AUTHORITY]


def test_an_organisation_is_found_by_its_name_in_orders(store: Store) -> None:
    add_organisation(store, "boese", NAME, NOW)
    found = store.access.organisation_named(NAME)
    assert found is not None
    assert (found.id, found.created_at) == ("boese", NOW)
    assert store.access.organisation_named(NAME.upper()) is None
    with pytest.raises(OrganisationExistsError):
        add_organisation(store, "boese", "Another", NOW)
    with pytest.raises(OrganisationExistsError):
        add_organisation(store, "another", NAME, NOW)
    with pytest.raises(OrganisationNotFoundError):
        store.access.organisation("another")


def test_a_session_is_its_organisation_s_whatever_becomes_of_the_token(store: Store) -> None:
    store.add_order(
        OrderRow(developer="", order_id="order", digest=DIGEST, envelope=b"{}", received_at=NOW)
    )
    owners = {}
    for number, organisation in enumerate(("first", "second")):
        add_organisation(store, organisation, organisation, NOW)
        token = tokens.issue(store, "developer", organisation, NOW)
        owners[organisation] = token.partition(".")[0]
        with store._write.begin() as transaction:
            transaction.add(session(number + 1, owners[organisation]))
    store.access.revoke_token(owners["first"], NOW)
    assert [row.id for row in store.lists.sessions(None, None, None, 9)] == ["s-1", "s-2"]
    assert [row.id for row in store.lists.sessions("first", None, None, 9)] == ["s-1"]
    assert store.lists.sessions(AUTHORITY, None, None, 9) == []
    assert store.opened_by("first", "s-1")
    assert not store.opened_by("second", "s-1")
    assert not store.opened_by("first", "none")


def test_a_token_is_taken_back_once(store: Store) -> None:
    token = tokens.issue(store, "auditor", AUTHORITY, NOW, lifetime=timedelta(days=1), note="x")
    name = token.partition(".")[0]
    store.access.revoke_token(name, NOW)
    assert store.access.revoke_token(name, NOW + timedelta(hours=1)).revoked_at == NOW
    (row,) = store.access.tokens()
    assert (row.id, row.note, row.expires_at) == (name, "x", NOW + timedelta(days=1))
    with pytest.raises(TokenNotFoundError):
        store.access.revoke_token("nobody", NOW)


def test_a_new_password_ends_every_sign_in(store: Store) -> None:
    store.access.add_user(user("a"))
    store.access.add_user(user("b"))
    with pytest.raises(UserExistsError):
        store.access.add_user(user("a"))
    for change in (
        lambda: store.access.set_password("a", "another"),
        lambda: store.access.disable_user("a", NOW),
    ):
        for name in ("a", "b"):
            store.access.add_sign_in(
                SignInRow(
                    cookie_hash=name,
                    user_name=name,
                    created_at=NOW,
                    expires_at=NOW + timedelta(hours=1),
                )
            )
        change()
        assert store.access.signed_in("a", NOW) is None
        assert store.access.signed_in("b", NOW) is not None
        assert store.access.signed_in("b", NOW + timedelta(hours=1)) is None
        store.access.end_sign_in("b")
    assert [row.disabled_at for row in store.access.users()] == [NOW, None]
    with pytest.raises(UserNotFoundError):
        store.access.set_password("nobody", "hash")
    with pytest.raises(UserNotFoundError):
        store.access.disable_user("nobody", NOW)


def test_the_trail_is_kept_in_order_and_pruned_by_time(store: Store) -> None:
    for hour in range(4):
        store.trail.add(
            TrailRow(
                at=NOW + timedelta(hours=hour),
                principal="user/a",
                role="auditor",
                organisation=AUTHORITY,
                action="query",
                session_id=f"s-{hour % 2}",
                purpose="warum? 理由",
                pictures=1,
                digests=bytes(range(32)),
            ),
            kept_since=NOW,
        )
    page = store.trail.page(NOW, None, None, 3)
    assert [row.at - NOW for row in page] == [timedelta(hours=hour) for hour in (3, 2, 1)]
    assert (page[0].purpose, page[0].digests) == ("warum? 理由", bytes(range(32)))
    assert [row.at for row in store.trail.page(NOW, page[-1].number, None, 3)] == [NOW]
    assert [row.session_id for row in store.trail.page(NOW, None, "s-1", 9)] == ["s-1"] * 2
    assert len(store.trail.page(NOW + timedelta(hours=1), None, None, 9)) == 3
    assert store.trail.prune(NOW + timedelta(hours=2)) == 2
    assert len(store.trail.page(NOW, None, None, 9)) == 2
    new = TrailRow(
        at=NOW,
        principal="user/a",
        role="auditor",
        organisation=AUTHORITY,
        action="report",
        pictures=0,
        digests=b"",
    )
    store.trail.add(new, kept_since=NOW + timedelta(hours=3))
    assert [row.session_id for row in store.trail.page(NOW, None, None, 9)] == ["s-1"]
