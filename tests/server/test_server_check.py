"""After a disaster: a backup is restored, and whatever is amiss is found by its own rule."""

import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from hand_built import HandBuiltAgent
from live import LiveServer, make_home
from live_witness import LiveWitness, make_witness
from sqlalchemy import make_url
from submitted import flat_calibration, make_submission
from typer.testing import CliRunner, Result

from auditkit.cli.application import app
from auditkit.evidence.errors import EvidenceError
from auditor_server.app import create_app
from auditor_server.backups import MARK_FILE
from auditor_server.context import Auditor
from auditor_server.errors import BackupError
from auditor_server.home import BLOBS_FOLDER, DATABASE_FILE, TRUST_ROOT_FILE
from auditor_server.settings import ServerSettings
from auditor_server.store_checks import RULES, Found, check
from auditor_server.witness.home import FollowedLog
from auditor_server.witnesses import WITNESSES_FILE
from tests.postgresql import SUPERUSER, PostgreSQL

PATIENCE_SECONDS = 60
LINE_END = "char(10)"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)])


@dataclass(frozen=True)
class Audited:
    """An auditor with a finished session and one under way, its witness, and two backups."""

    home: Path
    witness: LiveWitness
    submitted: HandBuiltAgent
    streaming: HandBuiltAgent
    receipt: Path
    early: Path
    backup: Path


def stream(agent: HandBuiltAgent, steps: range) -> str:
    for step in steps:
        first = len(agent.lines)
        if not agent.lines:
            agent.log_grant()
        agent.log_step(step)
        receipt = agent.sent(agent.flush(first)).checkpoint
    return receipt


@pytest.fixture(name="audited", scope="module")
def fixture_audited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Audited]:
    folder = tmp_path_factory.mktemp("audited")
    home = make_home(folder)
    logs = [FollowedLog.of_auditor(home.trust_root(datetime.now(UTC)))]
    witness = make_witness(folder / "witness", "w.example.org", logs)
    witness.start()
    listed = f'[[witness]]\nurl = "{witness.url}"\nkey = "{witness.key.encode()}"\n'
    (home.path / WITNESSES_FILE).write_text(listed)
    server = LiveServer(home)
    server.start()
    digest = server.add_order("digits-2026")
    streaming, submitted = (server.open_session("digits-2026", digest) for _ in range(2))
    stream(streaming, range(1, 4))
    assert run("server", "backup", folder / "early", "--home", home.path).exit_code == 0
    submission = make_submission(submitted.grant.session_id, flat_calibration(0.0))
    submission.seal(submitted)
    assert submission.send(submitted).status_code == 200
    receipt = folder / "receipt"
    receipt.write_text(stream(streaming, range(4, 8)))
    # A server that runs is backed up; a session goes on meanwhile.
    result = run("server", "backup", folder / "late", "--home", home.path)
    assert result.exit_code == 0, result.output
    deadline = time.monotonic() + PATIENCE_SECONDS
    while witness.latest_size(streaming.grant.origin) < len(streaming.lines):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    server.stop()
    yield Audited(
        home.path, witness, submitted, streaming, receipt, folder / "early", folder / "late"
    )
    witness.stop()


@pytest.fixture
def restored(audited: Audited, tmp_path: Path) -> Path:
    home = tmp_path / "restored"
    result = run("server", "restore", audited.backup, "--home", home)
    assert result.exit_code == 0, result.output
    return home


def checked(home: Path, url: str | None = None, known: tuple[bytes, ...] = ()) -> Found:
    auditor = Auditor.open(ServerSettings(home=home, database_url=url))
    try:
        return check(auditor, known=known)
    finally:
        auditor.store.close()


def broken(home: Path, known: tuple[bytes, ...] = ()) -> set[str]:
    found = checked(home, known=known)
    assert {fault.rule for fault in found.faults} <= RULES.keys()
    return {fault.rule for fault in found.faults}


def change(home: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(home / DATABASE_FILE)) as connection, connection:
        assert connection.execute(statement, values).rowcount > 0


