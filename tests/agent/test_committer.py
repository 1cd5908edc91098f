import json
import multiprocessing
import os
import random
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from faulty_auditor import Fault, FaultyAuditor
from runs import Run, check_log, new_run, open_committer, record_grant, record_seal, record_steps

from auditkit.evidence import notes
from auditkit.evidence.errors import ThresholdError
from auditkit.evidence.keys import SigningKey
from developer_agent import committer as committer_module
from developer_agent.client import ServerClient
from developer_agent.committer import Committer
from developer_agent.errors import (
    CommitterStoppedError,
    CosignatureError,
    LogDamagedError,
    RunFileMissingError,
    ServerError,
    ServerRefusedError,
    SessionKeyMismatchError,
)
from developer_agent.recorder import Recorder
from developer_agent.run_folder import RunFolder
from developer_agent.spool import Spool
from schemas import AppendRequest, TrustRoot


def commit_all(committer: Committer, attempts: int = 20) -> None:
    """Send everything, whatever the network does."""
    for _ in range(attempts):
        try:
            while committer.commit_next():
                pass
        except ServerError as error:
            if not error.temporary:
                raise
        else:
            return
    pytest.fail("the log did not get through")


def test_a_run_from_grant_to_seal(run: Run) -> None:
    with run.committer() as committer:
        assert not committer.commit_next()
        record_grant(run.recorder)
        for first in (1, 11, 21):
            record_steps(run.recorder, first, 10)
            assert committer.remaining == 10 + (first == 1)
            assert committer.commit_next()
            assert not committer.commit_next()  # nothing new: no chatter about receipts
        record_seal(run.recorder, 30)
        assert committer.commit_next()
        assert committer.remaining == 0
        assert committer.acknowledged == 32
    check_log(run.folder, run.auditor)
    assert len(run.auditor.records) == 32 + 3
    assert json.loads(run.auditor.records[-1])["kind"] == "seal"
    assert [json.loads(run.auditor.records[size])["kind"] for size in (11, 22, 33)] == [
        "receipt"
    ] * 3


