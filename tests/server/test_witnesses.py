"""The auditor's server asks real witnesses, in the background, and its evidence shows them."""

import shutil
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import pytest
from hand_built import HandBuiltAgent, is_problem, make_order, sign_order
from live import LiveServer
from live_witness import LiveWitness, make_witness

from auditkit.evidence import notes
from auditkit.evidence.bundle import Bundle, read_bundle
from auditkit.evidence.keys import SigningKey
from auditkit.evidence.trust import open_trust_root
from auditkit.evidence.verify import verify_bundle
from auditkit.evidence.witnessing import AddCheckpoint, Cosignature
from auditor_server.context import Auditor
from auditor_server.errors import HomeError
from auditor_server.home import Home
from auditor_server.settings import ServerSettings
from auditor_server.witness.home import FollowedLog
from auditor_server.witness_client import WitnessClient
from auditor_server.witnesses import WITNESSES_FILE, Witnesses, read_endpoints
from schemas import Finding, WitnessPolicy

CHECK = "checkpoints-witnessed"
# Far beyond what any of it takes; only a failure ever waits as long.
PATIENCE_SECONDS = 120.0


@dataclass
class World:
    """An auditor's server, and three witnesses that follow it. Nothing is started yet."""

    server: LiveServer
    witnesses: tuple[LiveWitness, ...]

    def start(self, *numbers: int) -> None:
        """Start these witnesses, then the server that asks all three."""
        for number in numbers:
            self.witnesses[number].start()
        self.list_witnesses(*(witness.url for witness in self.witnesses))
        self.server.start()

    def list_witnesses(self, *urls: str) -> None:
        listed = "".join(
            f'[[witness]]\nurl = "{url}"\nkey = "{witness.key.encode()}"\n\n'
            for witness, url in zip(self.witnesses, urls, strict=True)
        )
        (self.server.home.path / WITNESSES_FILE).write_text(listed)

    def policy(self, threshold: int) -> WitnessPolicy:
        keys = tuple(witness.key.encode() for witness in self.witnesses)
        return WitnessPolicy(keys=keys, threshold=threshold)

    def session(self, threshold: int = 2) -> HandBuiltAgent:
        digest = self.server.add_order("watched", witnesses=self.policy(threshold))
        return self.server.open_session("watched", digest)

    def names(self, note: bytes) -> set[str]:
        """Which witnesses have cosigned a note."""
        cosigner = f"{self.server.home.trust_root(datetime.now(UTC)).origin}/cosigner"
        found = {line.name for line in notes.parse(note).signatures}
        return {name for name in found if name.startswith("w") and name != cosigner}


@pytest.fixture
def world(own_server: LiveServer, tmp_path: Path) -> Iterator[World]:
    root = own_server.home.trust_root(datetime.now(UTC))
    made = World(
        own_server,
        tuple(
            make_witness(tmp_path / name, f"{name}.example.org", [FollowedLog.of_auditor(root)])
            for name in ("w1", "w2", "w3")
        ),
    )
    # A port of its own for each, so that one which is started later is found where it was listed.
    for witness in made.witnesses:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            witness.port = taken.getsockname()[1]
    yield made
    if hasattr(own_server, "process") and own_server.process.poll() is None:
        own_server.stop()
    for witness in made.witnesses:
        witness.stop()


def run(agent: HandBuiltAgent, flushes: int = 3) -> list[bytes]:
    """A whole log in a few flushes; returns its receipts."""
    receipts: list[bytes] = []
    first = 0
    for number in range(flushes):
        if number == 0:
            agent.log_grant()
        else:
            agent.log_receipt(receipts[-1].decode())
        agent.log_step(number + 1)
        if number == flushes - 1:
            agent.log_seal()
        receipts.append(agent.sent(agent.flush(first)).checkpoint.encode())
        first = len(agent.lines)
    return receipts


def exported(agent: HandBuiltAgent) -> Bundle:
    response = agent.client.get(f"{agent.path}/bundle")
    assert response.status_code == 200, response.text
    return read_bundle(BytesIO(response.content))


def finding(home: Home, bundle: Bundle) -> Finding:
    root = open_trust_root(home.trust_root_bytes, datetime.now(UTC))
    report = verify_bundle(bundle, root, now=datetime.now(UTC))
    return next(found for found in report.findings if found.check == CHECK)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.2)


