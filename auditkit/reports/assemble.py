"""From an evidence bundle and its verification to the content of a report.

Whether the evidence holds has been decided by `auditkit.evidence.verify`; here it is only read. A
part that cannot be read is left out and a remark says so, because a report on broken evidence is
needed most.
"""

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load

from auditkit.evidence import dsse, notes, statements
from auditkit.evidence.bundle import Bundle, Continuation
from auditkit.evidence.canonical import sha256_hex
from auditkit.evidence.continuations import open_continuation
from auditkit.evidence.document_checks import (
    cosignature_time,
    known_history,
    registration_times,
)
from auditkit.evidence.errors import EvidenceError
from auditkit.evidence.trust_history import TrustHistory
from auditkit.reports.content import (
    COHORT_ORDER,
    FloatArray,
    FurtherContainer,
    LogSummary,
    QueriedSample,
    ReportInput,
    StepTrace,
)
from auditkit.reports.errors import ScoresFileError, UnreadableBundleError
from auditkit.reports.formatting import count_of
from schemas import (
    AnyRecord,
    AuditOrder,
    CalibrationRecord,
    CohortName,
    ContinuationRecord,
    EvaluationRecord,
    GrantRecord,
    MembershipVerdict,
    ModelDescription,
    ResumeRecord,
    SealRecord,
    SessionGrant,
    SessionRequest,
    StateRecord,
    StepRecord,
    TrustRoot,
    VerificationReport,
    parse_record,
)

LARGEST_SCORES_FILE = 512 * 1024 * 1024  # bytes; about 60 million samples
STEP_VALUES = 4  # task loss, MINT loss, task accuracy, MINT accuracy
MOST_VERDICTS = 2000  # a page with more cannot be read; the bundle holds them all

CohortArrays = dict[CohortName, FloatArray]


def report_input(
    bundle: Bundle,
    trust_root: TrustRoot | TrustHistory,
    report: VerificationReport,
    generated_at: datetime,
    *,
    with_verdicts: bool = True,
) -> ReportInput:
    """Collect the content of the report of one session.

    Args:
        bundle: the session's evidence.
        trust_root: the one that `report` was made with.
        report: what `verify_bundle` found in this bundle.
        generated_at: time to print on the report, with a time zone.
        with_verdicts: False: the bundle's reader is not given them, and the report says so.

    Raises:
        UnreadableBundleError: order, request or grant cannot be read, so there is no session to
            report on.
    """
    try:
        order_payload = dsse.Envelope.from_bytes(bundle.order).payload
        grant_payload = dsse.Envelope.from_bytes(bundle.grant).payload
        order = statements.parse(order_payload, statements.ORDER_PREDICATE, AuditOrder)
        grant = statements.parse(grant_payload, statements.GRANT_PREDICATE, SessionGrant)
        request = SessionRequest.from_bytes(bundle.request)
    except (EvidenceError, ValidationError) as error:
        raise UnreadableBundleError(
            f"order, request or grant of the bundle cannot be read: {error}; ask for the bundle "
            "again"
        ) from error
    remarks: list[str] = []
    log = _read_log(bundle.records)
    if log.unreadable:
        remarks.append(f"{count_of(log.unreadable, 'record')} of the log could not be read.")
    history = known_history(TrustHistory.of(trust_root), bundle)
    cosigned_at = _cosignature_times(bundle.checkpoints, history, remarks)
    scores, losses = _committed_scores(bundle.scores, log, remarks)
    continuations = _continuations(bundle.continuations, log, remarks)
    return ReportInput(
        auditor=history.auditor,
        trust_root_version=history.current.version,
        order=order,
        order_digest=sha256_hex(order_payload),
        request=request,
        request_digest=sha256_hex(bundle.request),
        grant=grant,
        grant_digest=sha256_hex(grant_payload),
        verification=report,
        log=_summary(log, len(bundle.records), cosigned_at, order.late_after_seconds),
        steps=log.trace(),
        generated_at=generated_at,
        start=log.start,
        evaluations=tuple(log.evaluations),
        calibration=log.calibration,
        seal=log.seal,
        scores=scores,
        task_losses=losses,
        description=_description(bundle, log.seal, remarks),
        verdicts=_verdicts(bundle, history, remarks),
        with_verdicts=with_verdicts,
        continuations=continuations,
        remarks=tuple(remarks),
    )


