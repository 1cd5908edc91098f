"""From a signed order to a granted session."""

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hand_built import (
    CONFIG,
    POOL_SIZE,
    HandBuiltAgent,
    commit,
    is_problem,
    make_leaves,
    make_order,
    make_request,
    opening,
    sign_order,
)
from live import ORIGIN, LiveServer

from auditkit.client import AuditorClient
from auditkit.evidence import canonical, dsse, statements, trust
from auditkit.evidence.keys import SigningKey
from schemas import AuditOrder, MintConfig, SessionGrant, SplitSizes

ORDER_ID = "digits-2026"


def test_the_trust_root_is_open_to_all(live_server: LiveServer) -> None:
    response = live_server.client(None).get("/trust-root")
    root = trust.open_trust_root(response.content, datetime.now(UTC))
    assert (root.auditor, root.origin) == ("The Auditor", ORIGIN)


def test_an_order_is_stored_as_it_was_signed(live_server: LiveServer) -> None:
    order = make_order("as-signed", datetime.now(UTC))
    envelope = sign_order(live_server.home, order)
    auditor, developer = live_server.client("auditor"), live_server.client("developer")
    assert auditor.post("/orders", data=envelope.to_bytes()).status_code == 201
    assert auditor.post("/orders", data=envelope.to_bytes()).status_code == 201

    fetched = dsse.Envelope.from_bytes(developer.get("/orders/as-signed").content)
    root = live_server.home.trust_root(datetime.now(UTC))
    found = trust.verify_statement(root, "order", fetched, statements.ORDER_PREDICATE, AuditOrder)
    assert found == order
    listed = {entry["order_id"]: entry for entry in developer.get("/orders?limit=500").json()}
    assert listed["as-signed"]["purpose"] == order.purpose


def test_an_order_needs_the_order_role_s_signature(live_server: LiveServer) -> None:
    order = make_order("self-made", datetime.now(UTC))
    payload = sign_order(live_server.home, order).payload
    for key in (SigningKey.generate(), live_server.home.signing_key("session")):
        forged = dsse.sign(payload, [key]).to_bytes()
        response = live_server.client("auditor").post("/orders", data=forged)
        assert is_problem(response, 422, "ThresholdError")
    assert live_server.client("auditor").get("/orders/self-made").status_code == 404


def test_another_order_of_the_same_name_is_refused(live_server: LiveServer) -> None:
    live_server.add_order("taken")
    other = make_order("taken", datetime.now(UTC), most_dropout=0.1)
    response = live_server.client("auditor").post(
        "/orders", data=sign_order(live_server.home, other).to_bytes()
    )
    assert is_problem(response, 409, "OrderExistsError")


def test_an_order_lists_no_image_key_that_is_none(live_server: LiveServer) -> None:
    order = make_order("bad-key", datetime.now(UTC), image_keys=("no key",))
    response = live_server.client("auditor").post(
        "/orders", data=sign_order(live_server.home, order).to_bytes()
    )
    assert is_problem(response, 422, "ImageKeyError")


def test_what_is_no_envelope_is_refused(live_server: LiveServer) -> None:
    response = live_server.client("auditor").post("/orders", data=b"{}")
    assert is_problem(response, 422, "EnvelopeFormatError")


def test_a_grant_is_signed_and_answers_the_request(
    live_server: LiveServer, order_digest: str
) -> None:
    key = SigningKey.generate()
    request = make_request(order_digest, key)
    response = live_server.client("developer").post("/sessions", json=opening(ORDER_ID, request))
    assert response.status_code == 201
    grant = trust.verify_statement(
        live_server.home.trust_root(datetime.now(UTC)),
        "session",
        dsse.Envelope.from_bytes(response.content),
        statements.GRANT_PREDICATE,
        SessionGrant,
    )
    assert grant.origin == f"{ORIGIN}/sessions/{grant.session_id}"
    assert grant.session_key == key.public.hex
    assert grant.order_digest == order_digest
    assert grant.request_digest == canonical.sha256_hex(canonical.to_bytes(request))
    assert grant.split == SplitSizes(told=32, silent=0, told_only=0, external=16, calibration=16)
    assert grant.valid_until - grant.valid_from == timedelta(hours=72)


def test_asking_twice_gives_no_second_nonce(live_server: LiveServer, order_digest: str) -> None:
    body = opening(ORDER_ID, make_request(order_digest, SigningKey.generate()))
    developer = live_server.client("developer")
    first, second = (developer.post("/sessions", json=body) for _ in range(2))
    assert first.status_code == second.status_code == 201
    assert first.content == second.content


def test_a_session_key_serves_one_session(live_server: LiveServer, order_digest: str) -> None:
    key = SigningKey.generate()
    developer = live_server.client("developer")
    first = make_request(order_digest, key)
    assert developer.post("/sessions", json=opening(ORDER_ID, first)).status_code == 201
    second = make_request(order_digest, key, code_digest="cd" * 32)
    response = developer.post("/sessions", json=opening(ORDER_ID, second))
    assert is_problem(response, 409, "SessionKeyReusedError")


def test_every_session_has_its_own_nonce(new_agent: Any) -> None:
    agents = [new_agent() for _ in range(3)]
    assert len({agent.grant.nonce for agent in agents}) == 3
    assert len({agent.grant.session_id for agent in agents}) == 3


