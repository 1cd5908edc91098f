"""Checks that read a session's log once, record by record, in constant memory.

Each check knows one rule. `observe_checkpoint` is called for every checkpoint before the first
record that it covers, `observe` for every record in order, `finish` at the end; all raise the
rule's typed error. `finish` returns what was found, for people.

A check may hold something for every sample or state of the session, but nothing for every record or
checkpoint.
"""

import math
from array import array
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from typing_extensions import override

from auditkit.evidence import merkle
from auditkit.evidence.continuations import OpenContinuation, is_superseded
from auditkit.evidence.derivation import (
    Schedule,
    batch_digests,
    derive_split,
    learning_rate,
)
from auditkit.evidence.errors import EvidenceError
from auditkit.evidence.findings import Result, Skipped, Warned
from auditkit.evidence.notes import Checkpoint
from schemas import (
    AnyRecord,
    AuditOrder,
    CalibrationRecord,
    ContinuationRecord,
    GrantRecord,
    ReceiptRecord,
    Record,
    ResumeRecord,
    SealRecord,
    SessionContinuation,
    SessionGrant,
    SessionRequest,
    StateRecord,
    StepRecord,
)

CLOCK_TOLERANCE_SECONDS = 120.0  # agent's clock against the auditor's, network delay included
SECONDS_PER_MINUTE = 60.0
COSIGNATURE_GRAIN_SECONDS = 1  # cosignature times are whole seconds, rounded down
OBJECTIVE_TOLERANCE = 1e-3  # relative; losses are computed in single precision or bfloat16
LEAST_NORMALISER = 1e-6  # a first loss below it does not divide Eq. 1; as in training
LARGEST_LOSS = float(np.finfo(np.float32).max)  # losses are reported in single precision
NO_SEAL = "the log has no seal"


class LogIncompleteError(EvidenceError):
    """The log does not run from its grant record to its seal without a gap."""


class CheckpointRootError(EvidenceError):
    """A checkpoint does not describe the records that are here."""


class ReceiptInterlockError(EvidenceError):
    """A record that should commit to the auditor's cosignature is missing or wrong."""


class RunIdentityError(EvidenceError):
    """The run declares other code, another image or another grant than was granted."""


class ContinuationLogError(EvidenceError):
    """The log does not say, or not where it must, that it goes on in a fresh container."""


class ScheduleError(EvidenceError):
    """A step is not the one that the nonce prescribes."""


class ExposureError(EvidenceError):
    """Samples of D were not shown equally often."""


class MintTrainingError(EvidenceError):
    """T was not trained as ordered."""


class ImpossibleNumberError(EvidenceError):
    """Recorded numbers contradict each other."""


class ImpossibleTimeError(EvidenceError):
    """Recorded times contradict the auditor's clock."""


class StateError(EvidenceError):
    """Saved states are missing, or contradict the rest of the log."""


class CustodyError(EvidenceError):
    """The log contradicts who held T."""


class CalibrationError(EvidenceError):
    """The calibration scores were not committed as they must be."""


@dataclass(frozen=True)
class CosignedCheckpoint:
    """A checkpoint as the bundle has it.

    Attributes:
        checkpoint: what it says.
        digest: SHA-256 of the cosigned note.
        cosigned_at: when the auditor cosigned it, in Unix seconds; None when it is not known.
    """

    checkpoint: Checkpoint
    digest: str
    cosigned_at: int | None

    @property
    def size(self) -> int:
        """Number of records that it covers."""
        return self.checkpoint.size


class LogCheck:
    """One rule over the log."""

    name: ClassVar[str]
    claim: ClassVar[str]

    reads: ClassVar[tuple[type[Record], ...]] = (Record,)
    """Kinds of record that `observe` is called for."""

    def observe_checkpoint(self, found: CosignedCheckpoint) -> None:
        """Take in the next checkpoint, before the first record that it covers."""

    def observe(self, line: bytes, record: AnyRecord) -> None:
        """Take in the next record."""

    def finish(self) -> Result:
        """Check what can only be known at the end; return what was found."""
        raise NotImplementedError


