"""How fast, and in how much memory, a whole evidence bundle is verified offline.

A real session of N steps is staged with real keys: order, request, grant, the schedule's own
batches, a checkpoint with two signatures every 100 records and its receipt, states, evaluation,
calibration, seal and signed model. It is written to a file and verified from that file by a fresh
process, which must find nothing wrong.

The floor is what no verifier can leave out, measured in the same process right afterwards, from the
same file: SHA-256 of every line, `json.loads` of every line, and Ed25519 over every checkpoint,
once for the session key and once for the auditor's.

    python benchmarks/bundle_verification.py --records 100000 1000000

Printed on 2026-11-21 on one core of an AMD EPYC server, Python 3.11, with many other programs
running, so CPU time is what is compared:

| records | bundle, MB | CPU seconds | records/s | peak memory, MB | imports, MB | times the floor |
|---:|---:|---:|---:|---:|---:|---:|
| 101,425 | 43 | 4.0 | 25,117 | 91 | 82 | 5.7 |
| 1,011,195 | 418 | 44.7 | 22,634 | 92 | 82 | 5.8 |

Beyond the floor, every batch is derived again from the nonce (about a third of the time), and every
line is validated against its schema and compared with its RFC 8785 form.
"""

import argparse
import hashlib
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
from safetensors.numpy import load, save

from auditkit.evidence import dsse, merkle, notes, statements
from auditkit.evidence.bundle import (
    CHECKPOINTS,
    LINE_LIMITS,
    RECORDS,
    Bundle,
    Lines,
    QuotedNotes,
    open_bundle,
    write_bundle_to,
)
from auditkit.evidence.canonical import sha256_hex, to_bytes
from auditkit.evidence.derivation import (
    LEAF_BYTES,
    Schedule,
    batch_digests,
    derive_split,
    learning_rate,
)
from auditkit.evidence.keys import PublicKey, SigningKey
from auditkit.evidence.policy import split_sizes
from auditkit.evidence.verify import COSIGNER_SUFFIX, verify_bundle
from schemas import (
    AuditOrder,
    CalibrationRecord,
    CohortMetrics,
    Environment,
    EvaluationRecord,
    ExposurePolicy,
    GrantRecord,
    ModelConfig,
    ModelDescription,
    Normalisation,
    OptimiserConfig,
    ReceiptRecord,
    Record,
    Role,
    SampleCommitment,
    SealRecord,
    SessionGrant,
    SessionRequest,
    SplitFractions,
    StateRecord,
    StepRecord,
    TrainingConfig,
    TrustRoot,
)

CHECKPOINT_RECORDS = 100  # one second of a training at 100 steps a second
STATE_INTERVAL_STEPS = 1000
POOL_SIZE = 50_000
TEST_SIZE = 1000
STEP_MS = 10
SPLIT = SplitFractions(external=0.25, calibration=0.25, silent=0.025, told_only=0.025)
BATCH_SIZE = 32
STEPS_PER_EPOCH = math.ceil(POOL_SIZE * 0.475 / BATCH_SIZE)
STARTED = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
ORIGIN = "audit.example.org"
SESSION = "20260301-abcdef"
DIGEST = "5a" * 32
PIECE_BYTES = 2**20
MEGABYTE = 1e6
KEYS = {role: SigningKey.generate() for role in ("root", "order", "session", "cosigner", "verdict")}
DEVELOPER = SigningKey.generate()


@dataclass(frozen=True)
class Documents:
    """What is signed before the training."""

    request: SessionRequest
    grant: SessionGrant
    bundle: Bundle
    trust_root: TrustRoot


def leaves(count: int) -> bytes:
    """Return manifest leaves of samples that nobody will ask for."""
    return np.random.default_rng(count).bytes(count * LEAF_BYTES)


def commitment(data: bytes) -> SampleCommitment:
    """Return what the request says about these samples."""
    tree = merkle.Frontier()
    for start in range(0, len(data), LEAF_BYTES):
        tree.append(merkle.leaf_hash(data[start : start + LEAF_BYTES]))
    return SampleCommitment(root=tree.root().hex(), size=tree.size)


