"""A container is gone, and its key with it: the log goes on in a fresh one, and says so."""

import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
import requests
from hand_built import ENVIRONMENT, Client, HandBuiltAgent, is_problem, opening
from hand_built import make_request as make_session_request
from live import LiveServer

from auditkit.evidence import canonical, dsse, notes, statements, trust
from auditkit.evidence.bundle import read_bundle
from auditkit.evidence.canonical import sha256_hex
from auditkit.evidence.keys import SigningKey
from auditor_server import tokens
from auditor_server.access.accounts import add_organisation
from schemas import ContainerRun, ContinuationRequest, SessionContinuation
from tests.evidence import contained

ORDER_ID = "resumable"


@dataclass(frozen=True)
class Answer:
    """A granted continuation."""

    envelope: bytes
    digest: str
    continuation: SessionContinuation


@pytest.fixture(scope="module")
def order(live_server: LiveServer) -> str:
    return live_server.add_order(ORDER_ID, images=(contained.IMAGE, contained.OTHER_IMAGE))


def start(server: LiveServer, order_digest: str, order_id: str = ORDER_ID) -> HandBuiltAgent:
    """An agent in a container, which has logged its grant and three steps."""
    agent = server.open_session(order_id, order_digest, container=contained.contained_run())
    agent.log_grant(image_digest=contained.IMAGE, mode="container")
    for step in (1, 2, 3):
        agent.log_step(step)
    return agent


@pytest.fixture
def agent(live_server: LiveServer, order: str) -> HandBuiltAgent:
    return start(live_server, order)


def fresh_container() -> ContainerRun:
    return contained.contained_run(secrets.randbits(64))


def make_request(agent: HandBuiltAgent, key: SigningKey, **changes: Any) -> ContinuationRequest:
    return ContinuationRequest(
        **{
            "session_id": agent.grant.session_id,
            "grant_digest": agent.grant_digest,
            "container": fresh_container(),
            "session_key": key.public.hex,
            "environment": ENVIRONMENT,
            "requested_at": datetime.now(UTC),
            **changes,
        }
    )


def ask(agent: HandBuiltAgent, request: ContinuationRequest) -> requests.Response:
    return agent.client.post(f"{agent.path}/continuations", data=canonical.to_bytes(request))


def granted(response: requests.Response) -> Answer:
    assert response.status_code == 201, response.text
    payload = dsse.Envelope.from_bytes(response.content).payload
    continuation = statements.parse(payload, statements.CONTINUATION_PREDICATE, SessionContinuation)
    return Answer(response.content, sha256_hex(payload), continuation)


def go_on(agent: HandBuiltAgent) -> Answer:
    """Lose the container: a fresh one, with a fresh key, throws away what was not acknowledged."""
    key = SigningKey.generate()
    answer = granted(ask(agent, make_request(agent, key)))
    del agent.lines[answer.continuation.log_size :]
    agent.key = key
    return answer


def test_a_log_goes_on_in_a_fresh_container(agent: HandBuiltAgent, live_server: LiveServer) -> None:
    receipt = agent.sent(agent.flush(0))
    agent.log_step(4)  # written, and lost with the container
    old_key = agent.key
    answer = go_on(agent)

    root = live_server.home.trust_root(datetime.now(UTC))
    envelope = dsse.Envelope.from_bytes(answer.envelope)
    verified = trust.verify_statement(
        root, "session", envelope, statements.CONTINUATION_PREDICATE, SessionContinuation
    )
    assert (verified.number, verified.log_size) == (1, 4)
    assert verified.session_key == agent.key.public.hex != old_key.public.hex
    assert verified.grant_digest == agent.grant_digest

    agent.log_receipt(receipt.checkpoint)
    agent.log_continuation(answer.digest)
    agent.log_step(4)
    receipt = agent.sent(agent.flush(4))
    agent.log_receipt(receipt.checkpoint)
    agent.log_seal()
    agent.sent(agent.flush(7))
    status = agent.status()
    assert (status["state"], status["continuations"]) == ("sealed", 1)
    assert status["acknowledged_records"] == 9

    bundle = read_bundle(agent.client.get(f"{agent.path}/bundle").content)
    assert list(bundle.records) == agent.lines
    (continuation,) = bundle.continuations
    assert continuation.envelope == answer.envelope
    assert sha256_hex(continuation.request) == verified.request_digest


