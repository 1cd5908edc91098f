"""The server as an institution runs it: PostgreSQL with four workers, and SQLite with one."""

import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import pytest
import requests
from hand_built import HandBuiltAgent, is_problem
from live import Browser, LiveServer, make_home
from pydantic import SecretStr

from auditkit.evidence import merkle, notes
from auditkit.evidence.bundle import read_bundle
from auditkit.evidence.keys import PublicKey
from auditkit.evidence.verify import COSIGNER_SUFFIX
from auditor_server.__main__ import main
from auditor_server.app import prepare
from auditor_server.errors import DatabaseInUseError
from auditor_server.home import DATABASE_FILE, Home
from auditor_server.settings import ServerSettings
from schemas import AppendReceipt, AppendRequest, RegistryEntries

SESSIONS = 50
ROUNDS = 3
STEPS_PER_FLUSH = 3
MONITORS = 2
READERS = 20
# A person looks at a page before turning to the next.
LOOK_SECONDS = 0.5
# Time for processes to end or to be replaced, far beyond what they take.
PATIENCE_SECONDS = 60
POLL_SECONDS = 0.1
SERVICES = [("sqlite", 1), ("postgresql", 4)]


@pytest.fixture(params=SERVICES, ids=lambda service: f"{service[0]}-{service[1]}")
def service(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LiveServer]:
    kind, workers = request.param
    url = None
    if kind == "postgresql":
        make: Callable[[], str] = request.getfixturevalue("new_postgresql_database")
        url = make()
    server = LiveServer(make_home(tmp_path, url), database_url=url, workers=workers)
    assert (server.home.path / DATABASE_FILE).exists() == (url is None)
    server.start()
    yield server
    if server.process.poll() is None:
        server.stop()


@pytest.fixture
def workers_server(tmp_path: Path) -> Iterator[LiveServer]:
    server = LiveServer(make_home(tmp_path), workers=2)
    server.start()
    yield server
    if server.process.poll() is None:
        server.stop()


def workers_of(server: LiveServer) -> set[int]:
    """The server's worker processes, apart from Python's own helper."""
    found = set()
    parent = server.process.pid
    for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        with suppress(FileNotFoundError, ProcessLookupError):
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.add(int(child))
    return found


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(POLL_SECONDS)