def documents(epochs: int) -> Documents:
    """Stage everything up to the grant."""
    end = STARTED + timedelta(days=365)
    trust_root = TrustRoot(
        auditor="The Auditor",
        origin=ORIGIN,
        version=1,
        issued_at=STARTED - timedelta(days=1),
        expires_at=end,
        keys={key.public.keyid: key.public.hex for key in KEYS.values()},
        roles={role: Role(keyids=(key.public.keyid,)) for role, key in KEYS.items()},
    )
    order = AuditOrder(
        order_id="benchmark",
        auditor="The Auditor",
        developer="Example Imaging Ltd",
        purpose="measure the verifier",
        issued_at=STARTED,
        expires_at=end,
        split=SPLIT,
        exposure=ExposurePolicy(most_epochs=epochs),
        allow_without_container=True,
        most_session_hours=24.0 * 300,
    )
    order_payload = statements.make(
        statements.ORDER_PREDICATE, order, statements.subject("order", order.order_id, order)
    )
    pool, test = leaves(POOL_SIZE), leaves(TEST_SIZE)
    request = SessionRequest(
        order_digest=sha256_hex(order_payload),
        developer=order.developer,
        config=TrainingConfig(
            name="benchmark",
            model=ModelConfig(architecture="resnet18", classes=10, channels=3, height=32, width=32),
            optimiser=OptimiserConfig(learning_rate=0.1),
            epochs=epochs,
            batch_size=BATCH_SIZE,
            external_batch_size=BATCH_SIZE,
            state_interval_steps=STATE_INTERVAL_STEPS,
        ),
        code_digest=DIGEST,
        pool=commitment(pool),
        test=commitment(test),
        session_key=DEVELOPER.public.hex,
        environment=Environment(
            python="3.11", torch="2", torchvision="0", timm="1", auditkit="0", platform="Linux",
            cpu_capability="AVX2", threads=1, device="cpu",
        ),
        requested_at=STARTED,
    )  # fmt: skip
    request_bytes = to_bytes(request)
    grant = SessionGrant(
        session_id=SESSION,
        session_number=1,
        origin=f"{ORIGIN}/sessions/{SESSION}",
        request_digest=sha256_hex(request_bytes),
        order_digest=request.order_digest,
        nonce=DIGEST,
        split=split_sizes(SPLIT, POOL_SIZE),
        session_key=request.session_key,
        valid_from=STARTED,
        valid_until=STARTED + timedelta(days=300),
        code_commitment=None,
    )
    grant_payload = statements.make(
        statements.GRANT_PREDICATE, grant, statements.subject("grant", SESSION, grant)
    )
    bundle = Bundle(
        order=dsse.sign(order_payload, [KEYS["order"]]).to_bytes(),
        request=request_bytes,
        grant=dsse.sign(grant_payload, [KEYS["session"]]).to_bytes(),
        records=(),
        checkpoints=(),
        pool_leaves=pool,
        test_leaves=test,
    )
    return Documents(request, grant, bundle, trust_root)


def model(documents: Documents) -> dict[str, bytes]:
    """Stage the members that a submission adds."""
    grant = documents.grant
    sizes = {**grant.split.model_dump(), "test": TEST_SIZE}
    generator = np.random.default_rng(1)
    tensors: dict[str, np.ndarray] = {}
    for name, size in sizes.items():
        tensors[f"score/{name}"] = generator.normal(size=size).astype(np.float32)
        tensors[f"loss/{name}"] = generator.exponential(size=size).astype(np.float32)
        tensors[f"correct/{name}"] = generator.random(size) < 0.9
    weights = save({"weight": np.arange(4, dtype=np.float32)})
    description = ModelDescription(
        session_id=SESSION,
        model=documents.request.config.model,
        taps=documents.request.config.taps,
        mint=documents.request.config.mint,
        normalisation=Normalisation(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)),
        class_names=tuple("0123456789"),
        weights_digest=sha256_hex(weights),
        parameters=4,
    )
    return {"weights": weights, "description": to_bytes(description), "scores": save(tensors)}


def evaluation(scores: bytes) -> tuple[CohortMetrics, ...]:
    """Return what the scores say, computed as the developer's agent does."""
    # Not imported above: the process that verifies must not pay for it.
    from auditkit.mint.metrics import cohort_metrics  # noqa: PLC0415
    from auditkit.mint.scores import CohortScores  # noqa: PLC0415

    tensors = load(scores)
    names = [name.removeprefix("score/") for name in tensors if name.startswith("score/")]
    return cohort_metrics(
        {
            name: CohortScores(
                *(tensors[f"{part}/{name}"] for part in ("score", "loss", "correct"))
            )
            for name in names
        }
    )