class CompleteLogCheck(LogCheck):
    """Grammar of a log: grant first, seal last, sequence numbers from 0 without a gap."""

    name = "log-complete"
    claim = "The log runs from the grant to the seal, and no record is missing"

    def __init__(self) -> None:
        self._size = 0
        self._sealed = False
        self._resumes = 0
        self._steps = 0

    @override
    def observe(self, line: bytes, record: AnyRecord) -> None:
        if record.sequence != self._size:
            raise LogIncompleteError(
                f"record {self._size} carries sequence number {record.sequence}; "
                "records are missing, doubled or out of order"
            )
        if (self._size == 0) != (record.kind == "grant"):
            raise LogIncompleteError(
                f"record {self._size} is of kind {record.kind!r}; a log has one grant record, "
                "and it is the first"
            )
        if self._sealed:
            raise LogIncompleteError(f"record {self._size} follows the seal; nothing may")
        self._size += 1
        self._sealed = record.kind == "seal"
        self._resumes += record.kind == "resume"
        self._steps += record.kind == "step"

    @override
    def finish(self) -> str:
        if not self._sealed:
            raise LogIncompleteError(
                f"the log ends after {self._size} records without a seal: the training is still "
                "running or was broken off; resume it and let it finish"
            )
        times = "once" if self._resumes == 1 else f"{self._resumes} times"
        resumed = f", resumed {times} after a crash" if self._resumes else ""
        return f"{self._size} records, {self._steps} of them steps{resumed}"


class CheckpointRootCheck(LogCheck):
    """Every checkpoint commits to exactly the records here (RFC 6962, section 2.1)."""

    name = "checkpoint-roots"
    claim = "Every checkpoint commits to exactly these records, and the last covers all of them"

    def __init__(self, origin: str) -> None:
        self._frontier = merkle.Frontier()
        self._next: Checkpoint | None = None
        self._count = 0
        self._origin = origin
        self._covered = 0

    @override
    def observe_checkpoint(self, found: CosignedCheckpoint) -> None:
        self._check_reached()
        checkpoint, size = found.checkpoint, self._frontier.size
        if checkpoint.size <= size:
            raise CheckpointRootError(
                f"checkpoint of size {checkpoint.size} follows one of size {size}; sizes must grow"
            )
        if checkpoint.origin != self._origin:
            raise CheckpointRootError(
                f"checkpoint {checkpoint.size} is for {checkpoint.origin!r}, not "
                f"{self._origin!r}: it belongs to another session"
            )
        self._next = checkpoint
        self._count += 1

    @override
    def observe(self, line: bytes, record: AnyRecord) -> None:
        self._frontier.append(merkle.leaf_hash(line))
        expected = self._next
        if expected is None or expected.size != self._frontier.size:
            return
        if expected.root != self._frontier.root():
            raise CheckpointRootError(
                f"the records up to {expected.size} hash to {self._frontier.root().hex()}, the "
                f"checkpoint says {expected.root.hex()}: a record was changed, added or removed"
            )
        self._next = None
        self._covered = expected.size

    @override
    def finish(self) -> str:
        self._check_reached()
        if self._covered != self._frontier.size:
            raise CheckpointRootError(
                f"{self._frontier.size - self._covered} records after the last checkpoint are "
                "covered by none; send them with `auditkit sync`"
            )
        return f"{self._count} checkpoints match the Merkle tree of {self._frontier.size} records"

    def _check_reached(self) -> None:
        if self._next is not None:
            raise CheckpointRootError(
                f"a checkpoint covers {self._next.size} records and only {self._frontier.size} "
                "are here: the log was cut"
            )


