"""The agent's half of the protocol against the auditor's server, in a process of its own."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from runs import ENVIRONMENT, record_seal, record_steps

from auditkit.evidence import canonical, dsse, merkle, statements, trust
from auditkit.evidence.keys import SigningKey
from auditor_server.home import Home, create_home
from developer_agent.client import ServerClient
from developer_agent.committer import Committer
from developer_agent.errors import NotAuthorisedError, ServerRefusedError
from developer_agent.recorder import Recorder
from developer_agent.run_folder import RunFolder
from developer_agent.spool import Spool
from developer_agent.uplink import Uplink, sync
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

    def client(self, role: str) -> ServerClient:
        return ServerClient(self.url, self.home.tokens[role])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("auditor") / "home"
    home = create_home(folder, "The Auditor", "audit.example.org", datetime.now(UTC))
    command = [sys.executable, "-m", "auditor_server", "--home", str(folder), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        yield Server(home, f"http://{ready['host']}:{ready['port']}")
        process.terminate()


@pytest.fixture(scope="module")
def order_digest(server: Server) -> str:
    now = datetime.now(UTC)
    order = AuditOrder(
        order_id="digits-2026",
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
    envelope = dsse.sign(payload, [server.home.signing_key("order")])
    server.client("auditor").publish_order(envelope.to_bytes())
    return canonical.sha256_hex(payload)


def commitment(leaves: list[bytes]) -> SampleCommitment:
    return SampleCommitment(root=merkle.root(leaves).hex(), size=len(leaves))


@pytest.fixture
def folder(tmp_path: Path, server: Server, order_digest: str) -> RunFolder:
    """A run whose session was granted and whose grant record is written."""
    folder = RunFolder.create(tmp_path / "run")
    key = SigningKey.generate()
    folder.session_key.write(key.to_pem())
    request = SessionRequest(
        order_digest=order_digest,
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
    client = server.client("developer")
    grant = client.open_session(
        "digits-2026", folder.request.read(), b"".join(POOL), b"".join(TEST)
    )
    folder.grant.write(grant)
    with Spool.open(folder.spool_path) as spool:
        Recorder(spool).record(
            GrantRecord,
            grant_digest=canonical.sha256_hex(dsse.Envelope.from_bytes(grant).payload),
            code_digest="b" * 64,
            image_digest=None,
            mode="process",
            environment=ENVIRONMENT,
        )
    return folder


def session_of(folder: RunFolder) -> str:
    payload = dsse.Envelope.from_bytes(folder.grant.read()).payload
    return str(json.loads(payload)["predicate"]["session_id"])


def test_a_run_is_streamed_broken_off_and_finished_later(server: Server, folder: RunFolder) -> None:
    client = server.client("developer")
    assert client.healthy()
    trust_root = trust.open_trust_root(client.trust_root(), datetime.now(UTC))
    with folder.lock(), Spool.open(folder.spool_path) as spool:
        recorder = Recorder(spool)
        for step in (1, 11, 21):
            committer = Committer.open(folder, spool, client, trust_root)
            with Uplink(committer, spool) as uplink:
                record_steps(recorder, step, 10)
                assert uplink.drain(30) == 0
        record_seal(recorder, 30)
    status = client.status(session_of(folder))
    flushes = len(folder.checkpoints_path.read_bytes().splitlines())
    assert (status.state, status.step) == ("open", 30)
    assert status.acknowledged_records == 31 + flushes - 1
    result = sync(folder, server.client("developer"), trust_root)
    assert (result.sent, result.sealed, result.log_size) == (1, True, 32 + flushes)
    status = client.status(session_of(folder))
    assert (status.state, status.acknowledged_records) == ("sealed", 32 + flushes)
    assert status in client.sessions()
    assert [order["order_id"] for order in client.orders()] == ["digits-2026"]


def test_the_server_recognises_a_flush_that_it_has_already(
    server: Server, folder: RunFolder
) -> None:
    client = server.client("developer")
    trust_root = trust.open_trust_root(client.trust_root(), datetime.now(UTC))
    with Spool.open(folder.spool_path) as spool:
        with Committer.open(folder, spool, client, trust_root) as committer:
            record_steps(Recorder(spool), 1, 3)
            committer.commit_next()
            answered = folder.checkpoints_path.read_bytes()
            signed = answered.split(b"\\n\\n")[0]
        # As after a crash between the answer and its storing: the flush is pending still.
        note = json.loads(answered)
        folder.pending.write(note[: note.rindex("\n—") + 1].encode())
        folder.checkpoints_path.write_bytes(b"")
        with Committer.open(folder, spool, client, trust_root) as committer:
            assert committer.acknowledged == 0
            assert committer.commit_next()
            assert committer.acknowledged == 4
    assert folder.checkpoints_path.read_bytes() == answered
    assert signed in answered


def test_a_second_history_is_refused_for_good(server: Server, folder: RunFolder) -> None:
    client = server.client("developer")
    trust_root = trust.open_trust_root(client.trust_root(), datetime.now(UTC))
    with Spool.open(folder.spool_path) as spool:
        with Committer.open(folder, spool, client, trust_root) as committer:
            committer.commit_next()
        for path in (folder.checkpoints_path, folder.records_path):
            path.write_bytes(b"")
        record_steps(Recorder(spool), 1, 1)
        with (
            Committer.open(folder, spool, client, trust_root) as committer,
            pytest.raises(ServerRefusedError, match="ForkError") as caught,
        ):
            committer.commit_next()
        assert not caught.value.temporary


def test_without_a_good_token_nothing_is_told(server: Server) -> None:
    with pytest.raises(NotAuthorisedError, match="token"):
        ServerClient(server.url, "developer-0.wrong").sessions()
    with pytest.raises(NotAuthorisedError, match="token"):
        server.client("developer").publish_order(b"{}")