def is_gone(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def check_receipt(server: LiveServer, agent: HandBuiltAgent, cosigned: str, size: int) -> None:
    """Check that a receipt is cosigned, and over exactly the agent's records."""
    checkpoint = notes.parse_checkpoint(notes.parse(cosigned.encode()).text)
    assert (checkpoint.origin, checkpoint.size) == (agent.grant.origin, size)
    assert checkpoint.root == merkle.root(agent.lines[:size])
    history = server.home.history()
    (keyid,) = history.current.roles["cosigner"].keyids
    name = f"{history.current.origin}{COSIGNER_SUFFIX}"
    cosigner = PublicKey.from_hex(history.current.keys[keyid])
    keys = [
        notes.VerifierKey.ed25519(agent.grant.origin, agent.key.public),
        notes.VerifierKey.cosignature(name, cosigner),
    ]
    verified = notes.verify(cosigned.encode(), keys)
    assert len(verified.signatures) == len(keys)


def stream(server: LiveServer, agent: HandBuiltAgent, step: int = 0) -> list[str]:
    """Send a session's records in many flushes, each of them twice at once; return the receipts."""
    receipts: list[str] = []
    with ThreadPoolExecutor(2) as twice:
        for _ in range(ROUNDS):
            first = len(agent.lines)
            if receipts:
                agent.log_receipt(receipts[-1])
            elif not agent.lines:
                agent.log_grant()
            for _ in range(STEPS_PER_FLUSH):
                step += 1
                agent.log_step(step)
            flush = agent.flush(first)
            one, other = twice.map(agent.sent, [flush, flush])
            assert one == other
            check_receipt(server, agent, one.checkpoint, len(agent.lines))
            receipts.append(one.checkpoint)
    return receipts


def fork(agent: HandBuiltAgent) -> HandBuiltAgent:
    return HandBuiltAgent(
        agent.client, agent.grant, agent.grant_digest, agent.key, list(agent.lines)
    )


def race(server: LiveServer, agent: HandBuiltAgent) -> None:
    """Let two processes with one key write two histories of a session: one wins each time."""
    agent.log_grant()
    agent.sent(agent.flush(0))
    with ThreadPoolExecutor(2) as pool:
        for turn in range(ROUNDS):
            writers = [agent, fork(agent)]
            flushes: list[AppendRequest] = []
            for number, writer in enumerate(writers, start=1):
                writer.log_step(turn + 1, task_loss=float(number))
                flushes.append(writer.flush(len(writer.lines) - 1))
            answers = list(pool.map(agent.send, flushes))
            won = [answer.status_code == 200 for answer in answers]
            assert sum(won) == 1, [answer.text for answer in answers]
            assert is_problem(answers[won.index(False)], 409, "ForkError")
            agent.lines = writers[won.index(True)].lines
            receipt = AppendReceipt.from_bytes(answers[won.index(True)].content)
            check_receipt(server, agent, receipt.checkpoint, len(agent.lines))


def read_registry(server: LiveServer) -> list[bytes]:
    client, leaves = server.client(None), list[bytes]()
    while True:
        answer = client.get("/registry/entries", params={"start": len(leaves)})
        page = RegistryEntries.from_bytes(answer.content)
        leaves += [leaf.encode() for leaf in page.leaves]
        if len(leaves) == page.size:
            return leaves


def read_heads(server: LiveServer, stop: threading.Event) -> list[notes.Checkpoint]:
    """Ask for the registry's head again and again, as monitors do."""
    heads = []
    while not stop.is_set():
        answer = server.client(None).get("/registry/checkpoint")
        assert answer.status_code == 200, answer.text
        heads.append(notes.parse_checkpoint(notes.parse(answer.content).text))
        sizes = [head.size for head in heads]
        assert sizes == sorted(sizes)
        time.sleep(POLL_SECONDS)
    return heads


def read_pages(server: LiveServer, stop: threading.Event) -> int:
    """Turn the pages as a regulator does, of the sessions that come first at the moment."""
    browser, seen = Browser(server), 0
    browser.sign_in(server.home.tokens["auditor"])
    while not stop.is_set():
        overview = browser.send("GET", "/")
        sessions = re.findall(r'href="(/sessions/[^"/]+)"', overview.text)[:1]
        pages = [f"{session}{part}" for session in sessions for part in ("", "/live", "/records")]
        for page in [*pages, "/registry", "/models", "/orders"]:
            answer = browser.send("GET", page)
            assert answer.status_code == 200, answer.text
            seen += 1
            if stop.wait(LOOK_SECONDS):
                break
    return seen


def check_bundle(server: LiveServer, agent: HandBuiltAgent) -> None:
    """Check that the server holds exactly the agent's records, each once, under its checkpoints."""
    answer = server.client("auditor").get(f"{agent.path}/bundle")
    assert answer.status_code == 200, answer.text
    bundle = read_bundle(BytesIO(answer.content))
    assert list(bundle.records) == agent.lines
    sizes = []
    for note in bundle.checkpoints:
        size = notes.parse_checkpoint(notes.parse(note).text).size
        check_receipt(server, agent, note.decode(), size)
        sizes.append(size)
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == len(agent.lines)


def test_many_agents_at_once(service: LiveServer) -> None:
    """50 agents stream and 20 people read: nothing is lost, doubled or forked, whoever answers."""
    digest = service.add_order("shared")
    unheard_of = service.client("developer").get("/sessions/no%00such")
    assert unheard_of.status_code in {404, 422}, unheard_of.text
    if service.workers > 1:
        wait_until(lambda: len(workers_of(service)) == service.workers)
    with ThreadPoolExecutor(SESSIONS + MONITORS + READERS) as pool:
        stop = threading.Event()
        monitors = [pool.submit(read_heads, service, stop) for _ in range(MONITORS)]
        readers = [pool.submit(read_pages, service, stop) for _ in range(READERS)]
        try:
            agents = list(
                pool.map(lambda _: service.open_session("shared", digest), range(SESSIONS))
            )
            work = [pool.submit(stream, service, agent) for agent in agents[1:]]
            work.append(pool.submit(race, service, agents[0]))
            for done in work:
                done.result()
        finally:
            stop.set()
        heads = [head for monitor in monitors for head in monitor.result()]
        assert all(reader.result() for reader in readers)
    assert sorted(a.grant.session_number for a in agents) == list(range(1, SESSIONS + 1))
    for agent in agents:
        assert agent.status()["acknowledged_records"] == len(agent.lines)
        check_bundle(service, agent)
    leaves = read_registry(service)
    assert len(set(leaves)) == len(leaves) >= SESSIONS + 2
    for head in heads:
        assert head.root == merkle.root(leaves[: head.size])
    workers = workers_of(service)
    service.stop()
    assert service.process.returncode in {0, -signal.SIGTERM}
    assert all(is_gone(worker) for worker in workers)
    prepare(service.settings)  # checks the whole registry against every head that was signed


def test_workers_are_replaced_and_end_with_their_parent(workers_server: LiveServer) -> None:
    digest = workers_server.add_order("resilient")
    agent = workers_server.open_session("resilient", digest)
    agent.log_grant()
    wait_until(lambda: len(workers_of(workers_server)) == 2)
    killed = min(workers_of(workers_server))
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: len(workers_of(workers_server) - {killed}) == 2)
    agent.sent(agent.flush(0))
    stream(workers_server, agent)
    check_bundle(workers_server, agent)
    workers = workers_of(workers_server)
    workers_server.kill()
    wait_until(lambda: all(is_gone(worker) for worker in workers))
    with pytest.raises(requests.ConnectionError):
        workers_server.client(None).get("/health")