def test_the_verifier_finds_the_keys_of_a_continued_log_in_order(agent: HandBuiltAgent) -> None:
    receipt = agent.sent(agent.flush(0))
    answer = go_on(agent)
    agent.log_receipt(receipt.checkpoint)
    agent.log_continuation(answer.digest)
    agent.sent(agent.flush(4))
    report = agent.client.get(f"{agent.path}/verification").json()
    outcomes = {finding["check"]: finding["outcome"] for finding in report["findings"]}
    for check in ("session-key", "image-verified", "checkpoints-signed", "checkpoints-cosigned"):
        assert outcomes[check] == "passed", report["findings"]


def test_an_empty_log_names_its_continuation_right_after_the_grant(agent: HandBuiltAgent) -> None:
    answer = go_on(agent)
    assert answer.continuation.log_size == 0
    agent.log_grant(image_digest=contained.IMAGE, mode="container")
    agent.log_continuation(answer.digest)
    agent.log_step(1)
    agent.sent(agent.flush(0))
    assert agent.status()["acknowledged_records"] == 3


def test_a_container_that_dies_before_its_first_flush_is_followed_by_another(
    agent: HandBuiltAgent,
) -> None:
    receipt = agent.sent(agent.flush(0))
    first = go_on(agent)
    second = go_on(agent)
    assert [a.continuation.number for a in (first, second)] == [1, 2]
    assert [a.continuation.log_size for a in (first, second)] == [4, 4]
    agent.log_receipt(receipt.checkpoint)
    agent.log_continuation(first.digest)
    assert is_problem(agent.send(agent.flush(4)), 422, "ContinuationRecordError")
    agent.lines.pop()
    agent.log_continuation(second.digest)
    agent.sent(agent.flush(4))
    assert agent.status()["acknowledged_records"] == 6


def test_a_session_may_go_on_many_times(agent: HandBuiltAgent) -> None:
    receipt = agent.sent(agent.flush(0))
    for number in range(1, 6):
        first = len(agent.lines)
        answer = go_on(agent)
        assert (answer.continuation.number, answer.continuation.log_size) == (number, first)
        agent.log_receipt(receipt.checkpoint)
        agent.log_continuation(answer.digest)
        agent.log_step(3 + number)
        receipt = agent.sent(agent.flush(first))
    assert agent.status()["continuations"] == 5


def test_the_same_request_again_gives_the_same_answer_to_the_end(agent: HandBuiltAgent) -> None:
    receipt = agent.sent(agent.flush(0))
    agent.key = SigningKey.generate()
    request = make_request(agent, agent.key)
    first = granted(ask(agent, request))
    assert ask(agent, request).content == first.envelope
    agent.log_receipt(receipt.checkpoint)
    agent.log_continuation(first.digest)
    agent.log_seal()
    agent.sent(agent.flush(4))
    assert ask(agent, request).content == first.envelope
    assert agent.status()["continuations"] == 1


def test_the_same_request_at_once_is_granted_once(agent: HandBuiltAgent) -> None:
    request = make_request(agent, SigningKey.generate())
    with ThreadPoolExecutor(8) as pool:
        answers = set(pool.map(lambda _: ask(agent, request).content, range(8)))
    assert len(answers) == 1
    assert agent.status()["continuations"] == 1


