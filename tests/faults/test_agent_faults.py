"""Whatever goes wrong on the developer's disk, what the auditor has acknowledged stays."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from auditor_server import registry
from auditor_server.context import Auditor
from developer_agent.errors import DiskWriteError
from developer_agent.run_folder import RunFolder
from tests.faults.injection import Action, Call, Faults, PowerCut
from tests.faults.session_story import (
    Agent,
    Answered,
    Client,
    Shape,
    World,
    check_log,
    check_report,
    new_world,
    serving,
)


class Developer:
    """Runs small sessions in fresh folders, against one server that stays well."""

    def __init__(self, path: Path, world: World, auditor: Auditor) -> None:
        self._path = path
        self._world = world
        self._auditor = auditor
        self._runs = 0
        self._verified: set[Shape] = set()

    def new_folder(self) -> RunFolder:
        self._runs += 1
        return RunFolder(self._path / f"run-{self._runs}")

    def agent(self, folder: RunFolder, answered: Answered, attempts: int = 1) -> Agent:
        client = Client(self._world, lambda: self._auditor, answered)
        return Agent(folder, self._world, client, attempts=attempts)

    def check(self, folder: RunFolder, answered: Answered) -> None:
        """Check the log; verify the whole session if no log like it was verified before."""
        shape = check_log(self._auditor, folder, answered)
        if shape not in self._verified:
            check_report(self.agent(folder, answered).submit())
            self._verified.add(shape)


@pytest.fixture(scope="module")
def developer(scratch: Path) -> Iterator[Developer]:
    path = scratch / "agent"
    path.mkdir()
    world = new_world(path / "home")
    with serving(world.home) as auditor:
        yield Developer(path, world, auditor)
        registry.recover(auditor)  # the tree is the one whose heads were signed


@pytest.fixture(scope="module")
def calls(developer: Developer) -> list[Call]:
    """Every call of a whole session that changes the run's folder."""
    counted = [_count(developer) for _ in range(2)]
    assert counted[0] == counted[1], "the walk would not hit each call once"
    return counted[0]


def _count(developer: Developer) -> list[Call]:
    folder, answered = developer.new_folder(), Answered()
    faults = Faults(folder.path)
    with faults.watching():
        developer.agent(folder, answered).run()
    developer.check(folder, answered)
    return faults.calls


def test_a_session_makes_every_kind_of_call(calls: list[Call]) -> None:
    kinds = {call.operation for call in calls}
    assert kinds == {
        "create",
        "write",
        "fsync",
        "fdatasync",
        "rename",
        "unlink",
        "mkdir",
        "ftruncate",
    }
    touched = {call.name for call in calls}
    assert touched >= {"spool.jsonl", "records.jsonl", "checkpoints.jsonl", "pending.json"}
    assert len([call for call in calls if call == ("fdatasync", "checkpoints.jsonl")]) > 3


@pytest.mark.parametrize("actions", [("EIO", "ENOSPC"), ("short",), ("die", "torn"), ("power",)])
def test_no_call_of_a_session_can_lose_a_record(
    developer: Developer, calls: list[Call], actions: tuple[Action, ...]
) -> None:
    """Every other run ends with the disk's error, the others try again in the same process."""
    aimed = {
        number: call
        for number, call in enumerate(calls)
        if actions != ("short",) or call.operation == "write"
    }
    struck = {}
    for turn, (number, call) in enumerate(aimed.items()):
        action = actions[turn % len(actions)]
        if action == "torn" and call.operation != "write":
            action = "die"
        folder, answered = developer.new_folder(), Answered()
        faults = Faults(folder.path, number, action)
        with faults.watching(), contextlib.suppress(PowerCut, DiskWriteError):
            developer.agent(folder, answered, attempts=1 + turn % 2).run()
        struck[number] = faults.struck
        developer.agent(folder, answered).run()
        developer.check(folder, answered)
    assert struck == aimed