def test_three_witnesses_cosign_and_no_receipt_changes(world: World) -> None:
    world.start(0, 1, 2)
    agent = world.session()
    receipts = run(agent)
    wait_for(lambda: len(world.names(list(exported(agent).checkpoints)[-1])) == 3)
    bundle = exported(agent)
    *earlier, last = bundle.checkpoints
    assert earlier == receipts[:-1]
    assert last.startswith(receipts[-1])
    assert agent.sent(agent.flush(len(agent.lines) - 3)).checkpoint.encode() == receipts[-1]
    found = finding(world.server.home, bundle)
    assert found.outcome == "passed", found.detail
    assert all(f"w{number}.example.org" in found.detail for number in (1, 2, 3))
    for witness in world.witnesses:
        assert witness.latest_size(agent.grant.origin) == len(agent.lines)

    def registry_witnessed() -> bool:
        note = exported(agent).registry_checkpoint
        return note is not None and len(world.names(note)) == 3

    wait_for(registry_witnessed)


def test_a_dead_witness_and_a_slow_one_keep_no_agent_waiting(world: World) -> None:
    """The slow one takes connections and never answers; every flush is acknowledged meanwhile."""
    world.witnesses[0].start()
    accepted: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as tarpit:

        def hold() -> None:
            while True:
                try:
                    accepted.append(tarpit.accept()[0])
                except OSError:
                    return

        threading.Thread(target=hold, daemon=True).start()
        dead = "http://127.0.0.1:9"
        slow = f"http://127.0.0.1:{tarpit.getsockname()[1]}"
        world.list_witnesses(world.witnesses[0].url, dead, slow)
        world.server.start()
        agent = world.session()
        agent.log_grant()
        receipt = agent.sent(agent.flush(0))
        wait_for(lambda: bool(accepted))
        for step in range(1, 6):
            first = len(agent.lines)
            agent.log_receipt(receipt.checkpoint)
            agent.log_step(step)
            receipt = agent.sent(agent.flush(first))
        assert agent.status()["acknowledged_records"] == 11
        wait_for(lambda: world.witnesses[0].latest_size(agent.grant.origin) == 11)
        bundle = exported(agent)
        assert world.names(list(bundle.checkpoints)[-1]) == {"w1.example.org"}
        found = finding(world.server.home, bundle)
        assert (found.outcome, found.error) == ("failed", "WitnessQuorumError")
    for connection in accepted:
        connection.close()


def test_a_witness_that_comes_back_late_gets_what_it_has_missed(world: World) -> None:
    world.start(0)
    agent = world.session()
    run(agent)
    wait_for(lambda: world.witnesses[0].latest_size(agent.grant.origin) == len(agent.lines))
    assert finding(world.server.home, exported(agent)).error == "WitnessQuorumError"
    world.witnesses[1].start()
    wait_for(lambda: finding(world.server.home, exported(agent)).outcome == "passed")


def test_a_server_that_has_forgotten_asks_from_where_the_witness_stands(world: World) -> None:
    world.start(0, 1)
    agent = world.session()
    agent.log_grant()
    agent.log_step(1)
    receipt = agent.sent(agent.flush(0))
    watching = world.witnesses[:2]
    origin = agent.grant.origin
    wait_for(lambda: all(witness.latest_size(origin) == 2 for witness in watching))
    world.server.stop()
    with closing(sqlite3.connect(world.server.home.path / "auditor.sqlite3")) as database:
        database.execute("DELETE FROM witnessings")
        database.commit()
    world.server.start()
    agent.client = world.server.client("developer")
    # What it has no line for is cosigned again at the same size, then the log goes on.
    wait_for(lambda: finding(world.server.home, exported(agent)).outcome == "passed")
    agent.log_receipt(receipt.checkpoint)
    agent.log_step(2)
    agent.sent(agent.flush(2))
    wait_for(lambda: all(witness.latest_size(origin) == 4 for witness in watching))
    assert finding(world.server.home, exported(agent)).outcome == "passed"