def test_a_developer_cannot_choose_among_nonces_without_end(live_server: LiveServer) -> None:
    digest = live_server.add_order("twice", most_sessions=2)
    developer = live_server.client("developer")
    requests = [make_request(digest, SigningKey.generate()) for _ in range(3)]
    answers = [developer.post("/sessions", json=opening("twice", r)) for r in requests]
    assert [answer.status_code for answer in answers] == [201, 201, 422]
    assert is_problem(answers[2], 422, "TooManySessionsError")
    # What was granted stays granted, and says which session of the order it is.
    again = developer.post("/sessions", json=opening("twice", requests[1]))
    assert again.content == answers[1].content
    payload = dsse.Envelope.from_bytes(again.content).payload
    assert statements.parse(payload, statements.GRANT_PREDICATE, SessionGrant).session_number == 2


def test_a_request_outside_its_order_is_refused(live_server: LiveServer, order_digest: str) -> None:
    config = CONFIG.model_copy(update={"mint": MintConfig(mint_weight=100.0)})
    for changes, error in (
        ({"developer": "Somebody Else"}, "DeveloperMismatchError"),
        ({"config": config}, "LossWeightError"),
    ):
        request = make_request(order_digest, SigningKey.generate(), **changes)
        response = live_server.client("developer").post(
            "/sessions", json=opening(ORDER_ID, request)
        )
        assert is_problem(response, 422, error)


def test_a_request_for_an_expired_order_is_refused(live_server: LiveServer) -> None:
    now = datetime.now(UTC)
    digest = live_server.add_order("over", issued_at=now, expires_at=now + timedelta(seconds=0.01))
    request = make_request(digest, SigningKey.generate())
    response = live_server.client("developer").post("/sessions", json=opening("over", request))
    assert is_problem(response, 422, "OrderNotInForceError")


def test_a_request_names_its_order(live_server: LiveServer, order_digest: str) -> None:
    developer = live_server.client("developer")
    request = make_request("cd" * 32, SigningKey.generate())
    response = developer.post("/sessions", json=opening(ORDER_ID, request))
    assert is_problem(response, 422, "OrderMismatchError")
    request = make_request(order_digest, SigningKey.generate())
    response = developer.post("/sessions", json=opening("never-issued", request))
    assert is_problem(response, 404, "OrderNotFoundError")


@pytest.mark.parametrize("part", ["pool_leaves", "test_leaves"])
def test_leaves_must_add_up_to_the_commitment(
    live_server: LiveServer, order_digest: str, part: str
) -> None:
    size = POOL_SIZE if part == "pool_leaves" else 8
    others = make_leaves(size, b"others")
    for leaves, error in (
        (base64.b64encode(b"".join(others)).decode(), "LeavesError"),
        (base64.b64encode(b"".join(others[:-1])).decode(), "LeavesError"),
        ("no base64!", "InvalidDocumentError"),
    ):
        request = make_request(order_digest, SigningKey.generate())
        body = opening(ORDER_ID, request, **{part: leaves})
        response = live_server.client("developer").post("/sessions", json=body)
        assert is_problem(response, 422, error)


def test_no_leaf_comes_twice(live_server: LiveServer, order_digest: str) -> None:
    leaves = 2 * make_leaves(POOL_SIZE // 2, b"pool")
    request = make_request(order_digest, SigningKey.generate(), pool=commit(leaves))
    body = opening(ORDER_ID, request, pool_leaves=base64.b64encode(b"".join(leaves)).decode())
    response = live_server.client("developer").post("/sessions", json=body)
    assert is_problem(response, 422, "RepeatedLeafError")


@pytest.mark.parametrize(
    ("key", "error"),
    [
        ("01" + "00" * 31, "WeakKeyError"),  # the neutral point: signs everything
        ("02" + "00" * 31, "KeyFormatError"),  # not on the curve
    ],
)
def test_a_key_that_proves_nothing_is_refused(
    live_server: LiveServer, order_digest: str, key: str, error: str
) -> None:
    request = make_request(order_digest, SigningKey.generate(), session_key=key)
    response = live_server.client("developer").post("/sessions", json=opening(ORDER_ID, request))
    assert is_problem(response, 422, error)


def test_a_request_has_one_byte_form_only(live_server: LiveServer, order_digest: str) -> None:
    request = make_request(order_digest, SigningKey.generate())
    spaced = canonical.to_bytes(request).decode().replace(":", ": ", 1)
    body = {**opening(ORDER_ID, request), "request": spaced}
    response = live_server.client("developer").post("/sessions", json=body)
    assert is_problem(response, 422, "InvalidDocumentError")


def test_sessions_are_listed_with_their_progress(
    agent: HandBuiltAgent, live_server: LiveServer
) -> None:
    agent.sent(agent.flush(0))
    for role in ("auditor", "compliance-officer", "developer"):
        with AuditorClient(live_server.url, live_server.home.tokens[role]) as client:
            (entry,) = (each for each in client.sessions() if each.id == agent.grant.session_id)
        assert entry.acknowledged_records == 4
        assert entry.order_id == ORDER_ID
        assert entry.name == "digits"
