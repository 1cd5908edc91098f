"""The agent's half of the protocol against the auditor's server, in a process of its own."""

import json
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from runs import record_seal, record_steps

from auditkit.evidence import dsse, trust
from auditkit.evidence.keys import SigningKey
from auditkit.evidence.trust_history import TrustHistory
from auditor_server.home import Home, create_home
from auditor_server.rotation import Changes, earliest_start, next_version
from developer_agent.client import ServerClient
from developer_agent.committer import Committer
from developer_agent.errors import CosignatureError, NotAuthorisedError, ServerRefusedError
from developer_agent.recorder import Recorder
from developer_agent.run_folder import RunFolder
from developer_agent.spool import Spool
from developer_agent.uplink import Uplink, sync
from schemas import TrustRoot
from tests.agent.real_server import Server, open_session, real_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with real_server(tmp_path_factory.mktemp("auditor")) as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path, server: Server) -> RunFolder:
    """A run whose session was granted and whose grant record is written."""
    folder = RunFolder.create(tmp_path / "run")
    open_session(server.client("developer"), folder, server)
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


def test_an_agent_follows_the_auditors_new_keys_while_its_session_runs(tmp_path: Path) -> None:
    with real_server(tmp_path) as server:
        client, folder = server.client("developer"), RunFolder.create(tmp_path / "run")
        open_session(client, folder, server)
        first = trust.open_trust_root(client.trust_root(), datetime.now(UTC))
        with Spool.open(folder.spool_path) as spool:
            with Committer.open(folder, spool, client, first) as committer:
                committer.commit_next()
                second = rotate_cosigner(server.home)
                time.sleep(max(0.0, (second.issued_at - datetime.now(UTC)).total_seconds() + 0.1))
                record_steps(Recorder(spool), 1, 3)
                assert committer.commit_next()
            # A later process of the same run knows them as well.
            with Committer.open(folder, spool, client, first) as committer:
                assert committer.acknowledged == 4
        stored = TrustHistory.of(first).joined(
            [path.read_bytes() for path in sorted(folder.trust_roots.iterdir())]
        )
        assert stored.current == second


def test_an_agent_does_not_follow_keys_that_nobody_it_trusts_has_signed(tmp_path: Path) -> None:
    with real_server(tmp_path) as server:
        client, folder = server.client("developer"), RunFolder.create(tmp_path / "run")
        open_session(client, folder, server)
        first = trust.open_trust_root(client.trust_root(), datetime.now(UTC))
        # The server's machine is taken over, and its new root key has signed for itself alone.
        impostor = create_home(
            tmp_path / "impostor", first.auditor, first.origin, datetime.now(UTC)
        )
        rotate_cosigner(impostor)
        for name in ("keys", "trust-root.versions"):
            shutil.rmtree(server.home.path / name, ignore_errors=True)
            shutil.copytree(impostor.path / name, server.home.path / name)
        shutil.copy(impostor.path / "trust-root.json", server.home.path / "trust-root.json")
        with (
            Spool.open(folder.spool_path) as spool,
            Committer.open(folder, spool, client, first) as committer,
            pytest.raises(CosignatureError),
        ):
            committer.commit_next()
        assert not folder.trust_roots.exists()


def rotate_cosigner(home: Home) -> TrustRoot:
    """Put the next version in force, with another cosigner's key."""
    now, key = datetime.now(UTC), SigningKey.generate()
    root = next_version(
        home.history(),
        Changes(new_keys={"cosigner": key.public}),
        starts=earliest_start(now),
        lifetime=timedelta(days=30),
    )
    home.add_key("cosigner", key)
    home.install([trust.sign_trust_root(root, [home.signing_key("root")]).to_bytes()], now)
    return root


def test_without_a_good_token_nothing_is_told(server: Server) -> None:
    with pytest.raises(NotAuthorisedError, match="token"):
        ServerClient(server.url, "developer-0.wrong").sessions()
