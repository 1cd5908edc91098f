"""A developer's run against the faulty auditor, and what must hold of every log."""

import json
from dataclasses import dataclass
from pathlib import Path

from faulty_auditor import FaultyAuditor

from auditkit.evidence.canonical import sha256_hex
from auditkit.evidence.keys import SigningKey
from auditkit.evidence.log_checks import (
    CheckpointRootCheck,
    CosignedCheckpoint,
    LogCheck,
    ReceiptCheck,
)
from developer_agent.client import ServerClient
from developer_agent.committer import Committer
from developer_agent.recorder import Recorder
from developer_agent.run_folder import RunFolder
from developer_agent.spool import Spool
from schemas import (
    Environment,
    GrantRecord,
    SealRecord,
    StepRecord,
    TrustRoot,
    parse_record,
)

ENVIRONMENT = Environment(
    python="3.11",
    torch="2",
    torchvision="0",
    timm="1",
    auditkit="0",
    platform="linux",
    cpu_capability="AVX2",
    threads=1,
    device="cpu",
)


def new_run(path: Path, auditor: FaultyAuditor) -> RunFolder:
    """A run folder right after its session was granted."""
    folder = RunFolder.create(path)
    key = SigningKey.generate()
    folder.session_key.write(key.to_pem())
    folder.grant.write(auditor.grant(key))
    return folder


def open_committer(folder: RunFolder, spool: Spool, url: str, trust_root: TrustRoot) -> Committer:
    return Committer.open(folder, spool, ServerClient(url, "token", timeout=5.0), trust_root)


@dataclass(frozen=True)
class Run:
    """An open run: everything a training thread has at hand."""

    folder: RunFolder
    spool: Spool
    recorder: Recorder
    auditor: FaultyAuditor
    trust_root: TrustRoot

    def committer(self) -> Committer:
        return open_committer(self.folder, self.spool, self.auditor.url, self.trust_root)


def record_grant(recorder: Recorder) -> None:
    recorder.record(
        GrantRecord,
        grant_digest="a" * 64,
        code_digest="b" * 64,
        image_digest=None,
        mode="process",
        environment=ENVIRONMENT,
    )


def record_steps(recorder: Recorder, first: int, count: int) -> None:
    for step in range(first, first + count):
        recorder.record(StepRecord, **step_fields(step))


def step_fields(step: int) -> dict[str, object]:
    return {
        "step": step,
        "epoch": step // 10,
        "batch": f"{step:064x}",
        "task_loss": 2.302585 / step,
        "mint_loss": 0.693147 / step,
        "objective": 2.0 / step,
        "task_accuracy": 0.5,
        "mint_accuracy": 0.75,
        "learning_rate": 0.1,
        "task_weight": 1.0,
        "mint_weight": 1.0,
    }


def record_seal(recorder: Recorder, step: int) -> None:
    digest = "c" * 64
    recorder.record(
        SealRecord,
        step=step,
        weights_digest=digest,
        description_digest=digest,
        scores_digest=digest,
    )


def check_log(folder: RunFolder, auditor: FaultyAuditor) -> None:
    """No record lost, doubled or moved; one receipt per segment; both sides agree byte by byte."""
    with Spool.open(folder.records_path) as log, Spool.open(folder.spool_path) as spool:
        lines, recorded = list(log.lines()), list(spool.lines())
    assert lines == auditor.records
    documents = [json.loads(line) for line in lines]
    assert [document.pop("sequence") for document in documents] == list(range(len(lines)))
    without_receipts = [item for item in documents if item["kind"] != "receipt"]
    expected = [json.loads(line) for line in recorded]
    for document in expected:
        del document["sequence"]
    assert without_receipts == expected
    times = [document["time_ms"] for document in documents]
    assert times == sorted(times)
    checks: tuple[LogCheck, ...] = (CheckpointRootCheck(auditor.origin), ReceiptCheck())
    upcoming = (
        CosignedCheckpoint(checkpoint, sha256_hex(note), None)
        for checkpoint, note in zip(auditor.checkpoints, auditor.cosigned_notes, strict=True)
    )
    covered = 0
    for index, line in enumerate(lines):
        if covered <= index:
            found = next(upcoming)
            covered = found.size
            for check in checks:
                check.observe_checkpoint(found)
        for check in checks:
            check.observe(line, parse_record(line))
    for check in checks:
        check.finish()
    assert sum(document["kind"] == "receipt" for document in documents) == max(
        0, len(auditor.flushes) - 1
    )
    assert not folder.pending.exists()
