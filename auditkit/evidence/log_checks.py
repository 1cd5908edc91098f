"""Checks that read a session's log once, record by record, in constant memory.

Each check knows one rule. `observe` is called for every record in order, `finish` at the end; both
raise the rule's typed error. `finish` returns what was found, for people.
"""

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np
from typing_extensions import override

from auditkit.evidence import merkle
from auditkit.evidence.canonical import sha256_hex
from auditkit.evidence.continuations import OpenContinuation, is_superseded
from auditkit.evidence.derivation import (
    Schedule,
    StepPlan,
    batch_digest,
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
    ResumeRecord,
    SealRecord,
    SessionContinuation,
    SessionGrant,
    SessionRequest,
    StateRecord,
    StepRecord,
)

CLOCK_TOLERANCE_SECONDS = 120.0  # agent's clock against the auditor's, network delay included
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


class CalibrationError(EvidenceError):
    """The calibration scores were not committed as they must be."""


class LogCheck:
    """One rule over the log."""

    name: ClassVar[str]
    claim: ClassVar[str]

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
        if (self._size == 0) != isinstance(record, GrantRecord):
            raise LogIncompleteError(
                f"record {self._size} is of kind {record.kind!r}; a log has one grant record, "
                "and it is the first"
            )
        if self._sealed:
            raise LogIncompleteError(f"record {self._size} follows the seal; nothing may")
        self._size += 1
        self._sealed = isinstance(record, SealRecord)
        self._resumes += isinstance(record, ResumeRecord)
        self._steps += isinstance(record, StepRecord)

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

    def __init__(self, checkpoints: list[Checkpoint], origin: str) -> None:
        self._frontier = merkle.Frontier()
        self._pending = iter(checkpoints)
        self._next = next(self._pending, None)
        self._count = len(checkpoints)
        self._origin = origin
        self._covered = 0

    @override
    def observe(self, line: bytes, record: AnyRecord) -> None:
        self._frontier.append(merkle.leaf_hash(line))
        expected = self._next
        if expected is None or expected.size > self._frontier.size:
            return
        # Sizes that do not grow are caught here too: such a checkpoint is never reached in order.
        if expected.size < self._frontier.size:
            raise CheckpointRootError(
                f"checkpoint of size {expected.size} follows one of size "
                f"{self._frontier.size - 1}; sizes must grow"
            )
        if expected.origin != self._origin:
            raise CheckpointRootError(
                f"checkpoint {expected.size} is for {expected.origin!r}, not {self._origin!r}: "
                "it belongs to another session"
            )
        if expected.root != self._frontier.root():
            raise CheckpointRootError(
                f"the records up to {expected.size} hash to {self._frontier.root().hex()}, the "
                f"checkpoint says {expected.root.hex()}: a record was changed, added or removed"
            )
        self._next = next(self._pending, None)
        self._covered = expected.size

    @override
    def finish(self) -> str:
        if self._next is not None:
            raise CheckpointRootError(
                f"a checkpoint covers {self._next.size} records and only {self._frontier.size} "
                "are here: the log was cut"
            )
        if self._covered != self._frontier.size:
            raise CheckpointRootError(
                f"{self._frontier.size - self._covered} records after the last checkpoint are "
                "covered by none; send them with `auditkit sync`"
            )
        return f"{self._count} checkpoints match the Merkle tree of {self._frontier.size} records"