def test_a_backup_of_a_running_server_takes_its_place(audited: Audited, restored: Path) -> None:
    found = checked(restored)
    assert (found.faults, found.not_asked) == ([], [])
    records = len(audited.streaming.lines) + len(audited.submitted.lines)
    assert found.checked["records"] == records
    assert found.checked["files"] == 3
    assert found.checked["documents"] >= 6
    assert found.checked["checkpoints that others hold"] >= 3
    assert (restored / TRUST_ROOT_FILE).read_bytes() == (
        audited.home / TRUST_ROOT_FILE
    ).read_bytes()
    for path in restored.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0 or path.parent == restored, path

    with TestClient(create_app(ServerSettings(home=restored))) as client:
        assert client.get("/v1/ready").json() == {"status": "ready"}


def test_nothing_is_overwritten_and_half_a_backup_is_none(audited: Audited, tmp_path: Path) -> None:
    for arguments in (
        ("backup", audited.backup, "--home", audited.home),
        ("restore", audited.backup, "--home", audited.home),
    ):
        assert isinstance(run("server", *arguments).exception, BackupError)
    half = tmp_path / "half"
    shutil.copytree(audited.backup, half)
    (half / MARK_FILE).unlink()
    result = run("server", "restore", half, "--home", tmp_path / "home")
    assert isinstance(result.exception, BackupError)
    assert not (tmp_path / "home").exists()


def test_a_database_that_was_set_back_as_a_whole(audited: Audited, tmp_path: Path) -> None:
    """It agrees with itself; the witness has seen more, and so has the agent with its receipt."""
    home = tmp_path / "home"
    result = run("server", "restore", audited.early, "--home", home)
    assert result.exit_code == 1
    assert "log-not-behind" in result.output
    found = checked(home)
    assert {fault.rule for fault in found.faults} == {"log-not-behind"}
    assert f"sessions/{audited.streaming.grant.session_id}" in {f.subject for f in found.faults}

    (home / WITNESSES_FILE).unlink()
    with closing(sqlite3.connect(home / DATABASE_FILE)) as connection, connection:
        connection.execute("DELETE FROM witnessings")
    assert broken(home) == set()
    assert broken(home, known=(audited.receipt.read_bytes(),)) == {"log-not-behind"}
    result = run("server", "check", "--home", home, "--known", audited.receipt)
    assert result.exit_code == 1
    with pytest.raises(EvidenceError):
        broken(home, known=(audited.receipt.read_bytes().replace(b"\n7\n", b"\n6\n", 1)[:-9],))


def test_a_witness_that_does_not_answer_is_named(restored: Path) -> None:
    path = restored / WITNESSES_FILE
    path.write_text(path.read_text().replace("http://127.0.0.1:", "http://127.0.0.1:1/"))
    found = checked(restored)
    assert found.faults == []
    assert len(found.not_asked) == 1
    assert "w.example.org" in found.not_asked[0]


def test_records_that_are_gone(audited: Audited, restored: Path) -> None:
    session = audited.streaming.grant.session_id
    change(
        restored,
        "DELETE FROM segments WHERE session_id = ? AND first >= 6",
        session,
    )
    assert broken(restored) == {"log-complete", "log-not-behind"}
    change(restored, "DELETE FROM segments WHERE session_id = ? AND first = 2", session)
    assert "log-complete" in broken(restored)


def test_a_record_that_was_replaced(audited: Audited, restored: Path) -> None:
    session = audited.streaming.grant.session_id
    change(
        restored,
        "UPDATE segments SET records = "
        "CAST(replace(records, '\"task_loss\":', '\"task_loss\":1') AS BLOB) "
        "WHERE session_id = ? AND first = 3",
        session,
    )
    assert "records-as-signed" in broken(restored)
    change(
        restored,
        "UPDATE segments SET records = CAST(records AS TEXT) WHERE session_id = ?",
        session,
    )
    assert "log-complete" in broken(restored)