def test_the_old_key_signs_nothing_new(agent: HandBuiltAgent) -> None:
    flush = agent.flush(0)
    receipt = agent.sent(flush)
    old_key = agent.key
    answer = go_on(agent)
    agent.log_receipt(receipt.checkpoint)
    agent.log_continuation(answer.digest)
    agent.log_step(4)
    refused = agent.send(agent.flush(4, key=old_key))
    assert is_problem(refused, 403, "KeyNotInForceError")
    assert "stop this one" in refused.json()["detail"]
    assert agent.status()["acknowledged_records"] == 4
    # What it signed before stays answered, and nobody else may sign that anew.
    assert agent.sent(flush) == receipt
    assert is_problem(agent.send(agent.flush(0, 4)), 403, "KeyNotInForceError")
    assert is_problem(
        agent.send(agent.flush(4, key=SigningKey.generate())), 422, "UnsignedNoteError"
    )


@pytest.mark.parametrize("missing", ["not named", "another named", "named twice", "too late"])
def test_the_log_names_its_continuation_at_once_and_once(
    agent: HandBuiltAgent, missing: str
) -> None:
    receipt = agent.sent(agent.flush(0))
    answer = go_on(agent)
    agent.log_receipt(receipt.checkpoint)
    if missing in ("not named", "too late"):
        agent.log_step(4)
    if missing != "not named":
        agent.log_continuation("cd" * 32 if missing == "another named" else answer.digest)
    if missing == "named twice":
        agent.log_continuation(answer.digest)
    assert is_problem(agent.send(agent.flush(4)), 422, "ContinuationRecordError")
    assert agent.status()["acknowledged_records"] == 4


def test_a_log_that_was_never_continued_names_no_continuation(agent: HandBuiltAgent) -> None:
    agent.log_continuation("cd" * 32)
    assert is_problem(agent.send(agent.flush(0)), 422, "ContinuationRecordError")


def test_the_first_flush_names_the_continuation(agent: HandBuiltAgent) -> None:
    """Were the next container to be lost in between, nothing would ever name this one."""
    receipt = agent.sent(agent.flush(0))
    answer = go_on(agent)
    agent.log_receipt(receipt.checkpoint)
    assert is_problem(agent.send(agent.flush(4)), 422, "ContinuationRecordError")
    agent.log_continuation(answer.digest)
    agent.sent(agent.flush(4))


def test_another_image_or_machine_is_refused(agent: HandBuiltAgent) -> None:
    """The other image is even on the order's list: a session keeps the one it began with."""
    other_machine = ENVIRONMENT.model_copy(update={"threads": 7})
    other_image = contained.contained_run(config=contained.OTHER_CONFIG_TEXT)
    open_root = contained.contained_run(described={"read_only_root": False})
    for changes, error in (
        ({"container": other_image}, "ContinuationImageError"),
        ({"environment": other_machine}, "ContinuationEnvironmentError"),
        ({"container": open_root}, "WritableRootError"),
        ({"grant_digest": "cd" * 32}, "ContinuationMismatchError"),
        ({"session_id": "another-session"}, "ContinuationMismatchError"),
        ({"session_key": "01" + "00" * 31}, "WeakKeyError"),
    ):
        request = make_request(agent, SigningKey.generate(), **changes)
        assert is_problem(ask(agent, request), 422, error)
    assert agent.status()["continuations"] == 0


def test_a_container_serves_a_session_once(agent: HandBuiltAgent) -> None:
    """Neither the first container nor a later one may come back as a fresh one."""
    second = fresh_container()
    granted(ask(agent, make_request(agent, SigningKey.generate(), container=second)))
    granted(ask(agent, make_request(agent, SigningKey.generate())))
    for used in (contained.contained_run(), second):
        request = make_request(agent, SigningKey.generate(), container=used)
        assert is_problem(ask(agent, request), 422, "ContainerReusedError")
    assert agent.status()["continuations"] == 2


