"""The secret of the codes stays with the auditor, and the codes go to the process that trains."""

import sqlite3
import stat
from typing import Any

import numpy as np
import pytest
import requests
from hand_built import CONFIG, POOL_SIZE, HandBuiltAgent, is_problem, make_leaves
from live import LiveServer
from test_granting_continuations import go_on

from auditkit.evidence import dsse
from auditkit.evidence.code_delivery import REQUEST_TYPE, CodesReceiver, sign_request
from auditkit.evidence.derivation import derive_split
from auditkit.evidence.keys import SigningKey
from auditkit.evidence.membership_codes import (
    SessionCodes,
    check_secret,
    membership_codes,
)
from auditor_server.home import DATABASE_FILE
from schemas import CodesRequest, MintConfig
from tests.evidence import contained

ORDER_ID = "coded"
LENGTH = 256
CODED = CONFIG.model_copy(update={"mint": MintConfig(evidence="codes", code_length=LENGTH)})


@pytest.fixture(scope="module")
def order(live_server: LiveServer) -> str:
    return live_server.add_order(ORDER_ID, images=(contained.IMAGE,))


@pytest.fixture
def agent(live_server: LiveServer, order: str) -> HandBuiltAgent:
    return new_session(live_server, order)


def new_session(server: LiveServer, order: str, **changes: Any) -> HandBuiltAgent:
    return server.open_session(ORDER_ID, order, **{"config": CODED, **changes})


def ask(
    agent: HandBuiltAgent,
    receiver: CodesReceiver,
    key: SigningKey | None = None,
    **changes: Any,
) -> requests.Response:
    request = CodesRequest(
        **{
            "session_id": agent.grant.session_id,
            "ephemeral_key": receiver.public_key,
            **changes,
        }
    )
    return post(agent, sign_request(request, key or agent.key))


def post(agent: HandBuiltAgent, body: bytes) -> requests.Response:
    return agent.client.post(f"{agent.path}/membership-codes", data=body)


def received(agent: HandBuiltAgent, response: requests.Response, receiver: CodesReceiver) -> bytes:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/octet-stream"
    assert agent.grant.code_commitment is not None
    return receiver.open(response.content, agent.grant.session_id, agent.grant.code_commitment)


def secret_of(server: LiveServer, session_id: str) -> bytes | None:
    store = server.open_store()
    secret = store.code_secret(session_id)
    store.close()
    return secret


def test_the_process_that_trains_gets_the_codes_of_its_members(
    agent: HandBuiltAgent, live_server: LiveServer
) -> None:
    receiver = CodesReceiver()
    packed = received(agent, ask(agent, receiver), receiver)
    codes = SessionCodes.unpack(packed, agent.grant.split, LENGTH)
    secret = secret_of(live_server, agent.grant.session_id)
    leaves = b"".join(make_leaves(POOL_SIZE, b"pool"))
    split = derive_split(bytes.fromhex(agent.grant.nonce), agent.grant.split)
    assert np.array_equal(codes.told, membership_codes(secret, leaves, split.told, LENGTH))
    only = membership_codes(secret, leaves, split.told_only, LENGTH)
    assert np.array_equal(codes.told_only, only)
    again = CodesReceiver()
    assert received(agent, ask(agent, again), again) == packed


def test_every_session_has_a_secret_of_its_own_and_commits_to_it(
    agent: HandBuiltAgent, live_server: LiveServer, order: str
) -> None:
    agents = [agent, new_session(live_server, order)]
    secrets = [secret_of(live_server, each.grant.session_id) for each in agents]
    assert secrets[0] != secrets[1]
    for each, secret in zip(agents, secrets, strict=True):
        assert each.grant.code_commitment is not None
        check_secret(secret, each.grant.code_commitment)


def test_the_secret_is_in_the_auditor_s_database_alone(
    agent: HandBuiltAgent, live_server: LiveServer
) -> None:
    path = live_server.home.path
    secret = secret_of(live_server, agent.grant.session_id)
    holding = {
        file.name
        for file in path.rglob("*")
        if file.is_file()
        and (secret in (data := file.read_bytes()) or secret.hex().encode() in data)
    }
    assert holding <= {DATABASE_FILE, f"{DATABASE_FILE}-wal"}
    for name in holding:
        assert stat.S_IMODE((path / name).stat().st_mode) == 0o600
    bundle = agent.client.get(f"{agent.path}/bundle").content
    assert secret not in bundle
    assert secret.hex().encode() not in bundle


