"""Every route, tried as every role of every organisation, and with every kind of bad token.

`RULES` says what is allowed. A route that is not in it fails the test.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import pytest
from fastapi.routing import iter_route_contexts
from fastapi.testclient import TestClient
from hand_built import make_order, make_request, opening, sign_order
from httpx import Response
from live import make_home

from auditkit.evidence import canonical, dsse, statements
from auditkit.evidence.keys import SigningKey
from auditor_server import tokens
from auditor_server.access.accounts import add_organisation
from auditor_server.access.principals import AUTHORITY, ROLES, Role
from auditor_server.app import create_app
from auditor_server.settings import ServerSettings
from auditor_server.store import Store
from auditor_server.web.headers import is_of_api
from schemas import SessionGrant

AUDITOR: Role = "auditor"
DEVELOPER: Role = "developer"
OFFICER: Role = "compliance-officer"
DESK: Role = "data-subject-desk"
OWN, OTHER = "own", "other"

Reach = Literal["public", "server", "list", "order", "session"]
"""What a route concerns: `server` is more than one session; a `list` has what the caller sees."""


@dataclass(frozen=True)
class Rule:
    reach: Reach
    roles: frozenset[Role] = frozenset()


PUBLIC = Rule("public")
READERS = frozenset({AUDITOR, DEVELOPER, OFFICER})
EXAMINERS = frozenset({AUDITOR, OFFICER, DESK})
EVERYONE = frozenset(ROLES)
TRAINING = Rule("session", frozenset({AUDITOR, DEVELOPER}))
AUDITING = Rule("session", frozenset({AUDITOR}))
SESSION = "/v1/sessions/{session_id}"
RULES: dict[str, Rule] = {
    "GET /v1/openapi.json": PUBLIC,
    "GET /v1/health": PUBLIC,
    "GET /v1/ready": PUBLIC,
    "GET /v1/trust-root": PUBLIC,
    "GET /v1/trust-root/{version}": PUBLIC,
    "GET /v1/registry/checkpoint": PUBLIC,
    "GET /v1/registry/entries": PUBLIC,
    "GET /v1/registry/entries/{index}": PUBLIC,
    "GET /v1/registry/proof/inclusion": PUBLIC,
    "GET /v1/registry/proof/consistency": PUBLIC,
    "POST /v1/orders": Rule("server", frozenset({AUDITOR})),
    "GET /v1/orders": Rule("list", READERS),
    "GET /v1/orders/{order_id}": Rule("order", READERS),
    "POST /v1/sessions": Rule("server", frozenset({AUDITOR, DEVELOPER})),
    "GET /v1/sessions": Rule("list", EVERYONE),
    f"GET {SESSION}": Rule("session", EVERYONE),
    f"POST {SESSION}/continuations": TRAINING,
    f"POST {SESSION}/membership-codes": TRAINING,
    f"POST {SESSION}/mint-exchanges": TRAINING,
    f"POST {SESSION}/records": TRAINING,
    f"PUT {SESSION}/submission": TRAINING,
    f"POST {SESSION}/queries": Rule("session", EXAMINERS),
    "POST /v1/inquiries": Rule("server", EXAMINERS),
    "GET /v1/inquiries/{inquiry_id}": Rule("server", EXAMINERS),
    f"GET {SESSION}/verdicts/{{verdict_id}}": Rule("session", EXAMINERS),
    f"POST {SESSION}/draws": AUDITING,
    f"GET {SESSION}/draws": Rule("session", READERS),
    f"POST {SESSION}/replays": AUDITING,
    f"GET {SESSION}/verification": Rule("session", EVERYONE),
    f"GET {SESSION}/bundle": Rule("session", READERS),
    f"GET {SESSION}/report": Rule("session", READERS),
    "GET /v1/audit-trail": Rule("server", frozenset({AUDITOR})),
}
PARAMETERS = {"{version}": "1", "{index}": "0", "{inquiry_id}": "i", "{verdict_id}": "v"}
NOT_FOUND = {"session": "SessionNotFoundError", "order": "OrderNotFoundError"}
MEMBERS: list[tuple[str, Role]] = [
    *((AUTHORITY, role) for role in ROLES),
    *((organisation, role) for organisation in (OWN, OTHER) for role in ROLES if role != AUDITOR),
]


@dataclass
class World:
    """A server with two developers, each with an order and a session."""

    client: TestClient
    store: Store
    sessions: dict[str, str] = field(default_factory=dict)
    issued: dict[tuple[str, str], str] = field(default_factory=dict)

    def token(self, organisation: str, role: Role, **changes: Any) -> str:
        now = datetime.now(UTC)
        return tokens.issue(self.store, role, organisation, now, **changes)

    def send(self, route: str, token: str | None, *, session: str, order: str) -> Response:
        method, path = route.split(" ")
        for name, value in {
            **PARAMETERS,
            "{session_id}": session,
            "{order_id}": order,
        }.items():
            path = path.replace(name, value)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return self.client.request(method, path, headers=headers)

    def ask(self, route: str, token: str | None, about: str = OWN) -> Response:
        """Ask for what belongs to one of the two organisations."""
        return self.send(route, token, session=self.sessions[about], order=f"order-{about}")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    home = make_home(tmp_path_factory.mktemp("matrix"))
    app = create_app(ServerSettings(home=home.path))
    # What the server could not foresee is an answer here, too, so that all of them are looked at.
    with TestClient(app, raise_server_exceptions=False) as client:
        world = World(client, app.state.auditor.store)
        for organisation in (OWN, OTHER):
            now = datetime.now(UTC)
            add_organisation(world.store, organisation, f"{organisation} Ltd", now)
            order = make_order(f"order-{organisation}", now, developer=f"{organisation} Ltd")
            envelope = sign_order(home, order)
            auditor = {"Authorization": f"Bearer {home.tokens['auditor']}"}
            posted = client.post("/v1/orders", content=envelope.to_bytes(), headers=auditor)
            assert posted.status_code == 201, posted.text
        for organisation, role in MEMBERS:
            world.issued[organisation, role] = world.token(organisation, role)
        for organisation in (OWN, OTHER):
            world.sessions[organisation] = open_session(world, organisation)
        yield world


def open_session(world: World, organisation: str) -> str:
    token = world.issued[organisation, DEVELOPER]
    headers = {"Authorization": f"Bearer {token}"}
    order = world.client.get(f"/v1/orders/order-{organisation}", headers=headers)
    digest = canonical.sha256_hex(dsse.Envelope.from_bytes(order.content).payload)
    request = make_request(digest, SigningKey.generate(), developer=f"{organisation} Ltd")
    body = opening(f"order-{organisation}", request)
    granted = world.client.post("/v1/sessions", json=body, headers=headers)
    assert granted.status_code == 201, granted.text
    payload = dsse.Envelope.from_bytes(granted.content).payload
    return statements.parse(payload, statements.GRANT_PREDICATE, SessionGrant).session_id


def is_refused(response: Response, status: int, error: str) -> bool:
    found = (response.status_code, response.headers["content-type"], response.json()["type"])
    assert found == (status, "application/problem+json", f"urn:auditkit:error:{error}")
    return True


def is_let_in(response: Response) -> bool:
    """Whatever became of it, it was not for want of a right."""
    assert response.status_code not in {401, 403, 429, 500}, response.text
    if response.is_error:
        assert not any(error in response.text for error in NOT_FOUND.values()), response.text
    return True


def sees(organisation: str, role: Role, about: str) -> bool:
    return organisation == about or (organisation == AUTHORITY and role != DEVELOPER)


def test_every_route_has_a_rule(world: World) -> None:
    """Also one that the schema does not show; a mounted application would be `MOUNT <path>`."""
    routes = {
        f"{method} {route.path}"
        for route in iter_route_contexts(world.client.app.routes)  # type: ignore[attr-defined]
        if is_of_api(str(route.path))  # pages have a matrix of their own
        for method in (route.methods or {"MOUNT"}) - {"HEAD"}
    }
    assert routes == set(RULES)


@pytest.mark.parametrize("route", RULES)
def test_each_role_of_each_organisation_may_do_its_own(world: World, route: str) -> None:
    rule = RULES[route]
    for organisation, role in MEMBERS:
        response = world.ask(route, world.issued[organisation, role])
        if rule.reach != "public" and role not in rule.roles:
            assert is_refused(response, 403, "NotAllowedError")
        elif rule.reach in NOT_FOUND and not sees(organisation, role, OWN):
            assert is_refused(response, 404, NOT_FOUND[rule.reach])
        else:
            assert is_let_in(response)


@pytest.mark.parametrize("route", [r for r, rule in RULES.items() if rule.reach in NOT_FOUND])
def test_what_is_not_seen_is_as_if_it_were_not_there(world: World, route: str) -> None:
    for organisation, role in MEMBERS:
        token = world.issued[organisation, role]
        if sees(organisation, role, OWN):
            continue
        missing = world.send(route, token, session="missing", order="missing")
        foreign = world.ask(route, token)
        text = foreign.text.replace(world.sessions[OWN], "missing").replace("order-own", "missing")
        assert (foreign.status_code, text) == (missing.status_code, missing.text)


def expired(world: World, organisation: str, role: Role) -> str:
    return world.token(organisation, role, lifetime=timedelta(microseconds=1))


def revoked(world: World, organisation: str, role: Role) -> str:
    token = world.token(organisation, role)
    world.store.access.revoke_token(token.partition(".")[0], datetime.now(UTC))
    return token


@pytest.mark.parametrize("route", RULES)
@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda *_: None, "NotAuthenticatedError"),
        (lambda *_: "auditor-1.made-up", "NotAuthenticatedError"),
        (expired, "TokenExpiredError"),
        (revoked, "TokenRevokedError"),
    ],
    ids=["none", "made up", "expired", "revoked"],
)
def test_nothing_is_done_without_a_good_token(
    world: World, route: str, make: Callable[[World, str, Role], str | None], error: str
) -> None:
    response = world.ask(route, make(world, AUTHORITY, AUDITOR))
    if RULES[route].reach == "public":
        assert is_let_in(response)
    else:
        assert is_refused(response, 401, error)
        assert response.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("route", RULES)
def test_a_token_for_one_session_is_good_for_that_one(world: World, route: str) -> None:
    rule = RULES[route]
    for organisation, role in [(AUTHORITY, AUDITOR), (OWN, DEVELOPER), (OWN, OFFICER), (OWN, DESK)]:
        token = world.token(organisation, role, session_id=world.sessions[OWN])
        own, other = world.ask(route, token), world.ask(route, token, about=OTHER)
        if rule.reach == "public":
            assert is_let_in(own)
        elif role not in rule.roles:
            assert is_refused(own, 403, "NotAllowedError")
            assert is_refused(other, 403, "NotAllowedError")
        elif rule.reach == "server":
            assert is_refused(own, 403, "OutOfScopeError")
        else:
            assert is_let_in(own)
            assert rule.reach == "list" or is_refused(other, 404, NOT_FOUND[rule.reach])


@pytest.mark.parametrize("route", [r for r, rule in RULES.items() if rule.reach == "list"])
def test_a_list_has_what_the_caller_sees(world: World, route: str) -> None:
    names = {about: {world.sessions[about], f"order-{about}"} for about in (OWN, OTHER)}

    def listed(token: str) -> set[str]:
        items = world.ask(route, token).json()
        found = {item.get("id", item["order_id"]) for item in items}
        return {about for about in names if found & names[about]}

    for organisation, role in MEMBERS:
        if role in RULES[route].roles:
            expected = {about for about in names if sees(organisation, role, about)}
            assert listed(world.issued[organisation, role]) == expected
    for organisation, role in ((AUTHORITY, AUDITOR), (OWN, DEVELOPER)):
        scoped = world.token(organisation, role, session_id=world.sessions[OWN])
        assert listed(scoped) == {OWN}


def test_people_of_one_organisation_see_each_other_s_sessions(world: World) -> None:
    """The token that opened a session may have ended long ago."""
    route = f"GET {SESSION}"
    assert is_let_in(world.ask(route, world.token(OWN, DEVELOPER)))
