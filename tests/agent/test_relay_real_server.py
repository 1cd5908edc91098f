"""A session through the relay, to the auditor's server in a process of its own."""

import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from relay_world import exchange, problem_of
from runs import record_seal, record_steps

from auditkit.evidence import dsse, trust
from developer_agent.client import ServerClient
from developer_agent.committer import Committer
from developer_agent.errors import NotAuthorisedError, ServerRefusedError
from developer_agent.recorder import Recorder
from developer_agent.relay import Relay
from developer_agent.run_folder import RunFolder
from developer_agent.spool import Spool
from developer_agent.uplink import Uplink
from tests.agent.real_server import ORDER, Server, open_session, real_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with real_server(tmp_path_factory.mktemp("auditor")) as server:
        yield server


@pytest.fixture
def relay(server: Server) -> Iterator[Relay]:
    with (
        tempfile.TemporaryDirectory(prefix="auditkit-") as folder,
        Relay(
            Path(folder),
            server_url=server.url,
            token=server.home.tokens["developer"],
            order_id=ORDER,
        ) as relay,
    ):
        yield relay


def test_a_session_from_its_order_to_its_end(server: Server, relay: Relay, tmp_path: Path) -> None:
    def inside() -> ServerClient:
        return ServerClient("http://relay", socket=relay.socket)

    with ServerClient(server.url) as outside:
        trust_root = trust.open_trust_root(outside.trust_root(), datetime.now(UTC))
    folder = RunFolder.create(tmp_path / "run")
    client = inside()
    assert dsse.Envelope.from_bytes(client.order(ORDER)).payload
    session_id = open_session(client, folder, server)
    assert relay.session_id == session_id
    with folder.lock(), Spool.open(folder.spool_path) as spool:
        committer = Committer.open(folder, spool, inside(), trust_root)
        with Uplink(committer, spool) as uplink:
            record_steps(Recorder(spool), 1, 50)
            assert uplink.drain(60) == 0
            record_seal(Recorder(spool), 50)
            assert uplink.drain(60) == 0
    assert client.status(session_id).state == "sealed"
    # These are judged by the server: its own refusals come back.
    for name in ("weights", "description", "scores"):
        (tmp_path / name).write_bytes(b"{}")
    for call in (
        lambda: client.submit(
            session_id, tmp_path / "weights", tmp_path / "description", tmp_path / "scores"
        ),
        lambda: client.continue_session(session_id, b"{}"),
        lambda: client.membership_codes(session_id, b"{}"),
    ):
        with pytest.raises(ServerRefusedError) as caught:
            call()
        assert 400 <= caught.value.status < 500
        assert caught.value.error_name not in {"RelayRefusedError", ""}
    assert client.verification(session_id).findings
    client.close()


def test_the_developers_other_sessions_are_out_of_reach(
    server: Server, relay: Relay, tmp_path: Path
) -> None:
    """The token opens them all, and the relay none but its own."""
    with ServerClient(server.url, server.home.tokens["developer"]) as direct:
        other = open_session(direct, RunFolder.create(tmp_path / "other"), server)
        assert direct.status(other).state == "open"
    with ServerClient("http://relay", socket=relay.socket) as client:
        own = open_session(client, RunFolder.create(tmp_path / "own"), server)
        assert client.status(own).state == "open"
        for call in (client.status, client.verification):
            with pytest.raises(ServerRefusedError, match="RelayRefusedError"):
                call(other)
        with pytest.raises(ServerRefusedError, match="RelayRefusedError"):
            client.sessions()
    line = f"GET /v1/sessions/{own}/../{other} HTTP/1.1\r\n\r\n"
    assert problem_of(exchange(relay.socket, line.encode()))["status"] == 403


def test_a_token_that_the_server_refuses_is_named_as_the_trouble(server: Server) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="auditkit-") as folder,
        Relay(
            Path(folder), server_url=server.url, token="developer-0.wrong", order_id=ORDER
        ) as relay,
        ServerClient("http://relay", socket=relay.socket) as client,
        pytest.raises(NotAuthorisedError, match="token"),
    ):
        client.order(ORDER)
