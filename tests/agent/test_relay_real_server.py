"""A session through the relay, to the auditor's server in a process of its own."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from relay_world import ORDER, exchange, problem_of
from runs import ENVIRONMENT, record_seal, record_steps

from auditkit.evidence import canonical, dsse, merkle, statements, trust
from auditkit.evidence.keys import SigningKey
from auditor_server.home import Home, create_home
from developer_agent.client import ServerClient
from developer_agent.committer import Committer
from developer_agent.errors import NotAuthorisedError, ServerRefusedError
from developer_agent.recorder import Recorder
from developer_agent.relay import Relay
from developer_agent.run_folder import RunFolder
from developer_agent.spool import Spool
from developer_agent.uplink import Uplink
from schemas import (
    AuditOrder,
    GrantRecord,
    ModelConfig,
    OptimiserConfig,
    SampleCommitment,
    SessionRequest,
    SplitFractions,
    TrainingConfig,
)

DEVELOPER = "Example Imaging Ltd"
POOL = [bytes([index]) * 32 for index in range(64)]
TEST = [bytes([index + 100]) * 32 for index in range(8)]
CONFIG = TrainingConfig(
    name="digits",
    model=ModelConfig(architecture="resnet18", classes=10, channels=1, height=8, width=8),
    optimiser=OptimiserConfig(learning_rate=0.1),
    epochs=2,
    batch_size=16,
    external_batch_size=4,
)


@dataclass(frozen=True)
class Server:
    home: Home
    url: str
    order_digest: str


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("auditor") / "home"
    home = create_home(folder, "The Auditor", "audit.example.org", datetime.now(UTC))
    now = datetime.now(UTC)
    order = AuditOrder(
        order_id=ORDER,
        auditor="The Auditor",
        developer=DEVELOPER,
        purpose="check a classifier of handwritten digits",
        issued_at=now,
        expires_at=now + timedelta(days=30),
        split=SplitFractions(external=0.25, calibration=0.25),
        least_calibration_samples=10,
        allow_without_container=True,
    )
    subject = statements.subject("order", order.order_id, order)
    payload = statements.make(statements.ORDER_PREDICATE, order, subject)
    command = [sys.executable, "-m", "auditor_server", "--home", str(folder), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        url = f"http://{ready['host']}:{ready['port']}"
        with ServerClient(url, home.tokens["auditor"]) as auditor:
            auditor.publish_order(dsse.sign(payload, [home.signing_key("order")]).to_bytes())
        yield Server(home, url, canonical.sha256_hex(payload))
        process.terminate()


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


def commitment(leaves: list[bytes]) -> SampleCommitment:
    return SampleCommitment(root=merkle.root(leaves).hex(), size=len(leaves))


def open_session(client: ServerClient, folder: RunFolder, server: Server) -> str:
    """What the agent inside does first; returns the session's identifier."""
    key = SigningKey.generate()
    folder.session_key.write(key.to_pem())
    request = SessionRequest(
        order_digest=server.order_digest,
        developer=DEVELOPER,
        config=CONFIG,
        code_digest="b" * 64,
        pool=commitment(POOL),
        test=commitment(TEST),
        session_key=key.public.hex,
        environment=ENVIRONMENT,
        requested_at=datetime.now(UTC),
    )
    folder.request.write(canonical.to_bytes(request))
    opening = (ORDER, folder.request.read(), b"".join(POOL), b"".join(TEST))
    grant = client.open_session(*opening)
    assert client.open_session(*opening) == grant, "asked again, as after a lost answer"
    folder.grant.write(grant)
    payload = dsse.Envelope.from_bytes(grant).payload
    with Spool.open(folder.spool_path) as spool:
        Recorder(spool).record(
            GrantRecord,
            grant_digest=canonical.sha256_hex(payload),
            code_digest="b" * 64,
            image_digest=None,
            mode="process",
            environment=ENVIRONMENT,
        )
    return str(json.loads(payload)["predicate"]["session_id"])


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