class ReceiptCheck(LogCheck):
    """Receipt interlock: the first record after checkpoint k is the receipt for checkpoint k."""

    name = "receipt-interlock"
    claim = "After each checkpoint, the log commits to the auditor's unpredictable cosignature"

    def __init__(self, checkpoints: list[Checkpoint], cosigned_notes: tuple[bytes, ...]) -> None:
        self._due = {
            checkpoint.size: sha256_hex(note)
            for checkpoint, note in zip(checkpoints, cosigned_notes, strict=False)
        }
        self._index = 0
        self._receipts = 0

    @override
    def observe(self, line: bytes, record: AnyRecord) -> None:
        due = self._due.get(self._index)
        if isinstance(record, ReceiptRecord):
            self._observe_receipt(record, due)
        elif due is not None:
            raise ReceiptInterlockError(
                f"record {self._index} follows a checkpoint and is no receipt for it: it may have "
                "been written before the cosignature existed"
            )
        self._index += 1

    def _observe_receipt(self, record: ReceiptRecord, due: str | None) -> None:
        if due is None:
            raise ReceiptInterlockError(
                f"record {self._index} is a receipt, and no checkpoint ends right before it"
            )
        if (record.checkpoint_size, record.checkpoint_digest) != (self._index, due):
            raise ReceiptInterlockError(
                f"record {self._index} is a receipt for a checkpoint of size "
                f"{record.checkpoint_size} that differs from the one the auditor cosigned at "
                f"{self._index}"
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

    def __init__(self, request: SessionRequest, grant_digest: str) -> None:
        self._request = request
        self._grant_digest = grant_digest
        self._mode = "process" if request.image_digest is None else "container"

    @override
    def observe(self, line: bytes, record: AnyRecord) -> None:
        if isinstance(record, GrantRecord):
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

    def __init__(
        self,
        continuations: Sequence[OpenContinuation],
        sizes: list[int],
        cosigned_at: list[int],
    ) -> None:
        self._continuations = continuations
        self._pending = deque(
            (found, is_superseded(continuations, position))
            for position, found in enumerate(continuations)
        )
        self._sizes = sizes
        self._cosigned_at = cosigned_at
        self._index = 0

    @override
    def observe(self, line: bytes, record: AnyRecord) -> None:
        index = self._index
        self._index += 1
        if isinstance(record, ContinuationRecord):
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
        following = bisect_right(self._sizes, answer.log_size)
        if answer.log_size and self._sizes[following - 1 : following] != [answer.log_size]:
            raise ContinuationLogError(
                f"continuation {answer.number} was granted at size {answer.log_size}, where no "
                "checkpoint ends"
            )
        granted = answer.granted_at.timestamp()
        # Cosignatures tell whole seconds, rounded down.
        for time in self._cosigned_at[:following][-1:]:
            if time > granted:
                raise ContinuationLogError(
                    f"continuation {answer.number} was granted {time - granted:.3f} s before the "
                    f"auditor cosigned the {answer.log_size} records that it goes on from"
                )
        for time in self._cosigned_at[following : following + 1]:
            if time + COSIGNATURE_GRAIN_SECONDS <= granted:
                raise ContinuationLogError(
                    f"continuation {answer.number} was granted {granted - time:.3f} s after the "
                    "auditor cosigned a checkpoint of its key, which was not certified yet"
                )


class ScheduleCheck(LogCheck):
    """Batch contents, their order, the epochs and the learning rate follow from the nonce."""

    name = "schedule"
    claim = "Every step used the batch, epoch and learning rate that the nonce prescribes"

    def __init__(self, request: SessionRequest, grant: SessionGrant, pool_leaves: bytes) -> None:
        config = request.config
        self._schedule = Schedule(
            nonce=bytes.fromhex(grant.nonce),
            split=derive_split(bytes.fromhex(grant.nonce), grant.split),
            batch_size=config.batch_size,
            external_batch_size=config.external_batch_size,
            epochs=config.epochs,
        )
        self._optimiser = config.optimiser
        self._leaves = pool_leaves
        self._plans: Iterator[StepPlan] = self._schedule.steps()
        self._last = 0

    @override
    def observe(self, line: bytes, record: AnyRecord) -> None:
        if isinstance(record, ResumeRecord):
            if record.step > self._last or record.discarded_steps != self._last - record.step:
                raise ScheduleError(
                    f"record {record.sequence} resumes after step {record.step} and discards "
                    f"{record.discarded_steps} steps, but the log stands at step {self._last}"
                )
            self._plans = self._schedule.steps(after=record.step)
            self._last = record.step
        elif isinstance(record, StepRecord):
            self._observe_step(record)

    def _observe_step(self, record: StepRecord) -> None:
        plan = next(self._plans, None)
        if plan is None:
            raise ScheduleError(
                f"step {record.step} follows the last of {self._schedule.total_steps} steps"
            )
        if (record.step, record.epoch) != (plan.step, plan.epoch):
            raise ScheduleError(
                f"record {record.sequence} is step {record.step} of epoch {record.epoch}; the "
                f"schedule has step {plan.step} of epoch {plan.epoch} here"
            )
        if record.batch != batch_digest(self._leaves, plan):
            raise ScheduleError(
                f"step {record.step} trained on another batch than the nonce prescribes"
            )
        rate = learning_rate(self._optimiser, record.step, self._schedule.total_steps)
        if not math.isclose(record.learning_rate, rate, rel_tol=1e-9):
            raise ScheduleError(
                f"step {record.step} used learning rate {record.learning_rate:g}, the "
                f"configuration gives {rate:g}"
            )
        self._last = record.step

    @override
    def finish(self) -> str:
        if self._last != self._schedule.total_steps:
            raise ScheduleError(
                f"the training stands at step {self._last} of {self._schedule.total_steps}"
            )
        return f"{self._last} steps in {self._schedule.epochs} epochs, batch by batch"


class ExposureCheck(LogCheck):
    """How often each sample of D was shown, by the steps that the final weights rest on."""

    name = "equal-exposure"
    claim = "Every sample of D was shown equally often, within the order's limits"

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
        if isinstance(record, StepRecord | ResumeRecord):
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

    def __init__(self, request: SessionRequest, grant: SessionGrant) -> None:
        self._mint = request.config.mint
        trained = grant.split.told + grant.split.silent
        steps = math.ceil(trained / request.config.batch_size)
        # One epoch; half of a training that has no more than one.
        self._window = max(1, min(steps, steps * request.config.epochs // 2))
        self._first: list[float] = []
        self._recent: deque[float] = deque(maxlen=self._window)

    @override
    def observe(self, line: bytes, record: AnyRecord) -> None:
        if not isinstance(record, StepRecord):
            return
        found = (record.task_weight, record.mint_weight)
        if found != (self._mint.task_weight, self._mint.mint_weight):
            raise MintTrainingError(
                f"step {record.step} used loss weights {found[0]:g} and {found[1]:g}, granted "
                f"were {self._mint.task_weight:g} and {self._mint.mint_weight:g}"
            )
        if len(self._first) < self._window:
            self._first.append(record.mint_loss)
        self._recent.append(record.mint_loss)

    @override
    def finish(self) -> str:
        if not self._first:
            raise MintTrainingError("the log has no step")
        first, last = float(np.mean(self._first)), float(np.mean(self._recent))
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

    def __init__(self) -> None:
        self._initial: tuple[float, float] | None = None
        self._count = 0

    @override
    def observe(self, line: bytes, record: AnyRecord) -> None:
        if isinstance(record, ResumeRecord) and record.step == 0:
            self._initial = None  # the first batch is done anew, and gives the normalisers anew
        if not isinstance(record, StepRecord):
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

    def __init__(
        self,
        order: AuditOrder,
        grant: SessionGrant,
        sizes: list[int],
        cosigned_at: list[int],
    ) -> None:
        self._late_after = order.late_after_seconds
        self._from = grant.valid_from
        self._until = grant.valid_until
        self._sizes = sizes
        self._cosigned_at = cosigned_at
        self._segment = 0
        self._index = 0
        self._previous_ms = 0
        self._late = 0

    @override
    def observe(self, line: bytes, record: AnyRecord) -> None:
        while self._segment < len(self._sizes) and self._index >= self._sizes[self._segment]:
            self._segment += 1
        self._index += 1
        if record.time_ms < self._previous_ms:
            raise ImpossibleTimeError(
                f"record {record.sequence} claims to be written "
                f"{(self._previous_ms - record.time_ms) / 1000:.3f} s before the one that it "
                "follows"
            )
        self._previous_ms = record.time_ms
        if self._segment >= len(self._cosigned_at):
            return
        received = self._cosigned_at[self._segment]
        written = record.time_ms / 1000
        if written > received + CLOCK_TOLERANCE_SECONDS:
            raise ImpossibleTimeError(
                f"record {record.sequence} claims to be written {written - received:.0f} s after "
                "the auditor cosigned it; the agent's clock is wrong, set it and train again"
            )
        if written < self._from.timestamp() - CLOCK_TOLERANCE_SECONDS:
            raise ImpossibleTimeError(
                f"record {record.sequence} claims to be written "
                f"{self._from.timestamp() - written:.0f} s before the session was granted; the "
                "agent's clock is wrong, set it and train again"
            )
        self._late += received - written > self._late_after

    @override
    def finish(self) -> Result:
        if not self._cosigned_at:
            return Skipped("there is no cosignature to tell the auditor's time")
        granted = self._from.timestamp()
        previous = granted - CLOCK_TOLERANCE_SECONDS
        for time in self._cosigned_at:
            if time < previous or time > self._until.timestamp():
                raise ImpossibleTimeError(
                    f"a cosignature made {time - granted:.0f} s after the grant lies before its "
                    "predecessor or outside the session"
                )
            previous = time
        if self._late:
            return Warned(
                f"{self._late} records reached the auditor more than {self._late_after:g} s after "
                "they were written: the interlock does not bound when those were made"
            )
        return f"by the agent's clock, every record was cosigned within {self._late_after:g} s"


class StatesCheck(LogCheck):
    """Full states are saved from step 0 at the requested interval, and resumes start from one."""

    name = "states"
    claim = "Full training states are committed at the ordered interval, from the first to the last"

    def __init__(self, request: SessionRequest) -> None:
        self._interval = request.config.state_interval_steps
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
        if isinstance(record, StepRecord):
            self._observe_step(record)
        elif isinstance(record, StateRecord):
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
        elif isinstance(record, ResumeRecord):
            saved = self._saved.get(record.step)
            if saved is None or saved.state_digest != record.state_digest:
                raise StateError(
                    f"record {record.sequence} resumes from a state of step {record.step} that "
                    "the log does not have"
                )
            self._step = self._last_state = record.step
            # What came after is discarded and done anew, its states as well.
            self._saved = {step: state for step, state in self._saved.items() if step <= self._step}
        elif isinstance(record, SealRecord):
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
        if last.weights_digest != self._sealed.weights_digest:
            raise StateError(
                f"the sealed weights {self._sealed.weights_digest} are not those of the last "
                f"state {last.weights_digest}: the model was changed after training"
            )
        return f"{len(self._saved)} states, from step 0 to step {self._sealed.step}"


class CalibrationCheck(LogCheck):
    """The scores of C are committed once, after training and before the seal."""

    name = "calibration-committed"
    claim = "The calibration scores were committed before the seal, so before any query"

    def __init__(self, grant: SessionGrant) -> None:
        self._expected = grant.split.calibration
        self._record: CalibrationRecord | None = None
        self._seal: SealRecord | None = None

    @override
    def observe(self, line: bytes, record: AnyRecord) -> None:
        if isinstance(record, StepRecord | ResumeRecord):
            self._record = None  # scores of an earlier model calibrate nothing
        elif isinstance(record, CalibrationRecord):
            if self._record is not None:
                raise CalibrationError(
                    f"record {record.sequence} commits to calibration scores a second time"
                )
            self._record = record
        elif isinstance(record, SealRecord):
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
