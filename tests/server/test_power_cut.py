"""Whatever the server has committed is never lost, and never doubled."""

from pathlib import Path

import pytest
import requests
from live import LiveServer

DYING_SERVER = str(Path(__file__).parent / "dies_before_cosigning.py")


def test_a_flush_committed_and_not_cosigned_is_cosigned_later(own_server: LiveServer) -> None:
    own_server.module = (DYING_SERVER,)
    own_server.start()
    agent = own_server.open_session("digits", own_server.add_order("digits"))
    agent.log_grant()
    agent.log_step(1)
    flush = agent.flush(0)
    with pytest.raises(requests.ConnectionError):
        agent.send(flush)
    assert own_server.process.wait(timeout=30) < 0

    own_server.module = ("-m", "auditor_server")
    own_server.start()
    agent.client = own_server.client("developer")
    assert agent.status()["acknowledged_records"] == 2
    assert agent.status()["last_cosigned_at"] is None
    receipt = agent.sent(flush)
    assert agent.sent(flush) == receipt
    agent.log_receipt(receipt.checkpoint)
    agent.sent(agent.flush(2))
    assert agent.status()["acknowledged_records"] == 3
