"""A disk without room: who sends is told so, and nothing that was accepted is lost."""

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg.errors
import pytest
from fastapi.testclient import TestClient
from hand_built import HandBuiltAgent, is_problem
from live import LiveServer, make_home
from on_small_disk import NAMESPACES
from sqlalchemy.exc import OperationalError

from auditor_server.app import create_app
from auditor_server.home import BLOBS_FOLDER
from auditor_server.settings import ServerSettings
from auditor_server.store import Store

RECORDS_PER_FLUSH = 200
MOST_FLUSHES = 1_000


@pytest.fixture
def small(tmp_path: Path) -> Iterator[LiveServer]:
    """A server that has eight megabytes."""
    if subprocess.run([*NAMESPACES, "true"], capture_output=True, check=False).returncode:
        assert "CI" not in os.environ, "CI must allow namespaces of users"
        pytest.skip("this system gives nobody but root a disk of his own")
    server = LiveServer(make_home(tmp_path), module=("tests/server/on_small_disk.py",))
    server.start()
    yield server
    server.stop()


def log_steps(agent: HandBuiltAgent) -> int:
    """Write the next records; return how many there were before."""
    before = len(agent.lines)
    for step in range(before, before + RECORDS_PER_FLUSH):
        agent.log_step(step)
    return before


def test_a_full_disk_costs_nothing_that_was_accepted(small: LiveServer) -> None:
    agent = small.open_session("digits-2026", small.add_order("digits-2026"))
    agent.log_grant()
    agent.sent(agent.flush(0))
    disk = Path(f"/proc/{small.process.pid}/root{small.home.path}")
    filler = disk / BLOBS_FOLDER / "filler"
    with pytest.raises(OSError, match="No space left"):
        shutil.copyfile("/dev/zero", filler)

    refused = None
    for _ in range(MOST_FLUSHES):  # as long as the database finds room in its own files
        acknowledged = len(agent.lines)
        flush = agent.flush(log_steps(agent))
        answer = agent.send(flush)
        if answer.status_code != 200:
            refused = answer
            break
    assert refused is not None
    assert is_problem(refused, 503, "DatabaseFullError"), refused.text
    assert int(refused.headers["Retry-After"]) > 0
    assert "make room" in refused.json()["detail"]
    assert str(small.home.path) not in refused.text
    assert agent.status()["acknowledged_records"] == acknowledged
    assert is_problem(small.client(None).get("/ready"), 503, "NotReadyError")

    filler.unlink()
    assert agent.sent(flush) == agent.sent(flush)
    assert agent.status()["acknowledged_records"] == len(agent.lines)
    agent.sent(agent.flush(log_steps(agent)))


def sqlite_error(code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    "said",
    [
        psycopg.errors.DiskFull("could not extend file"),
        sqlite_error(sqlite3.SQLITE_FULL),
        sqlite_error(sqlite3.SQLITE_IOERR_SHMSIZE),
    ],
    ids=("PostgreSQL", "SQLite", "SQLite's shared memory"),
)
def test_each_database_has_its_own_names_for_it(
    said: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_store: Store, _order_id: str) -> None:
        raise OperationalError("SELECT", {}, said)

    home = make_home(tmp_path)
    with TestClient(create_app(ServerSettings(home=home.path))) as client:
        monkeypatch.setattr(Store, "order", full)
        token = {"Authorization": f"Bearer {home.tokens['auditor']}"}
        answer = client.get("/v1/orders/digits-2026", headers=token)
    assert is_problem(answer, 503, "DatabaseFullError"), answer.text
