"""Power cuts below the calls that can be counted, and disks that stay broken."""

import os
import random
from pathlib import Path
from unittest.mock import patch

import pytest

from auditor_server import records
from auditor_server.home import DATABASE_FILE
from developer_agent.committer import Committer
from developer_agent.errors import SpoolWriteError, UplinkStoppedError
from developer_agent.recorder import Recorder
from developer_agent.run_folder import RunFolder
from developer_agent.spool import Spool
from developer_agent.uplink import Uplink
from schemas import AppendReceipt, AppendRequest
from tests.faults.injection import Faults
from tests.faults.session_story import (
    Agent,
    Answered,
    Client,
    World,
    check_log,
    check_report,
    new_world,
    serving,
    session_of,
)

CUTS = 16


@pytest.fixture(scope="module")
def world(scratch: Path) -> World:
    return new_world(scratch / "unsynced")


class MeasuringClient(Client):
    """Notes how long the database's write-ahead log is at each receipt: so much is durable."""

    def __init__(self, world: World, answered: Answered, **options: object) -> None:
        super().__init__(world, **options, answered=answered)  # type: ignore[arg-type]
        self._wal = world.home.path / f"{DATABASE_FILE}-wal"
        self.durable: list[int] = []

    def append(self, session_id: str, request: AppendRequest) -> AppendReceipt:
        receipt = super().append(session_id, request)
        self.durable.append(self._wal.stat().st_size)
        return receipt


def test_any_end_of_the_write_ahead_log_that_was_not_synced_may_be_lost(
    world: World, scratch: Path
) -> None:
    folder, answered = RunFolder(scratch / "wal-run"), Answered()
    with serving(world.home) as auditor:
        client = MeasuringClient(world, answered, auditor=lambda: auditor)
        Agent(folder, world, client).run()
        # As the disk has it while the server runs; closing it would tidy up.
        kept = world.copied(scratch / "kept")
    wal = kept.home.path / f"{DATABASE_FILE}-wal"
    whole = wal.read_bytes()
    assert client.durable == sorted(set(client.durable))
    chosen = random.Random(5).sample(range(client.durable[0], len(whole)), CUTS)
    for number, cut in enumerate(sorted({*client.durable, *chosen})):
        broken = kept.copied(scratch / f"broken-{number}")
        (broken.home.path / wal.name).write_bytes(whole[:cut])
        (broken.home.path / f"{DATABASE_FILE}-shm").unlink(missing_ok=True)
        given = sum(durable <= cut for durable in client.durable)
        with serving(broken.home) as auditor:
            session = session_of(auditor, folder)
            segments = auditor.store.segments(session.id)
            lines = records.split_lines(segments)
            for request, receipt in answered.receipts[:given]:
                end = request.first + len(request.records)
                assert [line.decode() for line in lines[request.first : end]] == [*request.records]
                assert receipt in {segment.cosigned for segment in segments}
            assert session.size == len(lines)


def test_a_spool_that_can_not_be_repaired_at_once_is_repaired_before_the_next_line(
    tmp_path: Path,
) -> None:
    """The disk is full in the middle of a line, and refuses to cut it off as well."""
    path = tmp_path / "spool.jsonl"
    with Spool.open(path) as spool:
        spool.append(b"first")
        full = Faults(tmp_path, 0, "short")
        with (
            full.watching(),
            patch.object(os, "ftruncate", side_effect=OSError(5, "Input/output error")),
            pytest.raises(SpoolWriteError),
        ):
            spool.append(b"second")
        assert path.read_bytes() == b"first\nsec"
        assert spool.append(b"third") == 1
        assert list(spool.lines()) == [b"first", b"third"]
    assert path.read_bytes() == b"first\nthird\n"


def test_an_uplink_whose_disk_fails_stops_the_training_and_loses_nothing(
    world: World, scratch: Path
) -> None:
    folder, answered = RunFolder(scratch / "uplink-run"), Answered()
    with serving(world.home) as auditor:
        agent = Agent(folder, world, Client(world, lambda: auditor, answered))
        grant = agent.open()
        told, root = agent.story(grant), agent.trust_root()
        with folder.lock(), Spool.open(folder.spool_path) as spool:
            faults = Faults(folder.path, 4, "EIO")
            committer = Committer.open(folder, spool, agent.client, root)
            recorder = Recorder(spool)
            recorder.record(type(told[0]), **agent.fields(told[0]))
            with faults.watching(), Uplink(committer, spool) as uplink:
                uplink.drain(10)
                with pytest.raises(UplinkStoppedError, match="Input/output error"):
                    uplink.permit()
                assert uplink.state.unacknowledged == 1
        assert faults.struck is not None
        agent.run()
        check_log(auditor, folder, answered)
        check_report(agent.submit())