class ReceiptCheck(LogCheck):
    """Receipt interlock: the first record after checkpoint k is the receipt for checkpoint k."""

    name = "receipt-interlock"
    claim = "After each checkpoint, the log commits to the auditor's unpredictable cosignature"

    def __init__(self) -> None:
        self._latest: tuple[CosignedCheckpoint, ...] = ()  # passed, and next
        self._index = 0
        self._receipts = 0

    @override
    def observe_checkpoint(self, found: CosignedCheckpoint) -> None:
        self._latest = (*self._latest[-1:], found)

    @override
    def observe(self, line: bytes, record: AnyRecord) -> None:
        index = self._index
        self._index += 1
        due = next((found for found in self._latest if found.size == index), None)
        if record.kind == "receipt":
            self._observe_receipt(record, index, due)
        elif due is not None:
            raise ReceiptInterlockError(
                f"record {index} follows a checkpoint and is no receipt for it: it may have "
                "been written before the cosignature existed"
            )

    def _observe_receipt(
        self, record: ReceiptRecord, index: int, due: CosignedCheckpoint | None
    ) -> None:
        if due is None:
            raise ReceiptInterlockError(
                f"record {index} is a receipt, and no checkpoint ends right before it"
            )
        if (record.checkpoint_size, record.checkpoint_digest) != (index, due.digest):
            raise ReceiptInterlockError(
                f"record {index} is a receipt for a checkpoint of size "
                f"{record.checkpoint_size} that differs from the one the auditor cosigned at "
                f"{index}"
            )
        self._receipts += 1

    @override
    def finish(self) -> Result:
        if not self._receipts:
            return Warned(
                "one checkpoint covers the whole log, so no record commits to a cosignature: it "
                "may have been written in one go"
            )
        return f"{self._receipts} cosignatures are committed to by the log"


class RunIdentityCheck(LogCheck):
    """The grant record repeats what was granted, and a resumed run what it began with."""

    name = "run-identity"
    claim = "The log is of this grant, and declares the granted code and image"
    reads = (GrantRecord, ResumeRecord)

    def __init__(self, request: SessionRequest, grant_digest: str) -> None:
        self._request = request
        self._grant_digest = grant_digest
        self._mode = "process" if request.image_digest is None else "container"

    @override
    def observe(self, line: bytes, record: AnyRecord) -> None:
        if record.kind == "grant":
            self._compare("grant", record.grant_digest, self._grant_digest)
            self._compare("training code", record.code_digest, self._request.code_digest)
            self._compare("container image", record.image_digest, self._request.image_digest)
            self._compare("a run in a", record.mode, self._mode)
        if isinstance(record, GrantRecord | ResumeRecord):
            self._compare("environment", record.environment, self._request.environment)

    def _compare(self, what: str, found: object, expected: object) -> None:
        if found != expected:
            raise RunIdentityError(
                f"the log declares {what} {found}, the request that was granted {expected}"
            )

    @override
    def finish(self) -> str:
        # That the log has its grant record is the first rule of `log-complete`.
        return f"code {self._request.code_digest[:16]}…, run in a {self._mode}"