def test_without_codes_there_is_no_secret_and_nothing_to_hand_out(
    live_server: LiveServer, order: str
) -> None:
    agent = new_session(live_server, order, config=CONFIG)
    assert agent.grant.code_commitment is None
    assert secret_of(live_server, agent.grant.session_id) is None
    assert is_problem(ask(agent, CodesReceiver()), 409, "CodesNotUsedError")


def test_only_the_session_s_own_key_gets_codes(
    agent: HandBuiltAgent, live_server: LiveServer, order: str
) -> None:
    other = new_session(live_server, order)
    for key in (SigningKey.generate(), other.key):
        assert is_problem(ask(agent, CodesReceiver(), key), 403, "CodesRequestKeyError")


def test_a_request_for_another_session_s_codes_is_refused(
    agent: HandBuiltAgent, live_server: LiveServer, order: str
) -> None:
    other = new_session(live_server, order)
    answer = ask(agent, CodesReceiver(), session_id=other.grant.session_id)
    assert is_problem(answer, 422, "CodesRequestMismatchError")


def test_a_checkpoint_s_or_a_statement_s_signature_is_no_request(agent: HandBuiltAgent) -> None:
    request = CodesRequest(session_id=agent.grant.session_id, ephemeral_key="ab" * 32)
    signed = dsse.Envelope.from_bytes(sign_request(request, agent.key))
    as_statement = dsse.sign(signed.payload, [agent.key]).to_bytes()
    assert is_problem(post(agent, as_statement), 422, "PayloadTypeError")
    assert is_problem(post(agent, b"{}"), 422, "EnvelopeFormatError")
    other = dsse.sign(b'{"session_id":"x"}', [agent.key], REQUEST_TYPE).to_bytes()
    assert is_problem(post(agent, other), 422, "CodesRequestError")
    assert is_problem(post(agent, b" " * 2**17), 413, "BodyTooLargeError")


def test_a_key_that_opens_for_everyone_is_refused(agent: HandBuiltAgent) -> None:
    answer = ask(agent, CodesReceiver(), ephemeral_key="00" * 32)
    assert is_problem(answer, 422, "EphemeralKeyError")


def test_another_developer_does_not_learn_that_there_are_codes(
    agent: HandBuiltAgent, live_server: LiveServer
) -> None:
    stranger = live_server.client("compliance-officer")
    answer = stranger.post(f"{agent.path}/membership-codes", data=b"{}")
    assert is_problem(answer, 403, "NotAllowedError")
    nobody = live_server.client(None).post(f"{agent.path}/membership-codes", data=b"{}")
    assert is_problem(nobody, 401, "NotAuthenticatedError")


def test_after_the_seal_nobody_gets_codes(agent: HandBuiltAgent) -> None:
    agent.log_grant()
    agent.log_seal()
    agent.sent(agent.flush(0))
    assert is_problem(ask(agent, CodesReceiver()), 409, "SessionSealedError")


def test_the_next_container_gets_the_codes_and_the_one_before_no_longer(
    live_server: LiveServer, order: str
) -> None:
    agent = new_session(live_server, order, container=contained.contained_run())
    first, second = CodesReceiver(), CodesReceiver()
    packed = received(agent, ask(agent, first), first)
    agent.log_grant(image_digest=contained.IMAGE, mode="container")
    agent.sent(agent.flush(0))
    old_key = agent.key
    go_on(agent)
    assert is_problem(ask(agent, CodesReceiver(), old_key), 403, "KeyNotInForceError")
    assert received(agent, ask(agent, second), second) == packed


def test_a_secret_that_was_exchanged_after_the_grant_gives_no_codes(own_server: LiveServer) -> None:
    own_server.start()
    agent = own_server.open_session(ORDER_ID, own_server.add_order(ORDER_ID), config=CODED)
    with sqlite3.connect(own_server.home.path / DATABASE_FILE) as database:
        database.execute("UPDATE sessions SET code_secret = ?", (bytes(32),))
    assert is_problem(ask(agent, CodesReceiver()), 500, "CodeSecretLostError")
    report = agent.client.get(f"{agent.path}/verification").json()
    found = {finding["check"]: finding["error"] for finding in report["findings"]}
    assert found["codes-committed"] == "CodeSecretError"