def steps(documents: Documents) -> Iterator[Record]:
    """Yield the steps and the states between them."""
    config, nonce = documents.request.config, bytes.fromhex(documents.grant.nonce)
    split = derive_split(nonce, documents.grant.split)
    schedule = Schedule(nonce, split, BATCH_SIZE, BATCH_SIZE, config.epochs)
    total = schedule.total_steps
    first = {"task_loss": 2.302585092994046, "mint_loss": 0.6931471805599453}
    for epoch in range(config.epochs):
        for place, batch in enumerate(batch_digests(documents.bundle.pool_leaves, schedule, epoch)):
            step = epoch * schedule.steps_per_epoch + place + 1
            decay = 1.0 - 0.9 * (step - 1) / total
            losses = {name: float(np.float32(loss * decay)) for name, loss in first.items()}
            if step == 1:
                start = losses
            yield StepRecord.model_construct(
                sequence=0,
                time_ms=0,
                step=step,
                epoch=epoch,
                batch=batch,
                **losses,
                objective=sum(losses[name] / start[name] for name in losses),
                task_accuracy=0.8765432109876543,
                mint_accuracy=0.6543210987654321,
                learning_rate=learning_rate(config.optimiser, step, total),
                task_weight=1.0,
                mint_weight=1.0,
            )
            if step % STATE_INTERVAL_STEPS == 0 and step != total:
                yield state(step, sha256_hex(str(step).encode()))


def state(step: int, weights_digest: str) -> StateRecord:
    """Return the record of a saved state."""
    return StateRecord(
        sequence=0, time_ms=0, step=step, state_digest=DIGEST, weights_digest=weights_digest
    )


def story(documents: Documents, members: dict[str, bytes]) -> Iterator[Record]:
    """Yield the records of the whole training; numbers, times and receipts are still to come."""
    common = {"sequence": 0, "time_ms": 0}
    request, grant = documents.request, documents.grant
    digests = {f"{name}_digest": sha256_hex(data) for name, data in members.items()}
    payload = dsse.Envelope.from_bytes(documents.bundle.grant).payload
    yield GrantRecord(
        grant_digest=sha256_hex(payload),
        code_digest=request.code_digest,
        image_digest=None,
        mode="process",
        environment=request.environment,
        **common,
    )
    yield state(0, DIGEST)
    yield from steps(documents)
    last = request.config.epochs * STEPS_PER_EPOCH
    yield state(last, digests["weights_digest"])
    yield EvaluationRecord(
        step=last,
        epoch=request.config.epochs - 1,
        cohorts=evaluation(members["scores"]),
        **common,
    )
    yield CalibrationRecord(
        scores_digest=digests["scores_digest"],
        calibration_size=grant.split.calibration,
        **common,
    )
    yield SealRecord(step=last, **digests, **common)


def line_of(record: Record) -> bytes:
    """Return the RFC 8785 form; for steps by a shorter way that is right for their numbers."""
    if not isinstance(record, StepRecord):
        return to_bytes(record)
    fields = {name: value for name, value in record.__dict__.items() if value is not None}
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return text.replace(".0,", ",").encode() if "e-" not in text else to_bytes(record)


def write_log(
    documents: Documents, members: dict[str, bytes], records: BinaryIO, checkpoints: BinaryIO
) -> None:
    """Write the log and its cosigned checkpoints, one per line."""
    tree = merkle.Frontier()
    origin = documents.grant.origin
    begin = int(STARTED.timestamp() * 1000)
    receipt: ReceiptRecord | None = None
    for record in story(documents, members):
        for found in [receipt, record] if receipt else [record]:
            numbered = found.model_copy(
                update={"sequence": tree.size, "time_ms": begin + tree.size * STEP_MS}
            )
            line = line_of(numbered)
            tree.append(merkle.leaf_hash(line))
            records.write(line + b"\n")
        receipt = None
        if tree.size % CHECKPOINT_RECORDS == 0 or isinstance(record, SealRecord):
            text = notes.Checkpoint(origin, tree.size, tree.root()).to_text()
            note = notes.sign(text, origin, DEVELOPER)
            time_s = math.ceil((begin + tree.size * STEP_MS) / 1000) + 1
            cosigned = notes.cosign(note, ORIGIN + COSIGNER_SUFFIX, KEYS["cosigner"], time_s)
            checkpoints.write(to_bytes(cosigned.to_bytes().decode()) + b"\n")
            receipt = ReceiptRecord(
                sequence=0,
                time_ms=0,
                checkpoint_size=tree.size,
                checkpoint_digest=sha256_hex(cosigned.to_bytes()),
            )


def pieces(path: Path) -> Iterator[bytes]:
    """Yield a file in pieces."""
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            yield piece