class ContinuationCheck(LogCheck):
    """Where the auditor's records ended, the log names the continuation that it goes on under."""

    name = "continuations-logged"
    claim = "Wherever a further container took over, the log says so, and nothing lies in between"

    def __init__(self, continuations: Sequence[OpenContinuation]) -> None:
        self._continuations = continuations
        self._pending = deque(
            (found, is_superseded(continuations, position))
            for position, found in enumerate(continuations)
        )
        self._places = {found.answer.log_size: _Place() for found in continuations}
        self._passed = self._places.get(0)
        self._index = 0

    @override
    def observe_checkpoint(self, found: CosignedCheckpoint) -> None:
        if self._passed is not None:
            self._passed.following = found.cosigned_at
        self._passed = self._places.get(found.size)
        if self._passed is not None:
            self._passed.ends = True
            self._passed.cosigned_at = found.cosigned_at
            self._passed.following = None

    @override
    def observe(self, line: bytes, record: AnyRecord) -> None:
        index = self._index
        self._index += 1
        if record.kind == "step" and not self._pending:
            return
        if record.kind == "continuation":
            self._observe_continuation(record, index)
        elif not isinstance(record, GrantRecord | ReceiptRecord):
            due = self._due(index, None)
            if due is not None:
                raise ContinuationLogError(
                    f"record {index} is of kind {record.kind!r}; continuation {due.answer.number} "
                    f"was granted at size {due.answer.log_size}, and the log must name it before "
                    "it goes on"
                )

    def _observe_continuation(self, record: ContinuationRecord, index: int) -> None:
        due = self._due(index, record.continuation_digest)
        if due is None:
            raise ContinuationLogError(
                f"record {index} names a continuation, and none was granted at this place"
            )
        if record.continuation_digest != due.digest:
            raise ContinuationLogError(
                f"record {index} names continuation {record.continuation_digest}, granted was "
                f"{due.digest} (number {due.answer.number})"
            )
        self._pending.popleft()

    def _due(self, index: int, named: str | None) -> OpenContinuation | None:
        """Return the continuation that a record at this place must name, if there is one.

        The container of a superseded one is gone without a trace, so the log may name it or not.
        """
        while self._pending:
            found, superseded = self._pending[0]
            if found.answer.log_size > index:
                return None
            if not superseded or found.digest == named:
                return found
            self._pending.popleft()
        return None

    @override
    def finish(self) -> str:
        if self._pending:
            answer = self._pending[-1][0].answer
            raise ContinuationLogError(
                f"continuation {answer.number} was granted at size {answer.log_size}, and the log "
                "does not name it"
            )
        for found in self._continuations:
            self._check_place(found.answer)
        if not self._continuations:
            return "one container, or one process, wrote the whole log"
        count = len(self._continuations)
        return f"the log went on in {count} further container{'s' if count > 1 else ''}"

    def _check_place(self, answer: SessionContinuation) -> None:
        """A continuation lies after the checkpoint of its size and before the next one."""
        place = self._places[answer.log_size]
        if answer.log_size and not place.ends:
            raise ContinuationLogError(
                f"continuation {answer.number} was granted at size {answer.log_size}, where no "
                "checkpoint ends"
            )
        granted = answer.granted_at.timestamp()
        # Cosignatures tell whole seconds, rounded down.
        if place.cosigned_at is not None and place.cosigned_at > granted:
            raise ContinuationLogError(
                f"continuation {answer.number} was granted {place.cosigned_at - granted:.3f} s "
                f"before the auditor cosigned the {answer.log_size} records that it goes on from"
            )
        if place.following is not None and place.following + COSIGNATURE_GRAIN_SECONDS <= granted:
            raise ContinuationLogError(
                f"continuation {answer.number} was granted {granted - place.following:.3f} s after "
                "the auditor cosigned a checkpoint of its key, which was not certified yet"
            )


@dataclass
class _Place:
    """What the checkpoints say about a size of the log.

    Attributes:
        ends: whether one ends here.
        cosigned_at: when that one was cosigned; None: unknown, or there is none.
        following: when the next one was cosigned; likewise.
    """

    ends: bool = False
    cosigned_at: int | None = None
    following: int | None = None


