import multiprocessing
import os
import stat
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from developer_agent import disk
from developer_agent.errors import DiskWriteError, RunFileMissingError, RunLockedError
from developer_agent.run_folder import RunFolder


def hold_lock(path: Path, held: Event) -> None:
    with RunFolder(path).lock():
        held.set()
        held.wait()
        while True:
            os.sched_yield()


def test_keys_are_private_and_the_folder_too(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "runs" / "first")
    for secret in (folder.session_key, folder.manifest_key):
        secret.write(b"secret")
        secret.write(b"secret again")
        assert stat.S_IMODE(secret.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700


def test_files_are_what_was_written_last(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run")
    assert not folder.grant.exists()
    with pytest.raises(RunFileMissingError, match=r"grant\.dsse\.json"):
        folder.grant.read()
    folder.grant.write(b"one")
    folder.grant.write(b"two")
    folder.state("step-10").write(b"state")
    reopened = RunFolder.create(tmp_path / "run")
    assert reopened.grant.read() == b"two"
    assert reopened.state("step-10").read() == b"state"
    reopened.grant.delete()
    reopened.grant.delete()
    assert not folder.grant.exists()


def test_a_crash_while_writing_leaves_the_old_file_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class PowerLoss(BaseException):
        """The machine stops here."""

    def lose_power(*_: object) -> None:
        raise PowerLoss

    folder = RunFolder.create(tmp_path / "run")
    folder.weights.write(b"old")
    with monkeypatch.context() as patch:
        patch.setattr(disk.os, "fsync", lose_power)
        with pytest.raises(PowerLoss):
            folder.weights.write(b"new")
    assert folder.weights.read() == b"old"
    assert len(list(folder.weights.path.parent.iterdir())) == 2
    with folder.lock():
        assert list(folder.weights.path.parent.iterdir()) == [folder.weights.path]


def test_a_full_disk_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder.create(tmp_path / "run")
    folder.description.write(b"old")
    with monkeypatch.context() as patch:
        patch.setattr(disk.os, "write", lambda *_: (_ for _ in ()).throw(OSError(28, "disk full")))
        with pytest.raises(DiskWriteError, match=r"3 bytes .*disk full.*intact"):
            folder.description.write(b"new")
    assert folder.description.read() == b"old"
    assert list(folder.description.path.parent.iterdir()) == [folder.description.path]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DiskWriteError, match="choose another"):
        RunFolder.create(tmp_path / "file" / "run")


def test_a_run_belongs_to_one_process_at_a_time_and_is_free_when_that_dies(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run")
    context = multiprocessing.get_context("spawn")
    held = context.Event()
    holder = context.Process(target=hold_lock, args=(folder.path, held), daemon=True)
    holder.start()
    assert held.wait(60)
    with pytest.raises(RunLockedError, match=f"process {holder.pid}"), folder.lock():
        pytest.fail("two processes hold the run")
    holder.kill()
    holder.join()
    with (
        folder.lock(),
        pytest.raises(RunLockedError, match=f"process {os.getpid()}"),
        folder.lock(),
    ):
        pytest.fail("two parts of one process hold the run")


def test_locking_what_is_no_run_folder(tmp_path: Path) -> None:
    with (
        pytest.raises(RunFileMissingError, match="no run folder"),
        RunFolder(tmp_path / "x").lock(),
    ):
        pytest.fail("locked a folder that is not there")


def test_a_launcher_keeps_others_off_while_its_container_works_on_the_run(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run")
    with folder.launch_lock(), folder.lock():
        with pytest.raises(RunLockedError, match="in use by process"), folder.launch_lock():
            pass
        with pytest.raises(RunLockedError, match="in use by process"), folder.lock():
            pass
    with folder.launch_lock(), folder.lock():
        pass


def test_what_is_no_part_of_a_run_is_told(tmp_path: Path) -> None:
    assert RunFolder(tmp_path / "new").strangers() == []
    folder = RunFolder.create(tmp_path / "run")
    folder.request.write(b"{}")
    folder.continuation_request(1).path.parent.mkdir(exist_ok=True)
    (folder.path / ".request.json.00.being-written").touch()
    with folder.lock(), folder.launch_lock():
        assert folder.strangers() == []
    (folder.path / "token").touch()
    assert folder.strangers() == ["token"]