def test_a_witness_whose_state_was_set_back_is_not_asked_any_more(world: World) -> None:
    world.start(0, 1)
    path = world.witnesses[0].path
    world.witnesses[0].stop()
    shutil.copy(path / "state.sqlite3", path.with_suffix(".backup"))
    world.witnesses[0].start()
    agent = world.session()
    agent.log_grant()
    receipt = agent.sent(agent.flush(0))
    origin = agent.grant.origin
    wait_for(lambda: finding(world.server.home, exported(agent)).outcome == "passed")
    world.witnesses[0].stop()
    for file in path.glob("state.sqlite3*"):
        file.unlink()
    shutil.copy(path.with_suffix(".backup"), path / "state.sqlite3")
    world.witnesses[0].start()
    agent.log_receipt(receipt.checkpoint)
    agent.log_step(1)
    agent.sent(agent.flush(1))
    wait_for(lambda: world.witnesses[1].latest_size(origin) == 3)
    found = finding(world.server.home, exported(agent))
    assert (found.outcome, found.error) == ("failed", "WitnessQuorumError")
    assert world.witnesses[0].latest_size(origin) == 0


def test_an_order_is_filed_with_sound_and_listed_witnesses_only(world: World) -> None:
    world.list_witnesses(*("http://127.0.0.1:9" for _ in world.witnesses))
    world.server.start()
    home, now = world.server.home, datetime.now(UTC)
    listed = world.policy(2).keys
    stranger = notes.VerifierKey.cosignature("s.example.org", SigningKey.generate().public)
    auditor = notes.VerifierKey.cosignature("a.example.org", home.signing_key("cosigner").public)
    for number, (keys, threshold, error) in enumerate(
        (
            (listed, 1, "WitnessPolicyError"),
            ((*listed[:2], listed[0]), 2, "WitnessPolicyError"),
            ((*listed[:2], auditor.encode()), 2, "WitnessPolicyError"),
            ((listed[0], stranger.encode()), 2, "WitnessNotConfiguredError"),
        )
    ):
        policy = WitnessPolicy(keys=keys, threshold=threshold)
        envelope = sign_order(home, make_order(f"order-{number}", now, witnesses=policy))
        response = world.server.client("auditor").post("/orders", data=envelope.to_bytes())
        assert is_problem(response, 422, error)
    world.server.add_order("good", witnesses=WitnessPolicy(keys=listed, threshold=3))


@pytest.mark.parametrize(
    "text",
    [
        "witness = 1",
        "[[witness]]\nurl = 'http://w'",
        "[[witness]]\nurl = 'ftp://w'\nkey = 'w+00000000+AA'",
        "[[witness]]\nurl = 'http://w'\nkey = 'no key'",
        "[[witnesses]]\nurl = 'http://w'",
        "not toml",
    ],
)
def test_a_list_of_witnesses_that_cannot_be_used_stops_the_server(
    tmp_path: Path, text: str
) -> None:
    assert read_endpoints(tmp_path) == ()
    (tmp_path / WITNESSES_FILE).write_text(text)
    with pytest.raises(HomeError, match=WITNESSES_FILE):
        read_endpoints(tmp_path)


class NotingClient(WitnessClient):
    """Asks a real witness, and notes what it asked."""

    def __init__(self, witness: LiveWitness, asked: list[bytes]) -> None:
        super().__init__(witness.url, witness.key)
        self._asked = asked

    def add_checkpoint(self, request: AddCheckpoint) -> Cosignature:
        self._asked.append(request.to_bytes())
        return super().add_checkpoint(request)


def test_several_workers_ask_a_witness_once(world: World) -> None:
    world.witnesses[0].start()
    world.server.start()
    agent = world.server.open_session("plain", world.server.add_order("plain"))
    asked: list[bytes] = []
    workers = []
    for _ in range(4):
        auditor = Auditor.open(ServerSettings(home=world.server.home.path))
        workers.append(Witnesses(auditor, [NotingClient(world.witnesses[0], asked)]))
    for worker in workers:
        worker.start()
    run(agent, 2)
    for worker in workers:
        worker.notify(agent.grant.session_id)
    wait_for(lambda: world.names(exported(agent).registry_checkpoint or b"") == {"w1.example.org"})
    for worker in workers:
        worker.stop()
    assert len(set(asked)) == len(asked)