class ScheduleCheck(LogCheck):
    """Batch contents, their order, the epochs and the learning rate follow from the nonce."""

    name = "schedule"
    claim = "Every step used the batch, epoch and learning rate that the nonce prescribes"
    reads = (StepRecord, ResumeRecord)

    def __init__(self, request: SessionRequest, grant: SessionGrant, pool_leaves: bytes) -> None:
        config = request.config
        self._schedule = Schedule(
            nonce=bytes.fromhex(grant.nonce),
            split=derive_split(bytes.fromhex(grant.nonce), grant.split),
            batch_size=config.batch_size,
            external_batch_size=config.external_batch_size,
            epochs=config.epochs,
        )
        self._per_epoch = self._schedule.steps_per_epoch
        self._total = self._schedule.total_steps
        self._optimiser = config.optimiser
        self._leaves = pool_leaves
        self._last = 0
        self._epoch = -1
        self._digests: list[str] = []  # of the batches of that epoch

    @override
    def observe(self, line: bytes, record: AnyRecord) -> None:
        if record.kind == "resume":
            if record.step > self._last or record.discarded_steps != self._last - record.step:
                raise ScheduleError(
                    f"record {record.sequence} resumes after step {record.step} and discards "
                    f"{record.discarded_steps} steps, but the log stands at step {self._last}"
                )
            self._last = record.step
        elif record.kind == "step":
            self._observe_step(record)

    def _observe_step(self, record: StepRecord) -> None:
        step = self._last + 1
        if step > self._total:
            raise ScheduleError(f"step {record.step} follows the last of {self._total} steps")
        epoch, place = divmod(step - 1, self._per_epoch)
        if (record.step, record.epoch) != (step, epoch):
            raise ScheduleError(
                f"record {record.sequence} is step {record.step} of epoch {record.epoch}; the "
                f"schedule has step {step} of epoch {epoch} here"
            )
        if epoch != self._epoch:
            self._epoch = epoch
            self._digests = batch_digests(self._leaves, self._schedule, epoch)
        if record.batch != self._digests[place]:
            raise ScheduleError(
                f"step {record.step} trained on another batch than the nonce prescribes"
            )
        rate = learning_rate(self._optimiser, record.step, self._total)
        if not math.isclose(record.learning_rate, rate, rel_tol=1e-9):
            raise ScheduleError(
                f"step {record.step} used learning rate {record.learning_rate:g}, the "
                f"configuration gives {rate:g}"
            )
        self._last = record.step

    @override
    def finish(self) -> str:
        if self._last != self._total:
            raise ScheduleError(f"the training stands at step {self._last} of {self._total}")
        return f"{self._last} steps in {self._schedule.epochs} epochs, batch by batch"


class ExposureCheck(LogCheck):
    """How often each sample of D was shown, by the steps that the final weights rest on."""

    name = "equal-exposure"
    claim = "Every sample of D was shown equally often, within the order's limits"
    reads = (StepRecord, ResumeRecord)

    def __init__(self, order: AuditOrder, request: SessionRequest, grant: SessionGrant) -> None:
        nonce = bytes.fromhex(grant.nonce)
        self._policy = order.exposure
        self._split = derive_split(nonce, grant.split)
        self._schedule = Schedule(
            nonce=nonce,
            split=self._split,
            batch_size=request.config.batch_size,
            external_batch_size=request.config.external_batch_size,
            epochs=request.config.epochs,
        )
        self._pool = grant.split.pool
        self._last = 0

    @override
    def observe(self, line: bytes, record: AnyRecord) -> None:
        if record.kind in {"step", "resume"}:
            self._last = record.step

    @override
    def finish(self) -> str:
        # Whole epochs show each sample once; only the steps of a last, broken epoch are counted.
        whole, rest = divmod(self._last, self._schedule.steps_per_epoch)
        counts = np.full(self._pool, whole)
        if rest and whole < self._schedule.epochs:
            for plan in self._schedule.epoch(whole)[:rest]:
                counts[plan.rows[: plan.trained]] += 1
        shown = counts[self._split.trained]
        least, most = int(shown.min()), int(shown.max())
        if most - least > self._policy.largest_spread or most > self._policy.most_epochs:
            raise ExposureError(
                f"samples of D were shown between {least} and {most} times; the order allows a "
                f"spread of {self._policy.largest_spread} and at most {self._policy.most_epochs}"
            )
        return f"each of {len(shown)} samples was shown {least} to {most} times"