def test_a_backlog_larger_than_a_flush_keeps_one_receipt_per_segment(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(committer_module, "MOST_RECORDS_PER_FLUSH", 7)
    record_grant(run.recorder)
    record_steps(run.recorder, 1, 40)
    record_seal(run.recorder, 40)
    with run.committer() as committer:
        commit_all(committer)
    check_log(run.folder, run.auditor)
    assert len(run.auditor.flushes) == 6
    assert json.loads(run.auditor.records[-1])["kind"] == "seal"


def test_flushes_are_bounded_in_bytes(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committer_module, "MOST_BYTES_PER_FLUSH", 2_000)
    record_steps(run.recorder, 1, 30)
    with run.committer() as committer:
        commit_all(committer)
    check_log(run.folder, run.auditor)
    assert len(run.auditor.flushes) > 5


@pytest.mark.parametrize("fault", Fault)
def test_each_fault_costs_neither_a_record_nor_doubles_one(run: Run, fault: Fault) -> None:
    record_grant(run.recorder)
    with run.committer() as committer:
        for first in range(1, 30, 3):
            record_steps(run.recorder, first, 3)
            run.auditor.faults.append(fault)
            commit_all(committer)
    assert not run.auditor.faults
    check_log(run.folder, run.auditor)
    check_retries(run.auditor)


def test_any_mixture_of_faults_and_restarts(run: Run) -> None:
    generator = random.Random(7)
    record_grant(run.recorder)
    step = 1
    for _ in range(25):
        with run.committer() as committer:
            run.auditor.faults.extend(generator.choices(list(Fault), k=generator.randrange(3)))
            count = generator.randrange(1, 6)
            record_steps(run.recorder, step, count)
            step += count
            for _ in range(generator.randrange(4)):
                try:
                    committer.commit_next()
                except ServerError as error:
                    if not error.temporary:
                        raise
    run.auditor.faults.clear()
    record_seal(run.recorder, step - 1)
    with run.committer() as committer:
        commit_all(committer)
    check_log(run.folder, run.auditor)
    check_retries(run.auditor)


def check_retries(auditor: FaultyAuditor) -> None:
    """Every repetition of a flush was the same bytes."""
    bodies: dict[int, set[bytes]] = {}
    for body in auditor.bodies:
        bodies.setdefault(AppendRequest.from_bytes(body).first, set()).add(body)
    assert all(len(versions) == 1 for versions in bodies.values())
    assert len(bodies) == len(auditor.flushes)


class Crash(BaseException):
    """The process ends here."""


class CrashingDisk:
    """Lets a number of disk operations pass, then the process 'ends' before or within the next."""

    def __init__(self, patch: pytest.MonkeyPatch, allowed: int, *, torn: bool) -> None:
        self._left = allowed
        self._torn = torn
        for name in ("write", "fsync", "fdatasync", "ftruncate", "rename", "unlink"):
            patch.setattr(os, name, self._wrap(getattr(os, name)))

    def _wrap(self, operation):
        def wrapped(*arguments, **options):
            if self._left < 0:
                raise Crash  # dead processes do nothing more
            self._left -= 1
            if self._left >= 0:
                return operation(*arguments, **options)
            if self._torn and operation.__name__ == "write":
                operation(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
            raise Crash

        return wrapped


@pytest.mark.parametrize("torn", [False, True])
def test_a_crash_at_any_disk_operation_is_repaired(tmp_path: Path, torn: bool) -> None:
    """Two segments; the process ends at every operation in turn, and a new one finishes."""
    crashes = 0
    for allowed in range(200):
        with FaultyAuditor() as auditor:
            folder = new_run(tmp_path / f"run-{allowed}", auditor)
            trust_root = auditor.trust_root()
            crashed = crash_once(folder, auditor, allowed, torn=torn)
            with Spool.open(folder.spool_path) as spool:
                recorder = Recorder(spool)
                record_steps(recorder, 20, 2)
                record_seal(recorder, 21)
                with open_committer(folder, spool, auditor.url, trust_root) as committer:
                    commit_all(committer)
            check_log(folder, auditor)
            check_retries(auditor)
        crashes += crashed
        if not crashed:
            break
    assert not crashed, "the number of operations is not bounded"
    assert crashes > 15


def crash_once(folder: RunFolder, auditor: FaultyAuditor, allowed: int, *, torn: bool) -> bool:
    spool = Spool.open(folder.spool_path)
    recorder = Recorder(spool)
    record_grant(recorder)
    committer = open_committer(folder, spool, auditor.url, auditor.trust_root())
    with pytest.MonkeyPatch.context() as patch:
        CrashingDisk(patch, allowed, torn=torn)
        try:
            for step in (1, 4):
                record_steps(recorder, step, 3)
                committer.commit_next()
        except Crash:
            return True
        else:
            return False
        finally:
            patch.undo()
            committer.close()
            spool.close()


def train_for_ever(path: Path, url: str, trust_root: bytes, started: Connection) -> None:
    """A training process: records and commits until it is killed."""
    folder = RunFolder(path)
    with folder.lock(), Spool.open(folder.spool_path) as spool:
        recorder = Recorder(spool)
        if not len(spool):
            record_grant(recorder)
        root = TrustRoot.from_bytes(trust_root)
        with open_committer(folder, spool, url, root) as committer:
            started.send(len(spool))
            while True:
                record_steps(recorder, len(spool) + 1, 3)
                committer.commit_next()


def test_kill_minus_nine_of_a_training_process_again_and_again(
    tmp_path: Path, auditor: FaultyAuditor
) -> None:
    generator = random.Random(9)
    folder = new_run(tmp_path / "run", auditor)
    trust_root = auditor.trust_root()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["developer_agent.committer", "hypothesis"])
    recorded = 0
    for _ in range(22):
        here, there = context.Pipe()
        arguments = (folder.path, auditor.url, trust_root.model_dump_json().encode(), there)
        process = context.Process(target=train_for_ever, args=arguments, daemon=True)
        process.start()
        assert here.poll(60)
        assert here.recv() >= recorded  # what was written survives the death of its process
        time.sleep(generator.uniform(0.0, 0.12))
        process.kill()
        process.join()
        with Spool.open(folder.spool_path) as spool:
            recorded = len(spool)
    with Spool.open(folder.spool_path) as spool:
        record_seal(Recorder(spool), 1)
        with open_committer(folder, spool, auditor.url, trust_root) as committer:
            commit_all(committer)
    check_log(folder, auditor)
    check_retries(auditor)
    assert len(auditor.flushes) > 5


@pytest.mark.parametrize("tear", range(0, 400, 13))
def test_a_torn_note_or_log_is_repaired(run: Run, tear: int) -> None:
    record_grant(run.recorder)
    with run.committer() as committer:
        record_steps(run.recorder, 1, 3)
        committer.commit_next()
    for path in (run.folder.records_path, run.folder.checkpoints_path):
        with path.open("ab") as file:
            file.write((b"x" * tear + b"\0") if tear % 2 else b"x" * tear)
    record_steps(run.recorder, 4, 2)
    with run.committer() as committer:
        commit_all(committer)
    check_log(run.folder, run.auditor)


def test_forged_answers_are_refused_and_not_stored(run: Run) -> None:
    stranger = SigningKey.generate()
    record_grant(run.recorder)

    def by_a_stranger(note: str) -> str:
        bare = notes.Note(
            notes.parse(note.encode()).text, notes.parse(note.encode()).signatures[:1]
        )
        name = notes.parse(note.encode()).signatures[1].name
        return notes.cosign(bare, name, stranger, 1_800_000_000).to_bytes().decode()

    def of_another_log(note: str) -> str:
        text = notes.parse(note.encode()).text.replace("\n1\n", "\n2\n")
        signed = notes.sign(text, run.auditor.origin, SigningKey.from_pem(key))
        return (
            notes.cosign(signed, "audit.example.org/cosigner", run.auditor.key, 1_800_000_000)
            .to_bytes()
            .decode()
        )

    def altered_in_its_signature(note: str) -> str:
        return note.replace("cosigner ", "cosigner AAAA", 1)

    def uncosigned(note: str) -> str:
        parsed = notes.parse(note.encode())
        return notes.Note(parsed.text, parsed.signatures[:1]).to_bytes().decode()

    key = run.folder.session_key.read()
    with run.committer() as committer:
        for forgery in (
            by_a_stranger,
            of_another_log,
            altered_in_its_signature,
            uncosigned,
            lambda _: "no note at all",
        ):
            run.auditor.forge = forgery
            with pytest.raises(CosignatureError):
                committer.commit_next()
            assert committer.acknowledged == 0
        run.auditor.forge = lambda note: note
        commit_all(committer)
    check_log(run.folder, run.auditor)


def test_after_stop_a_late_answer_is_dropped(run: Run) -> None:
    record_grant(run.recorder)
    with run.committer() as committer:

        def stop_while_answering(note: str) -> str:
            committer.stop()
            return note

        run.auditor.forge = stop_while_answering
        with pytest.raises(CommitterStoppedError):
            committer.commit_next()
        assert committer.acknowledged == 0
    run.auditor.forge = lambda note: note
    with run.committer() as committer:
        commit_all(committer)
    check_log(run.folder, run.auditor)


def test_a_permanent_refusal_says_what_the_server_said(run: Run) -> None:
    record_grant(run.recorder)
    run.auditor.refusal = (409, "ForkError")
    with run.committer() as committer:
        with pytest.raises(ServerRefusedError, match="ForkError") as caught:
            committer.commit_next()
        assert (caught.value.status, caught.value.error_name) == (409, "ForkError")
        assert not caught.value.temporary


def committed_run(run: Run) -> None:
    record_grant(run.recorder)
    record_steps(run.recorder, 1, 5)
    with run.committer() as committer:
        committer.commit_next()


def test_a_log_edited_after_it_was_cosigned_is_noticed(run: Run) -> None:
    committed_run(run)
    text = run.folder.records_path.read_text()
    run.folder.records_path.write_text(text.replace('"step":3', '"step":4'))
    with pytest.raises(LogDamagedError, match="changed"):
        run.committer()


def test_a_log_or_spool_cut_after_it_was_cosigned_is_noticed(run: Run) -> None:
    committed_run(run)
    log = run.folder.records_path.read_bytes()
    run.folder.records_path.write_bytes(log[: len(log) // 2])
    with pytest.raises(LogDamagedError, match="restore"):
        run.committer()
    run.folder.records_path.write_bytes(log)
    run.spool.truncate(2)
    with pytest.raises(LogDamagedError, match=r"has 2 records.* cosigned 6"):
        run.committer()


def test_a_run_without_grant_or_with_a_foreign_key_or_auditor_is_refused(run: Run) -> None:
    client = ServerClient(run.auditor.url, "token")
    stranger = SigningKey.generate()
    key = run.folder.session_key.read()
    run.folder.session_key.write(stranger.to_pem())
    with pytest.raises(SessionKeyMismatchError, match=stranger.public.hex):
        run.committer()
    run.folder.session_key.write(key)
    with pytest.raises(ThresholdError):
        Committer.open(run.folder, run.spool, client, FaultyAuditorKeys().trust_root())
    run.folder.grant.delete()
    with pytest.raises(RunFileMissingError, match="grant"):
        run.committer()


class FaultyAuditorKeys(FaultyAuditor):
    """Another auditor; its server is closed at once."""

    def __init__(self) -> None:
        super().__init__()
        self._server.server_close()