def read_scores(data: bytes) -> tuple[CohortArrays, CohortArrays]:
    """Read a scores file (safetensors) into T's scores and M's losses, per cohort.

    Tensors are named `score/<cohort>` and `loss/<cohort>`, one float32 per sample; others are
    left alone.

    Raises:
        ScoresFileError: the file is too large or damaged, or a tensor is not a finite vector.
    """
    if len(data) > LARGEST_SCORES_FILE:
        raise ScoresFileError(
            f"the scores file has {len(data)} bytes, expected at most {LARGEST_SCORES_FILE}"
        )
    try:
        tensors = load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise ScoresFileError(f"the scores file is no safetensors file: {error}") from error
    groups: dict[str, CohortArrays] = {"score": {}, "loss": {}}
    for group, arrays in groups.items():
        for cohort in COHORT_ORDER:
            name = f"{group}/{cohort}"
            if name in tensors:
                arrays[cohort] = _finite_vector(name, tensors[name])
    return groups["score"], groups["loss"]


@dataclass
class _Log:
    """What one pass over the log collects, in columns: a million records fit in 64 MB."""

    indices: "array[int]" = field(default_factory=lambda: array("q"))
    times_ms: "array[int]" = field(default_factory=lambda: array("q"))
    steps: "array[int]" = field(default_factory=lambda: array("q"))
    epochs: "array[int]" = field(default_factory=lambda: array("q"))
    values: "array[float]" = field(default_factory=lambda: array("d"))
    evaluations: list[EvaluationRecord] = field(default_factory=list)
    resumes: list[ResumeRecord] = field(default_factory=list)
    named_continuations: dict[str, int] = field(default_factory=dict)
    states: int = 0
    unreadable: int = 0
    start: GrantRecord | None = None
    calibration: CalibrationRecord | None = None
    seal: SealRecord | None = None

    def take(self, index: int, record: AnyRecord) -> None:
        """Keep what the report shows of one record."""
        self.indices.append(index)
        self.times_ms.append(record.time_ms)
        match record:
            case StepRecord():
                self._add_step(record)
            case EvaluationRecord():
                self.evaluations.append(record)
            case ResumeRecord():
                self._forget_steps_after(record.step)
                self.resumes.append(record)
            case ContinuationRecord():
                self.named_continuations[record.continuation_digest] = record.sequence
            case StateRecord():
                self.states += 1
            case GrantRecord():
                self.start = self.start or record
            case CalibrationRecord():
                self.calibration = record
            case SealRecord():
                self.seal = record

    def trace(self) -> StepTrace:
        """Return the steps that led to the final model."""
        table = np.asarray(self.values, dtype=np.float64).reshape(-1, STEP_VALUES)
        return StepTrace(
            np.asarray(self.steps, dtype=np.int64),
            np.asarray(self.epochs, dtype=np.int64),
            *(table[:, column] for column in range(STEP_VALUES)),
        )

    def _add_step(self, record: StepRecord) -> None:
        self.steps.append(record.step)
        self.epochs.append(record.epoch)
        self.values.extend(
            (record.task_loss, record.mint_loss, record.task_accuracy, record.mint_accuracy)
        )

    def _forget_steps_after(self, step: int) -> None:
        """Drop steps that were lost with a crash; they follow once more."""
        while self.steps and self.steps[-1] > step:
            self.steps.pop()
            self.epochs.pop()
            del self.values[-STEP_VALUES:]


def _read_log(lines: Iterable[bytes]) -> _Log:
    log = _Log()
    for index, line in enumerate(lines):
        try:
            log.take(index, parse_record(line))
        except ValidationError:
            log.unreadable += 1
    return log


def _cosignature_times(
    checkpoints: Iterable[bytes], history: TrustHistory, remarks: list[str]
) -> list[tuple[int, int]]:
    """Return size and cosignature time of each checkpoint; nothing if one of them is bad."""
    times = []
    try:
        for checkpoint in checkpoints:
            time = cosignature_time(history, checkpoint)
            times.append((notes.parse_checkpoint(notes.parse(checkpoint).text).size, time))
    except EvidenceError as error:
        remarks.append(f"The times of the cosignatures are not known: {error}.")
        return []
    return times