@pytest.fixture
def fails_to_serve(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[Home], str]:
    """Starts the server, which can't, and returns what it says."""

    def start(home: Home) -> str:
        arguments = ["auditor_server", "--home", str(home.path), "--port", "0", "--workers", "2"]
        monkeypatch.setattr(sys, "argv", arguments)
        assert main() == 1
        shown = capsys.readouterr()
        assert shown.out == ""  # no port is announced
        return shown.err

    return start


def test_a_home_without_its_database_is_not_served(
    tmp_path: Path, fails_to_serve: Callable[[Home], str]
) -> None:
    home = make_home(tmp_path)
    (home.path / DATABASE_FILE).unlink()
    assert "AUDITKIT_DATABASE_URL" in fails_to_serve(home)


def test_no_password_is_shown(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fails_to_serve: Callable[[Home], str],
) -> None:
    url = f"postgresql+psycopg://auditor:secret-word@/none?host={tmp_path}"
    monkeypatch.setenv("AUDITKIT_DATABASE_URL", url)
    home = make_home(tmp_path)
    shown = fails_to_serve(home)
    assert "can't be used" in shown
    assert "secret-word" not in shown
    assert "secret-word" not in repr(ServerSettings(home=home.path, database_url=SecretStr(url)))


def test_two_auditors_do_not_share_a_database(
    tmp_path: Path, new_postgresql_database: Callable[[], str]
) -> None:
    url = new_postgresql_database()
    server = LiveServer(make_home(tmp_path, url), database_url=url)
    prepare(server.settings)
    with pytest.raises(DatabaseInUseError):
        make_home(tmp_path / "other", url)
    assert not (tmp_path / "other" / "home").exists()
    prepare(server.settings)
