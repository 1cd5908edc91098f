"""The run folder lies where others write: what they change is noticed, and never signed."""

import json
from pathlib import Path

import pytest
from faulty_auditor import Fault
from runs import Run, check_log, record_grant, record_steps

from auditkit.evidence import merkle, notes
from developer_agent.errors import LogDamagedError, ServerError
from developer_agent.spool import Spool

HONEST, FORGED = b'"step":3', b'"step":9'


def forge(path: Path) -> bytes:
    """Overwrite a file in place, with as many bytes as before; return what it was."""
    data = path.read_bytes()
    assert HONEST in data
    with path.open("r+b") as file:
        file.write(data.replace(HONEST, FORGED))
    return data


def test_a_changed_line_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    lines = [b"one", HONEST, b"three"]
    with Spool.open(path) as spool:
        spool.extend(lines)
        forge(path)
        assert spool.read(0, 1) == [b"one"]
        expected, found = merkle.leaf_hash(HONEST).hex(), merkle.leaf_hash(FORGED).hex()
        for read in (lambda: spool.read(0, 3), lambda: list(spool.lines())):
            with pytest.raises(LogDamagedError, match=f"line 1 .*{expected}.*{found}.*restore"):
                read()
        assert spool.root(3) == merkle.root(lines)


def test_what_was_read_when_the_file_was_opened_is_what_counts(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    path.write_bytes(b"one\n" + HONEST + b"\ntorn")
    with Spool.open(path) as spool:
        spool.append(b"three")
        forge(path)
        assert spool.root(3) == merkle.root([b"one", HONEST, b"three"])
        with pytest.raises(LogDamagedError, match="line 1 "):
            spool.read(1, 1)
        spool.truncate(1)
        spool.append(b"two")
        assert spool.read(0, 2) == [b"one", b"two"]
        assert spool.root(2) == merkle.root([b"one", b"two"])


def test_lines_that_somebody_else_appends_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    with Spool.open(path) as spool:
        spool.append(b"one")
        with path.open("ab") as file:
            file.write(b"two\n")
        spool.append(b"six")
        with pytest.raises(LogDamagedError, match="line 1 "):
            spool.read(0, 2)


def test_lines_longer_than_what_is_read_at_once_open_as_they_were(tmp_path: Path) -> None:
    lines = [b"a" * 3_000_000, b"b", b"c" * (2**20 - 1), b"d"]
    with Spool.open(tmp_path / "spool") as spool:
        spool.extend(lines)
    with Spool.open(tmp_path / "spool") as spool:
        assert spool.read(0, 4) == lines
        assert spool.root(4) == merkle.root(lines)


@pytest.mark.parametrize("committed", [False, True])
def test_a_spool_changed_before_it_is_committed_is_not_signed(run: Run, committed: bool) -> None:
    record_grant(run.recorder)
    with run.committer() as committer:
        if committed:
            committer.commit_next()
        flushes = dict(run.auditor.flushes)
        record_steps(run.recorder, 1, 5)
        honest = forge(run.folder.spool_path)
        with pytest.raises(LogDamagedError, match=r"spool\.jsonl"):
            committer.commit_next()
        assert not run.folder.pending.exists()
        assert run.auditor.flushes == flushes
        run.folder.spool_path.write_bytes(honest)
        assert committer.commit_next()
    check_log(run.folder, run.auditor)


def test_a_log_changed_before_it_is_signed_is_signed_as_it_was(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    record_grant(run.recorder)
    record_steps(run.recorder, 1, 5)
    honest: list[bytes] = []
    sync = Spool.sync

    def sync_and_forge(spool: Spool) -> None:
        sync(spool)
        if spool.path == run.folder.records_path and not honest:
            honest.append(forge(spool.path))

    monkeypatch.setattr(Spool, "sync", sync_and_forge)
    with run.committer() as committer:
        with pytest.raises(LogDamagedError, match=r"records\.jsonl"):
            committer.commit_next()
        signed = notes.parse_checkpoint(notes.parse(run.folder.pending.read()).text)
        assert signed.root == merkle.root(honest[0].splitlines())
        assert not run.auditor.bodies
        run.folder.records_path.write_bytes(honest[0])
        assert committer.commit_next()
    check_log(run.folder, run.auditor)


def test_a_log_changed_while_its_flush_is_pending_is_not_sent(run: Run) -> None:
    record_grant(run.recorder)
    record_steps(run.recorder, 1, 5)
    run.auditor.faults.append(Fault.LOST_REQUEST)
    with run.committer() as committer:
        with pytest.raises(ServerError):
            committer.commit_next()
        signed = run.folder.pending.read()
        honest = forge(run.folder.records_path)
        with pytest.raises(LogDamagedError, match=r"records\.jsonl"):
            committer.commit_next()
        assert len(run.auditor.bodies) == 1
        assert run.folder.pending.read() == signed
        run.folder.records_path.write_bytes(honest)
        assert committer.commit_next()
    check_log(run.folder, run.auditor)


def test_a_spool_changed_while_a_flush_is_pending_changes_neither_it_nor_the_next(run: Run) -> None:
    record_grant(run.recorder)
    record_steps(run.recorder, 1, 2)
    run.auditor.faults.append(Fault.LOST_REQUEST)
    with run.committer() as committer:
        with pytest.raises(ServerError):
            committer.commit_next()
        record_steps(run.recorder, 3, 1)
        honest = forge(run.folder.spool_path)
        assert committer.commit_next()
        with pytest.raises(LogDamagedError, match=r"spool\.jsonl"):
            committer.commit_next()
        assert not any(FORGED in line for line in run.auditor.records)
        run.folder.spool_path.write_bytes(honest)
        assert committer.commit_next()
    check_log(run.folder, run.auditor)


@pytest.mark.parametrize("notes_kept", [(1, 2), (0, 0, 1, 2)])
def test_notes_left_out_or_doubled_do_not_move_the_place_in_the_spool(
    run: Run, notes_kept: tuple[int, ...]
) -> None:
    record_grant(run.recorder)
    with run.committer() as committer:
        for step in (1, 2, 3):
            record_steps(run.recorder, step, 1)
            committer.commit_next()
    lines = run.folder.checkpoints_path.read_bytes().splitlines(keepends=True)
    assert len(lines) == 3
    assert all(json.loads(line) for line in lines)
    run.folder.checkpoints_path.write_bytes(b"".join(lines[index] for index in notes_kept))
    with pytest.raises(LogDamagedError, match="receipts for 2"):
        run.committer()
