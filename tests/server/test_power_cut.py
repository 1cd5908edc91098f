"""Whatever the server has committed is never lost, and never doubled."""

import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
import requests
from hand_built import ENVIRONMENT, HandBuiltAgent
from live import LiveServer

from auditkit.evidence import canonical
from auditkit.evidence.bundle import read_bundle
from auditkit.evidence.keys import SigningKey
from schemas import AppendRequest, ContinuationRequest
from tests.evidence import contained

DYING_SERVER = str(Path(__file__).parent / "dies_before_cosigning.py")


def lose_power_after_commit(
    server: LiveServer, agent: HandBuiltAgent, flush: AppendRequest
) -> None:
    """The dying server commits a flush, does not answer, and comes back as one that lives."""
    with pytest.raises(requests.ConnectionError):
        agent.send(flush)
    assert server.process.wait(timeout=30) < 0
    server.module = ("-m", "auditor_server")
    server.start()
    agent.client = server.client("developer")


def test_a_flush_committed_and_not_cosigned_is_cosigned_later(own_server: LiveServer) -> None:
    own_server.module = (DYING_SERVER,)
    own_server.start()
    agent = own_server.open_session("digits", own_server.add_order("digits"))
    agent.log_grant()
    agent.log_step(1)
    flush = agent.flush(0)
    lose_power_after_commit(own_server, agent, flush)
    assert agent.status()["acknowledged_records"] == 2
    assert agent.status()["last_cosigned_at"] is None
    receipt = agent.sent(flush)
    assert agent.sent(flush) == receipt
    agent.log_receipt(receipt.checkpoint)
    agent.sent(agent.flush(2))
    assert agent.status()["acknowledged_records"] == 3


def test_an_agent_that_repeats_itself_outlives_a_kill_at_any_moment(
    own_server: LiveServer,
) -> None:
    own_server.start()
    agent = own_server.open_session("digits", own_server.add_order("digits"))
    agent.log_grant()
    acknowledged = 0
    flush = first_flush = agent.flush(0)
    first_receipt = agent.sent(first_flush)

    def send_one() -> None:
        nonlocal acknowledged, flush
        receipt = agent.sent(flush)
        acknowledged = len(agent.lines)
        agent.log_receipt(receipt.checkpoint)
        agent.log_step(acknowledged)
        flush = agent.flush(acknowledged)

    def send_for_ever() -> None:
        while True:
            send_one()

    for _ in range(5):
        send_one()
    killer = threading.Timer(0.2, own_server.process.kill)
    killer.start()
    with pytest.raises(requests.RequestException):
        send_for_ever()
    killer.join()
    own_server.process.wait(timeout=30)

    own_server.start()
    agent.client = own_server.client("developer")
    stored = agent.status()["acknowledged_records"]
    assert stored in (acknowledged, len(agent.lines))  # the open flush is there in full or not
    assert agent.sent(first_flush) == first_receipt
    for _ in range(3):
        send_one()
    assert agent.status()["acknowledged_records"] == acknowledged
    bundle = read_bundle(agent.client.get(f"{agent.path}/bundle").content)
    assert list(bundle.records) == agent.lines[:acknowledged]


def test_a_log_is_cosigned_to_its_end_before_it_goes_on_elsewhere(own_server: LiveServer) -> None:
    own_server.module = (DYING_SERVER,)
    own_server.start()
    digest = own_server.add_order("closed", images=(contained.IMAGE,))
    agent = own_server.open_session("closed", digest, container=contained.contained_run())
    agent.log_grant(image_digest=contained.IMAGE, mode="container")
    flush = agent.flush(0)
    lose_power_after_commit(own_server, agent, flush)
    request = ContinuationRequest(
        session_id=agent.grant.session_id,
        grant_digest=agent.grant_digest,
        container=contained.contained_run(2),
        session_key=SigningKey.generate().public.hex,
        environment=ENVIRONMENT,
        requested_at=datetime.now(UTC),
    )
    path = f"{agent.path}/continuations"
    answer = agent.client.post(path, data=canonical.to_bytes(request))
    assert answer.status_code == 201
    assert agent.status()["last_cosigned_at"] is not None
    bundle = read_bundle(agent.client.get(f"{agent.path}/bundle").content)
    assert bundle.checkpoints == (agent.sent(flush).checkpoint.encode(),)