def _summary(
    log: _Log, records: int, cosigned_at: list[tuple[int, int]], late_after_seconds: float
) -> LogSummary:
    times = log.times_ms
    silences = np.diff(np.asarray(times, dtype=np.int64)) / 1000
    return LogSummary(
        records=records,
        unreadable_records=log.unreadable,
        checkpoints=len(cosigned_at),
        states=log.states,
        first_record_ms=times[0] if times else None,
        last_record_ms=times[-1] if times else None,
        longest_silence_seconds=float(silences.max()) if len(silences) else None,
        last_cosigned_seconds=cosigned_at[-1][1] if cosigned_at else None,
        late_records=_late(log, cosigned_at, late_after_seconds) if cosigned_at else None,
        resumes=tuple(log.resumes),
    )


def _late(log: _Log, cosigned_at: list[tuple[int, int]], after_seconds: float) -> int:
    """Count records that the auditor cosigned more than `after_seconds` after they were written."""
    sizes = np.asarray([size for size, _ in cosigned_at], dtype=np.int64)
    moments = np.asarray([moment for _, moment in cosigned_at], dtype=np.float64)
    covering = np.searchsorted(sizes, np.asarray(log.indices, dtype=np.int64), side="right")
    covered = covering < len(sizes)
    written = np.asarray(log.times_ms, dtype=np.float64)[covered] / 1000
    return int((moments[covering[covered]] - written > after_seconds).sum())


def _committed_scores(
    data: bytes | None, log: _Log, remarks: list[str]
) -> tuple[CohortArrays, CohortArrays]:
    """Read the scores if they are the committed ones; others would draw curves of nothing."""
    if data is None:
        return {}, {}
    if log.calibration is None or sha256_hex(data) != log.calibration.scores_digest:
        remarks.append(
            "The scores file is not the one that the log commits to; no curve is drawn from it."
        )
        return {}, {}
    try:
        return read_scores(data)
    except ScoresFileError as error:
        remarks.append(f"No curve is drawn: {error}.")
        return {}, {}


def _finite_vector(
    name: str, tensor: np.ndarray[tuple[int, ...], np.dtype[np.generic]]
) -> FloatArray:
    if tensor.ndim != 1 or tensor.dtype != np.float32:
        raise ScoresFileError(
            f"tensor {name} has shape {tensor.shape} and type {tensor.dtype}, expected a vector of "
            "float32"
        )
    values = tensor.astype(np.float64)
    if not np.isfinite(values).all():
        raise ScoresFileError(f"tensor {name} holds numbers that are not finite")
    return values


def _description(
    bundle: Bundle, seal: SealRecord | None, remarks: list[str]
) -> ModelDescription | None:
    if bundle.description is None:
        return None
    if seal is None or sha256_hex(bundle.description) != seal.description_digest:
        remarks.append("The model description is not the sealed one; it is left out.")
        return None
    try:
        return ModelDescription.from_bytes(bundle.description)
    except ValidationError:
        remarks.append("The model description cannot be read; it is left out.")
        return None


def _continuations(
    found: Sequence[Continuation], log: _Log, remarks: list[str]
) -> tuple[FurtherContainer, ...]:
    containers = []
    for number, continuation in enumerate(found, start=1):
        try:
            opened = open_continuation(continuation)
        except EvidenceError as error:
            remarks.append(f"Continuation {number} cannot be read: {error}.")
            continue
        containers.append(
            FurtherContainer(
                run=opened.request.container,
                log_size=opened.answer.log_size,
                granted_at=opened.answer.granted_at,
                record=log.named_continuations.get(opened.digest),
            )
        )
    return tuple(containers)


def _verdicts(
    bundle: Bundle, history: TrustHistory, remarks: list[str]
) -> tuple[QueriedSample, ...]:
    queried = []
    registered = registration_times(bundle)
    for index, data in enumerate(bundle.verdicts[:MOST_VERDICTS]):
        try:
            envelope = dsse.Envelope.from_bytes(data)
            verdict = history.verify_statement(
                "verdict",
                envelope,
                statements.VERDICT_PREDICATE,
                MembershipVerdict,
                dated=lambda verdict: verdict.issued_at,
                known_by=registered.get(sha256_hex(envelope.payload)),
            )
        except EvidenceError as error:
            remarks.append(f"Verdict {index} is left out, its signature does not hold: {error}.")
            continue
        queried.append(QueriedSample(verdict))
    if len(bundle.verdicts) > MOST_VERDICTS:
        remarks.append(
            f"Only the first {MOST_VERDICTS} of {len(bundle.verdicts)} verdicts are shown; the "
            "bundle holds all."
        )
    return tuple(queried)