class MintTrainingCheck(LogCheck):
    """λ1 and λ2 are the requested ones in every step, and T learned."""

    name = "mint-trained"
    claim = "T was trained in every step with the ordered weight, and it learned"
    reads = (StepRecord,)

    def __init__(self, request: SessionRequest, grant: SessionGrant) -> None:
        self._mint = request.config.mint
        trained = grant.split.told + grant.split.silent
        steps = math.ceil(trained / request.config.batch_size)
        # One epoch; half of a training that has no more than one.
        self._window = max(1, min(steps, steps * request.config.epochs // 2))
        self._steps = 0
        self._first = array("d")
        self._recent = array("d")  # the last losses, the oldest overwritten first

    @override
    def observe(self, line: bytes, record: AnyRecord) -> None:
        if record.kind != "step":
            return
        found = (record.task_weight, record.mint_weight)
        if found != (self._mint.task_weight, self._mint.mint_weight):
            raise MintTrainingError(
                f"step {record.step} used loss weights {found[0]:g} and {found[1]:g}, granted "
                f"were {self._mint.task_weight:g} and {self._mint.mint_weight:g}"
            )
        if self._steps < self._window:
            self._first.append(record.mint_loss)
            self._recent.append(record.mint_loss)
        else:
            self._recent[self._steps % self._window] = record.mint_loss
        self._steps += 1

    @override
    def finish(self) -> str:
        if not self._steps:
            raise MintTrainingError("the log has no step")
        first, last = (math.fsum(part) / len(part) for part in (self._first, self._recent))
        if self._mint.mint_weight == 0.0:
            return "M was trained alone, as ordered (MINT weight 0)"
        if last >= first:
            raise MintTrainingError(
                f"the mean MINT loss went from {first:.4f} in the first {self._window} steps to "
                f"{last:.4f} in the last: T did not learn; change the head, its weight or the "
                "learning rate"
            )
        return f"mean MINT loss {first:.4f} in {self._window} steps at first, {last:.4f} at last"


class NumbersCheck(LogCheck):
    """Losses are possible, and each objective is Eq. 1 of its own losses."""

    name = "numbers-possible"
    claim = "Recorded losses are possible, and each objective follows from them (Eq. 1)"
    reads = (StepRecord, ResumeRecord)

    def __init__(self) -> None:
        self._initial: tuple[float, float] | None = None
        self._count = 0

    @override
    def observe(self, line: bytes, record: AnyRecord) -> None:
        if record.kind == "resume" and record.step == 0:
            self._initial = None  # the first batch is done anew, and gives the normalisers anew
        if record.kind != "step":
            return
        for loss in (record.task_loss, record.mint_loss):
            if not 0.0 <= loss <= LARGEST_LOSS:
                raise ImpossibleNumberError(
                    f"step {record.step} records {loss:g}; no cross-entropy is negative or that "
                    "large"
                )
        if self._initial is None:
            self._initial = (
                max(record.task_loss, LEAST_NORMALISER),
                max(record.mint_loss, LEAST_NORMALISER),
            )
        expected = record.task_weight * record.task_loss / self._initial[0]
        expected += record.mint_weight * record.mint_loss / self._initial[1]
        # Told so that an infinite sum agrees with nothing.
        if not abs(record.objective - expected) <= OBJECTIVE_TOLERANCE * max(1.0, abs(expected)):
            raise ImpossibleNumberError(
                f"step {record.step} records objective {record.objective:g}; Eq. 1 of its losses "
                f"gives {expected:g}"
            )
        self._count += 1

    @override
    def finish(self) -> str:
        return f"{self._count} steps agree with Eq. 1"


class TimesCheck(LogCheck):
    """Records lie after the grant and their predecessor, before the cosignature over them."""

    name = "times-possible"
    claim = "Recorded times fit the auditor's clock, and cosignatures lie within the session"

    def __init__(self, order: AuditOrder, grant: SessionGrant) -> None:
        self._late_after = order.late_after_seconds
        self._from = grant.valid_from.timestamp()
        self._until = grant.valid_until.timestamp()
        self._cosigned = 0
        self._unknown = 0
        self._received: int | None = None
        self._covered = 0
        self._previous_received = self._from - CLOCK_TOLERANCE_SECONDS
        self._index = 0
        self._previous_ms = 0
        self._late = 0
        self._longest = 0.0

    @override
    def observe_checkpoint(self, found: CosignedCheckpoint) -> None:
        self._received, self._covered = found.cosigned_at, found.size
        if found.cosigned_at is None:
            self._unknown += 1
            return
        self._cosigned += 1
        if found.cosigned_at < self._previous_received:
            raise ImpossibleTimeError(
                f"the checkpoint of size {found.size} was cosigned "
                f"{_minutes(self._previous_received - found.cosigned_at)} before its predecessor "
                "or the session's beginning; the auditor's clock was set back"
            )
        if found.cosigned_at > self._until:
            raise ImpossibleTimeError(
                f"the checkpoint of size {found.size} was cosigned "
                f"{_minutes(found.cosigned_at - self._until)} after the end of the session"
            )
        self._previous_received = found.cosigned_at

    @override
    def observe(self, line: bytes, record: AnyRecord) -> None:
        index = self._index
        self._index += 1
        if record.time_ms < self._previous_ms:
            raise ImpossibleTimeError(
                f"record {record.sequence} claims to be written "
                f"{(self._previous_ms - record.time_ms) / 1000:.3f} s before the one that it "
                "follows"
            )
        self._previous_ms = record.time_ms
        received = self._received
        if received is None or index >= self._covered:
            return
        written = record.time_ms / 1000
        if written > received + CLOCK_TOLERANCE_SECONDS:
            raise ImpossibleTimeError(
                f"record {record.sequence} claims to be written after the auditor cosigned it: the "
                f"agent's clock is at least {_minutes(written - received)} ahead of the auditor's; "
                "set it and train again"
            )
        if written < self._from - CLOCK_TOLERANCE_SECONDS:
            raise ImpossibleTimeError(
                f"record {record.sequence} claims to be written before the session was granted: "
                f"the agent's clock is at least {_minutes(self._from - written)} behind the "
                "auditor's; set it and train again"
            )
        self._late += received - written > self._late_after
        self._longest = max(self._longest, received - written)

    @override
    def finish(self) -> Result:
        if self._unknown or not self._cosigned:
            return Skipped("there is no cosignature to tell the auditor's time")
        if self._late:
            return Warned(
                f"{self._late} records reached the auditor more than {self._late_after:g} s after "
                f"they were written, up to {_minutes(self._longest)}: the interlock does not bound "
                "when those were made. They were held back, or the agent's clock is behind the "
                "auditor's by as much"
            )
        return f"by the agent's clock, every record was cosigned within {self._late_after:g} s"


def _minutes(seconds: float) -> str:
    return f"{seconds / SECONDS_PER_MINUTE:.1f} minutes"


class StatesCheck(LogCheck):
    """Full states are saved from step 0 at the requested interval, and resumes start from one."""

    name = "states"
    claim = "Full training states are committed at the ordered interval, from the first to the last"
    reads = (StepRecord, StateRecord, ResumeRecord, SealRecord)

    def __init__(self, request: SessionRequest) -> None:
        self._interval = request.config.state_interval_steps
        # M and T then have weights of their own, and only the auditor can put them together.
        self._held = request.config.mint.custody == "auditor"
        self._saved: dict[int, StateRecord] = {}
        self._last_state = -1
        self._step = 0
        self._sealed: SealRecord | None = None

    @property
    def initial_weights(self) -> str | None:
        """Digest of the weights before the first step."""
        return self._saved[0].weights_digest if 0 in self._saved else None

    @override
    def observe(self, line: bytes, record: AnyRecord) -> None:
        if record.kind == "step":
            self._observe_step(record)
        elif record.kind == "state":
            if record.step != self._step:
                raise StateError(
                    f"record {record.sequence} saves step {record.step}, the log stands at "
                    f"{self._step}"
                )
            if record.step in self._saved:
                raise StateError(
                    f"record {record.sequence} saves step {record.step} a second time: the model "
                    "was exchanged between two steps"
                )
            self._saved[record.step] = record
            self._last_state = record.step
        elif record.kind == "resume":
            saved = self._saved.get(record.step)
            if saved is None or saved.state_digest != record.state_digest:
                raise StateError(
                    f"record {record.sequence} resumes from a state of step {record.step} that "
                    "the log does not have"
                )
            self._step = self._last_state = record.step
            # What came after is discarded and done anew, its states as well.
            self._saved = {step: state for step, state in self._saved.items() if step <= self._step}
        elif record.kind == "seal":
            self._sealed = record

    def _observe_step(self, record: StepRecord) -> None:
        if self._last_state < 0:
            raise StateError("the first step comes before the initial state was committed")
        if record.step - self._last_state > self._interval:
            raise StateError(
                f"no state was saved between steps {self._last_state} and {record.step}; one "
                f"every {self._interval} steps was granted"
            )
        self._step = record.step

    @override
    def finish(self) -> Result:
        if self._sealed is None:
            return Skipped(NO_SEAL)
        last = self._saved.get(self._sealed.step)
        if self._sealed.step != self._step or last is None:
            raise StateError(
                f"the seal is for step {self._sealed.step}, the training ended at {self._step}"
            )
        found = (last.weights_digest, last.mint_weights_digest)
        sealed = (
            (self._sealed.audited_weights_digest, self._sealed.mint_weights_digest)
            if self._held
            else (self._sealed.weights_digest, None)
        )
        if found != sealed:
            raise StateError(
                f"the sealed weights {' and '.join(map(str, sealed))} are not those of the last "
                f"state {' and '.join(map(str, found))}: the model was changed after training"
            )
        return f"{len(self._saved)} states, from step 0 to step {self._sealed.step}"


class CustodyCheck(LogCheck):
    """Where the auditor held T, steps, states and seal name what went to and fro."""

    name = "mint-custody"
    claim = "The log says who held T, and of every exchange with an auditor's T what was exchanged"

    def __init__(self, request: SessionRequest) -> None:
        self._held = request.config.mint.custody == "auditor"
        self._steps = 0

    @override
    def observe(self, line: bytes, record: AnyRecord) -> None:
        match record:
            case StepRecord():
                self._steps += 1
                self._check(record, record.activations, record.gradient)
            case StateRecord():
                self._check(record, record.mint_state_digest, record.mint_weights_digest)
            case SealRecord():
                self._check(record, record.audited_weights_digest, record.mint_weights_digest)

    def _check(self, record: AnyRecord, *digests: str | None) -> None:
        if self._held and None in digests:
            raise CustodyError(
                f"record {record.sequence} ({record.kind}) does not say what was exchanged with "
                "the MINT Model that the auditor holds: it was not asked"
            )
        if not self._held and any(digest is not None for digest in digests):
            raise CustodyError(
                f"record {record.sequence} ({record.kind}) names an exchange with an auditor's "
                "MINT Model; the developer was granted to hold it"
            )

    @override
    def finish(self) -> str:
        if not self._held:
            return "the developer held T, and trained it with M in one process"
        return f"the auditor held T; {self._steps} exchanges of activations and gradients are named"


class CalibrationCheck(LogCheck):
    """The scores of C are committed once, after training and before the seal."""

    name = "calibration-committed"
    claim = "The calibration scores were committed before the seal, so before any query"
    reads = (StepRecord, ResumeRecord, CalibrationRecord, SealRecord)

    def __init__(self, grant: SessionGrant) -> None:
        self._expected = grant.split.calibration
        self._record: CalibrationRecord | None = None
        self._seal: SealRecord | None = None

    @override
    def observe(self, line: bytes, record: AnyRecord) -> None:
        if record.kind in {"step", "resume"}:
            self._record = None  # scores of an earlier model calibrate nothing
        elif record.kind == "calibration":
            if self._record is not None:
                raise CalibrationError(
                    f"record {record.sequence} commits to calibration scores a second time"
                )
            self._record = record
        elif record.kind == "seal":
            self._seal = record

    @override
    def finish(self) -> Result:
        if self._seal is None:
            return Skipped(NO_SEAL)
        if self._record is None:
            raise CalibrationError("no calibration scores were committed after the last step")
        if self._record.scores_digest != self._seal.scores_digest:
            raise CalibrationError(
                f"the seal names scores {self._seal.scores_digest}, the calibration record "
                f"{self._record.scores_digest}"
            )
        if self._record.calibration_size != self._expected:
            raise CalibrationError(
                f"{self._record.calibration_size} calibration scores committed, the grant's C has "
                f"{self._expected}"
            )
        return f"{self._expected} scores of C"