def test_a_container_at_once_is_granted_once(agent: HandBuiltAgent) -> None:
    container = fresh_container()
    asked = [make_request(agent, SigningKey.generate(), container=container) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda request: ask(agent, request), asked))
    assert sorted(answer.status_code for answer in answers) == [201, 422, 422, 422]
    assert agent.status()["continuations"] == 1


def test_a_request_has_one_byte_form_only(agent: HandBuiltAgent) -> None:
    data = canonical.to_bytes(make_request(agent, SigningKey.generate()))
    spaced = agent.client.post(f"{agent.path}/continuations", data=data.replace(b":", b": ", 1))
    assert is_problem(spaced, 422, "InvalidDocumentError")


def test_a_request_without_end_is_not_read(agent: HandBuiltAgent) -> None:
    endless = agent.client.post(f"{agent.path}/continuations", data=b" " * 17_000_000)
    assert is_problem(endless, 413, "BodyTooLargeError")


def test_a_session_outside_a_container_keeps_its_key(live_server: LiveServer, order: str) -> None:
    agent = live_server.open_session(ORDER_ID, order)
    response = ask(agent, make_request(agent, SigningKey.generate()))
    assert is_problem(response, 422, "NotInContainerError")


def test_a_key_serves_once_among_all_sessions_and_containers(
    agent: HandBuiltAgent, live_server: LiveServer, order: str
) -> None:
    stranger = start(live_server, order)
    answer = go_on(stranger)
    continued = SigningKey.generate()
    for key in (agent.key.public.hex, stranger.grant.session_key, answer.continuation.session_key):
        request = make_request(agent, continued, session_key=key)
        assert is_problem(ask(agent, request), 409, "SessionKeyReusedError")
    # Nor may a session begin with the key of a container that went on in another one.
    body = opening(
        ORDER_ID, make_session_request(order, stranger.key, container=contained.contained_run())
    )
    assert is_problem(agent.client.post("/sessions", json=body), 409, "SessionKeyReusedError")


def test_a_key_of_another_session_signs_nothing_here(
    agent: HandBuiltAgent, live_server: LiveServer, order: str
) -> None:
    stranger = start(live_server, order)
    flush = agent.flush(0, key=stranger.key)
    assert is_problem(agent.send(flush), 422, "UnsignedNoteError")


def test_two_developers_do_not_continue_each_other_s_sessions(
    agent: HandBuiltAgent, live_server: LiveServer, order: str
) -> None:
    store = live_server.open_store()
    now = datetime.now(UTC)
    add_organisation(store, "continuing", "Continuing Ltd", now)
    token = tokens.issue(store, "developer", "continuing", now)
    store.close()
    other = Client(live_server.url, token)
    request = canonical.to_bytes(make_request(agent, SigningKey.generate()))
    refused = other.post(f"{agent.path}/continuations", data=request)
    assert is_problem(refused, 404, "SessionNotFoundError")
    # The request of one session, sent by its own developer to another of his: not that either.
    second = start(live_server, order)
    misled = second.client.post(f"{second.path}/continuations", data=request)
    assert is_problem(misled, 422, "ContinuationMismatchError")
    assert is_problem(
        live_server.client("compliance-officer").post(f"{agent.path}/continuations", data=request),
        403,
        "NotAllowedError",
    )
    assert is_problem(
        Client(live_server.url).post(f"{agent.path}/continuations", data=request),
        401,
        "NotAuthenticatedError",
    )
    assert agent.status()["continuations"] == second.status()["continuations"] == 0


def test_a_sealed_session_does_not_go_on(agent: HandBuiltAgent) -> None:
    agent.log_seal()
    agent.sent(agent.flush(0))
    response = ask(agent, make_request(agent, SigningKey.generate()))
    assert is_problem(response, 409, "SessionSealedError")