@pytest.mark.parametrize(
    ("column", "change_to", "rule"),
    [
        ("checkpoint", f"replace(checkpoint, {LINE_END} || '3', {LINE_END} || '9')",
         "checkpoint-within-log"),
        ("cosigned", "NULL", "checkpoint-signed"),
        ("cosigned", "checkpoint", "checkpoint-signed"),
    ],
    ids=["ahead", "not cosigned", "cosignature removed"],
)  # fmt: skip
def test_checkpoints_that_say_something_else(
    audited: Audited, restored: Path, column: str, change_to: str, rule: str
) -> None:
    change(
        restored,
        f"UPDATE segments SET {column} = {change_to} WHERE session_id = ? AND first = 2",
        audited.streaming.grant.session_id,
    )
    assert rule in broken(restored)


def test_a_database_whose_row_was_set_back_with_its_records(
    audited: Audited, restored: Path
) -> None:
    """The last flush is gone and so are all traces of it in the same database."""
    session = audited.streaming.grant.session_id
    auditor = Auditor.open(ServerSettings(home=restored))
    early = Auditor.open(ServerSettings(home=audited.early))
    before = early.store.session(session)
    assert before is not None
    early.store.close()
    auditor.store.close()
    change(restored, "DELETE FROM segments WHERE session_id = ? AND first >= ?", session,
           before.size)  # fmt: skip
    change(restored, "UPDATE sessions SET size = ?, frontier = ? WHERE id = ?", before.size,
           before.frontier, session)  # fmt: skip
    assert broken(restored) == {"log-not-behind"}


def test_a_log_with_another_history(audited: Audited, restored: Path) -> None:
    change(restored, "UPDATE witnessings SET root = ?", b"\x01" * 32)
    assert broken(restored) == {"log-not-forked"}


def test_files_that_are_gone_or_changed(restored: Path) -> None:
    first, second, _ = sorted((restored / BLOBS_FOLDER).iterdir())
    data = bytearray(first.read_bytes())
    data[len(data) // 2] ^= 1
    first.write_bytes(data)
    second.unlink()
    found = checked(restored)
    assert {(fault.rule, name in fault.detail) for fault in found.faults for name in [first.name]
            } == {("blob-as-named", True), ("blob-present", False)}  # fmt: skip


def test_documents_that_are_gone_or_others(restored: Path) -> None:
    change(restored, "DELETE FROM verifications")
    assert broken(restored) == {"document-stored"}
    change(restored, "UPDATE orders SET digest = ?", "0" * 64)
    assert broken(restored) == {"document-stored", "document-registered"}


def test_a_registry_that_is_not_the_one_that_was_signed(restored: Path) -> None:
    change(restored, "UPDATE registry_heads SET note = replace(note, ' ', '  ')")
    assert broken(restored) == {"registry-head-signed"}
    change(
        restored, "UPDATE registry_entries SET leaf = CAST(leaf || ' ' AS BLOB) WHERE position = 1"
    )
    assert "registry-as-signed" in broken(restored)


def test_a_postgresql_database_comes_back_with_pg_restore(
    tmp_path: Path, postgresql: PostgreSQL, new_postgresql_database: Callable[[], str]
) -> None:
    """The steps of the guide for operators, with the programs themselves."""
    url, other = new_postgresql_database(), new_postgresql_database()
    server = LiveServer(make_home(tmp_path, url), database_url=url)
    server.start()
    agent = server.open_session("digits-2026", server.add_order("digits-2026"))
    receipt = stream(agent, range(1, 4)).encode()
    names = [str(make_url(each).database) for each in (url, other)]
    dump, backup, home = tmp_path / "auditor.dump", tmp_path / "backup", tmp_path / "restored"
    reach = ["--host", str(postgresql.folder), "--username", SUPERUSER]
    programs = postgresql.programs
    try:
        command = [programs / "pg_dump", *reach, "--format=custom", "--file", dump, names[0]]
        subprocess.run(command, check=True)
        result = run("server", "backup", backup, "--home", server.home.path)
        assert "pg_dump" in result.output
        late = stream(agent, range(4, 5)).encode()
    finally:
        server.stop()
    command = [programs / "pg_restore", *reach, "--exit-on-error", "--dbname", names[1], dump]
    subprocess.run(command, check=True)
    result = run("server", "restore", backup, "--home", home, "--database-url", other)
    assert result.exit_code == 0, result.output
    assert checked(home, other, known=(receipt,)).faults == []
    (fault,) = checked(home, other, known=(late,)).faults
    assert fault.rule == "log-not-behind"