def write_session(epochs: int, folder: Path) -> tuple[Path, Path]:
    """Stage a session and write its bundle and the trust root; return where they are."""
    staged = documents(epochs)
    members = model(staged)
    records, checkpoints = folder / "records", folder / "checkpoints"
    with records.open("wb") as record_file, checkpoints.open("wb") as checkpoint_file:
        write_log(staged, members, record_file, checkpoint_file)
    bundle = replace(
        staged.bundle,
        records=Lines(partial(pieces, records), LINE_LIMITS[RECORDS]),
        checkpoints=QuotedNotes(Lines(partial(pieces, checkpoints), LINE_LIMITS[CHECKPOINTS])),
        **members,
    )
    path, trust_root = folder / "evidence.bundle", folder / "trust-root.json"
    with path.open("wb") as file:
        write_bundle_to(bundle, file)
    trust_root.write_bytes(to_bytes(staged.trust_root))
    records.unlink()
    checkpoints.unlink()
    return path, trust_root


def peak_megabytes() -> float:
    """Return the largest resident set of this process so far."""
    # Not `ru_maxrss`: a process takes that over from the one that started it.
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / MEGABYTE


def floor(bundle: Bundle, session_key: PublicKey, auditor_key: PublicKey) -> float:
    """Return the CPU seconds of hashing and parsing every line and verifying every signature."""
    origin = SessionGrant.from_bytes(grant_predicate(bundle)).origin
    keys = [
        notes.VerifierKey.ed25519(origin, session_key),
        notes.VerifierKey.cosignature(ORIGIN + COSIGNER_SUFFIX, auditor_key),
    ]
    signed = [messages(note, keys) for note in bundle.checkpoints]
    started = time.process_time()
    for line in bundle.records:
        hashlib.sha256(line).digest()
        json.loads(line)
    for pairs in signed:
        for key, (signature, message) in zip((session_key, auditor_key), pairs, strict=True):
            key.verify(signature, message)
    return time.process_time() - started


def grant_predicate(bundle: Bundle) -> bytes:
    """Return the grant without its envelope and statement."""
    payload = dsse.Envelope.from_bytes(bundle.grant).payload
    return to_bytes(statements.parse(payload, statements.GRANT_PREDICATE, SessionGrant))


def messages(note_bytes: bytes, keys: list[notes.VerifierKey]) -> list[tuple[bytes, bytes]]:
    """Return signature and signed message of a plain signature and of a cosignature."""
    note = notes.parse(note_bytes)
    found = {(line.name, line.key_hash): line.signature for line in note.signatures}
    plain, stamped = (found[key.name, key.key_hash] for key in keys)
    time_s = int.from_bytes(stamped[: notes.TIMESTAMP_BYTES], "big")
    cosigned = f"{notes.COSIGNATURE_HEADER}\ntime {time_s}\n{note.text}"
    return [(plain, note.text.encode()), (stamped[notes.TIMESTAMP_BYTES :], cosigned.encode())]


def verify(path: Path, trust_root_path: Path) -> dict[str, float]:
    """Verify a bundle file in this process; return what it took."""
    trust_root = TrustRoot.from_bytes(trust_root_path.read_bytes())
    before = peak_megabytes()
    with path.open("rb") as file:
        started = time.process_time()
        bundle = open_bundle(file)
        report = verify_bundle(bundle, trust_root, now=STARTED + timedelta(days=30))
        seconds = time.process_time() - started
        peak = peak_megabytes()
        failed = [found for found in report.findings if found.outcome == "failed"]
        if failed:
            raise SystemExit(f"the staged session does not hold: {failed}")
        auditor_key = trust_root.keys[trust_root.roles["cosigner"].keyids[0]]
        session_key = SessionRequest.from_bytes(bundle.request).session_key
        keys = (PublicKey.from_hex(key) for key in (session_key, auditor_key))
        return {
            "records": len(bundle.records),
            "megabytes": path.stat().st_size / MEGABYTE,
            "seconds": seconds,
            "before": before,
            "peak": peak,
            "floor": floor(bundle, *keys),
        }


def main() -> None:
    """Print one row per size; `--verify` is how the fresh process is called."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--folder", type=Path, help="where the bundles are written")
    parser.add_argument("--verify", type=Path, nargs=2, metavar=("BUNDLE", "TRUST_ROOT"))
    arguments = parser.parse_args()
    if arguments.verify:
        print(json.dumps(verify(*arguments.verify)))
        return
    print(
        "| records | bundle, MB | CPU seconds | records/s | peak memory, MB "
        "| imports, MB | times the floor |"
    )
    print("|---:|---:|---:|---:|---:|---:|---:|")
    for records in arguments.records:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            paths = write_session(max(1, round(records / STEPS_PER_EPOCH)), Path(folder))
            command = [sys.executable, __file__, "--verify", *map(str, paths)]
            found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        print(
            f"| {found['records']:,.0f} | {found['megabytes']:.0f} | {found['seconds']:.1f} "
            f"| {found['records'] / found['seconds']:,.0f} | {found['peak']:.0f} "
            f"| {found['before']:.0f} | {found['seconds'] / found['floor']:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