def test_an_expired_session_does_not_go_on(live_server: LiveServer) -> None:
    seconds = 2
    digest = live_server.add_order(
        "soon-over", most_session_hours=seconds / 3600, images=(contained.IMAGE,)
    )
    agent = start(live_server, digest, "soon-over")
    request = make_request(agent, SigningKey.generate())
    envelope = granted(ask(agent, request)).envelope
    time.sleep(max(0.0, (agent.grant.valid_until - datetime.now(UTC)).total_seconds()) + 0.1)
    refused = ask(agent, make_request(agent, SigningKey.generate()))
    assert is_problem(refused, 403, "SessionExpiredError")
    assert ask(agent, request).content == envelope


@pytest.mark.parametrize("revoked", ["grant", "continuation"])
def test_a_revoked_key_ends_the_session(own_server: LiveServer, revoked: str) -> None:
    own_server.start()
    agent = start(own_server, own_server.add_order(ORDER_ID, images=(contained.IMAGE,)))
    first_key = agent.key
    receipt = agent.sent(agent.flush(0))
    answer = go_on(agent)
    key = {"grant": first_key, "continuation": agent.key}[revoked]
    own_server.revoke(key.public.hex)

    agent.log_receipt(receipt.checkpoint)
    agent.log_continuation(answer.digest)
    assert is_problem(agent.send(agent.flush(4)), 403, "SessionExpiredError")
    again = ask(agent, make_request(agent, SigningKey.generate()))
    assert is_problem(again, 403, "SessionExpiredError")


def test_a_continuation_outlives_a_power_cut(own_server: LiveServer) -> None:
    own_server.start()
    agent = start(own_server, own_server.add_order(ORDER_ID, images=(contained.IMAGE,)))
    receipt = agent.sent(agent.flush(0))
    key = SigningKey.generate()
    request = make_request(agent, key)
    answer = granted(ask(agent, request))
    own_server.kill()

    own_server.start()
    agent.client = own_server.client("developer")
    assert ask(agent, request).content == answer.envelope
    agent.key = key
    agent.log_receipt(receipt.checkpoint)
    agent.log_continuation(answer.digest)
    agent.sent(agent.flush(4))


def test_a_flush_and_a_continuation_at_once_agree_on_the_log(
    live_server: LiveServer, order: str
) -> None:
    """The old container still sends while the new one asks: whoever is first, nothing is torn."""
    orders_of_events = {race(live_server, order) for _ in range(12)}
    assert orders_of_events <= {"flush first", "continuation first"}


def race(server: LiveServer, order: str) -> str:
    agent = start(server, order)
    receipt = agent.sent(agent.flush(0))
    agent.log_receipt(receipt.checkpoint)
    agent.log_step(4)
    last_flush = agent.flush(4)
    key = SigningKey.generate()
    request = make_request(agent, key)
    together = threading.Barrier(2)

    def at_once(send: Callable[[], requests.Response]) -> requests.Response:
        together.wait()
        return send()

    with ThreadPoolExecutor(2) as pool:
        flushing = pool.submit(at_once, lambda: agent.send(last_flush))
        asking = pool.submit(at_once, lambda: ask(agent, request))
    answer = granted(asking.result())
    size = answer.continuation.log_size
    flushed = flushing.result()
    if size == 6:
        assert flushed.status_code == 200, flushed.text
        receipt_text = flushed.json()["checkpoint"]
        outcome = "flush first"
    else:
        assert size == 4
        assert is_problem(flushed, 403, "KeyNotInForceError")
        del agent.lines[4:]
        receipt_text = receipt.checkpoint
        outcome = "continuation first"
    assert agent.status()["acknowledged_records"] == size
    agent.key = key
    agent.log_receipt(receipt_text)
    agent.log_continuation(answer.digest)
    agent.sent(agent.flush(size))
    bundle = read_bundle(agent.client.get(f"{agent.path}/bundle").content)
    assert list(bundle.records) == agent.lines
    sizes = [notes.parse_checkpoint(notes.parse(note).text).size for note in bundle.checkpoints]
    assert sizes[-2:] == [size, size + 2]
    return outcome
