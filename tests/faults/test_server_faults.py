"""Whatever goes wrong on the auditor's disk, a receipt that was given is kept."""

import os
import shutil
import signal
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import patch

import pytest
from sqlalchemy.exc import DBAPIError

from auditor_server import registry
from auditor_server.errors import HomeError
from auditor_server.inference.service import Inference
from auditor_server.serve import serve
from auditor_server.settings import Bound, Listening, ServerSettings
from developer_agent.client import ServerClient
from developer_agent.errors import ServerUnreachableError
from developer_agent.run_folder import RunFolder
from schemas import AppendReceipt, AppendRequest
from tests.adversary.forge import rebuilt_weights
from tests.faults.injection import Action, Call, Faults, PowerCut
from tests.faults.session_story import (
    Agent,
    Answered,
    Client,
    World,
    asking,
    check_log,
    check_report,
    new_world,
    serving,
)

RECORDS_PER_FLUSH = 12


class Server:
    """An auditor's server that is started again whenever its process has ended."""

    def __init__(self, world: World, faults: Faults, now: datetime) -> None:
        self._world = world
        self._now = now
        self._faults = faults
        self._running = ExitStack()
        self.start()

    def start(self) -> None:
        """Start it, once more if that fails: the only fault may lie there."""
        self.stop()
        try:
            self._serve()
        except (PowerCut, HomeError, DBAPIError):
            self._serve()

    def _serve(self) -> None:
        self._faults.revive()
        self.auditor = self._running.enter_context(serving(self._world.home, lambda: self._now))

    def stop(self) -> None:
        self._running.close()


@pytest.fixture(scope="module")
def world(scratch: Path) -> World:
    return new_world(scratch / "home")


class Walk:
    """Plays one session per call of the server; each in a copy of one home, so all are alike."""

    def __init__(self, world: World, scratch: Path) -> None:
        self._world = world
        self._scratch = scratch
        self._runs = 0
        # What is written must not depend on when a second ends.
        self._now = datetime.now(UTC).replace(microsecond=500_000)

    def play(self, strike: int | None = None, action: Action = "die") -> Faults:
        """A session and its submission, during which one call of the server goes wrong."""
        self._runs += 1
        path = self._scratch / f"walk-{self._runs}"
        world, folder = self._world.copied(path / "home"), RunFolder(path / "run")
        answered, faults = Answered(), Faults(world.home.path, strike, action)
        with faults.watching():
            server = Server(world, faults, self._now)
            client = Client(world, lambda: server.auditor, answered, server.start)
            agent = Agent(folder, world, client, records_per_flush=RECORDS_PER_FLUSH)
            agent.clock = lambda: round(self._now.timestamp() * 1000)
            try:
                agent.run()
                check_log(server.auditor, folder, answered)
                check_report(agent.submit())
                asking(lambda: client.ask(registry.head))
                asking(lambda: client.ask(registry.recover))
            finally:
                server.stop()
        shutil.rmtree(path)
        return faults


@pytest.fixture(scope="module")
def walk(world: World, scratch: Path) -> Walk:
    return Walk(world, scratch)


@pytest.fixture(scope="module")
def calls(walk: Walk) -> list[Call]:
    """Every call of a whole session that changes the server's home."""
    counted = [walk.play().calls for _ in range(2)]
    assert counted[0] == counted[1], "the walk would not hit each call once"
    return counted[0]


def test_a_session_makes_every_kind_of_call(calls: list[Call]) -> None:
    kinds = {call.operation for call in calls if call.name == "database"}
    assert kinds == {"begin", "insert", "update", "commit", "committed"}
    kinds = {call.operation for call in calls if call.name.startswith("blobs")}
    assert kinds == {"create", "write", "fsync", "rename"}


@pytest.mark.parametrize("actions", [("EIO", "ENOSPC"), ("die",), ("torn",), ("short",)], ids=str)
def test_no_call_of_the_server_can_lose_a_record(
    walk: Walk, calls: list[Call], actions: tuple[Action, ...]
) -> None:
    aimed = {
        number: call
        for number, call in enumerate(calls)
        if not {"short", "torn"}.intersection(actions) or call.operation == "write"
    }
    struck = {number: walk.play(number, actions[number % len(actions)]).struck for number in aimed}
    assert struck == aimed


# -- real processes --------------------------------------------------------------------------------

KILLED_AT = (
    Call("insert", "database"),
    Call("update", "database"),
    Call("commit", "database"),
    Call("committed", "database"),
    Call("write", "blobs/.incoming-"),
    Call("fsync", "blobs/.incoming-"),
    Call("rename", "blobs/.incoming-"),
    Call("fsync", "blobs"),
)


class Process:
    """The server in a process of its own, over HTTP, which SIGKILL ends at the call it is told."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._pid = 0

    def start(self, killed_at: Call | None) -> str:
        """Return the address."""
        read, write = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(read)
            try:
                self._serve(write, killed_at)
            finally:
                os._exit(1)
        os.close(write)
        with os.fdopen(read) as ready:
            return ready.readline().strip()

    def _serve(self, ready: int, killed_at: Call | None) -> None:
        faults = Faults(self._world.home.path, kill=lambda: os.kill(os.getpid(), signal.SIGKILL))

        def announce(bound: Bound) -> None:
            faults.target = killed_at
            os.write(ready, f"http://{bound.host}:{bound.port}\n".encode())

        with faults.watching():
            serve(ServerSettings(home=self._world.home.path), Listening("127.0.0.1", 0), announce)

    def wait(self) -> int:
        """Return the signal that has ended it."""
        _, status = os.waitpid(self._pid, 0)
        return os.WTERMSIG(status)

    def stop(self) -> None:
        os.kill(self._pid, signal.SIGKILL)
        self.wait()


class HttpClient(ServerClient):
    """An agent's client that finds the server at its new address after it was killed."""

    def __init__(self, world: World, process: Process, killed_at: Call, answered: Answered) -> None:
        super().__init__(process.start(killed_at), world.home.tokens["developer"])
        self._process = process
        self._answered = answered
        self.signals: list[int] = []

    def append(self, session_id: str, request: AppendRequest) -> AppendReceipt:
        receipt = super().append(session_id, request)
        self._answered.receipts.append((request, receipt.checkpoint))
        return receipt

    def _call(self, *arguments: object, **options: object) -> object:  # type: ignore[override]
        try:
            return super()._call(*arguments, **options)  # type: ignore[arg-type]
        except ServerUnreachableError:
            self.signals.append(self._process.wait())
            self.base_url = self._root = self._process.start(None)
            raise


@pytest.mark.parametrize("call", KILLED_AT, ids=lambda call: f"{call.operation} {call.name}")
def test_a_killed_server_keeps_what_it_has_acknowledged(
    world: World, scratch: Path, call: Call
) -> None:
    name = f"killed-{call.operation}-{call.name.replace('/', '-')}"
    folder, answered = RunFolder(scratch / name), Answered()
    process = Process(world)
    with patch.object(Inference, "initial_weights_digest", staticmethod(rebuilt_weights)):
        client = HttpClient(world, process, call, answered)
        try:
            agent = Agent(folder, world, client)
            agent.run()
            with serving(world.home) as auditor:
                check_log(auditor, folder, answered)
            check_report(agent.submit())
        finally:
            process.stop()
    assert client.signals == [signal.SIGKILL]
    with serving(world.home):
        pass  # its registry is the one whose heads were signed
