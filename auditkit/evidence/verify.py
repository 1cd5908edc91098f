"""The pure verifier: an evidence bundle and a trust root in, findings out.

No network, no database, no clock, no torch. The server, the command line and a third party who
holds nothing but a bundle and the trust root run this same code.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from auditkit.evidence import model_checks, notes, verdict_checks
from auditkit.evidence.attestation import AttestationVerifier, hardware_attested
from auditkit.evidence.bundle import Bundle
from auditkit.evidence.canonical import sha256_hex
from auditkit.evidence.derivation import LEAF_BYTES
from auditkit.evidence.document_checks import (
    COSIGNER_SUFFIX,
    DOCUMENT_CHECKS,
    Documents,
    open_documents,
)
from auditkit.evidence.error_rates import error_rates
from auditkit.evidence.errors import BundleError, EvidenceError
from auditkit.evidence.findings import Result, Skipped, run_check
from auditkit.evidence.log_checks import (
    CalibrationCheck,
    CheckpointRootCheck,
    CompleteLogCheck,
    ContinuationCheck,
    CosignedCheckpoint,
    CustodyCheck,
    ExposureCheck,
    LogCheck,
    MintTrainingCheck,
    NumbersCheck,
    ReceiptCheck,
    RunIdentityCheck,
    ScheduleCheck,
    StatesCheck,
    TimesCheck,
)
from auditkit.evidence.merkle import MAX_TREE_SIZE
from auditkit.evidence.model_checks import InitialWeights
from auditkit.evidence.record_lines import RecordFormatError, parse_line
from auditkit.evidence.registry_checks import registered
from auditkit.evidence.replay import SealedLogReader
from auditkit.evidence.replay_checks import ReplayCheck
from auditkit.evidence.summary_checks import SUMMARIES_CHECK, verification_summaries
from auditkit.evidence.trust_history import TrustHistory
from auditkit.evidence.witness_checks import checkpoints_witnessed
from schemas import (
    AnyRecord,
    AssuranceLevel,
    DetectionProbability,
    EvaluationRecord,
    Finding,
    Record,
    SealRecord,
    TrustRoot,
    VerificationReport,
)

__all__ = ["COSIGNER_SUFFIX", "InitialWeights", "assurance_level", "verify_bundle"]

UNKNOWN_SESSION = "unknown"

LOG_CHECKS: tuple[type[LogCheck], ...] = (
    CompleteLogCheck,
    CheckpointRootCheck,
    ReceiptCheck,
    RunIdentityCheck,
    ContinuationCheck,
    MintTrainingCheck,
    NumbersCheck,
    TimesCheck,
    StatesCheck,
    CustodyCheck,
    CalibrationCheck,
    ScheduleCheck,
    ExposureCheck,
)

# Checks whose absence does not make a log incomplete: they raise the level, need a query first, or
# are demanded by some orders only.
OPTIONAL_CHECKS = frozenset(
    {
        "image-verified",
        "checkpoints-witnessed",
        "initial-weights",
        "verdicts",
        "codes-carried",
        "replay",
        "hardware-attested",
        "registered",
        SUMMARIES_CHECK,
    }
)

REQUIRED_CHECKS = (
    frozenset({"documents", "sealed-weights", "calibration-scores", "error-rates"})
    | {check.name for check in DOCUMENT_CHECKS}
    | {check.name for check in LOG_CHECKS}
) - OPTIONAL_CHECKS


UNCOVERED = MAX_TREE_SIZE + 1
"""Stands for the size of a checkpoint that does not exist: it is never reached."""


@dataclass(frozen=True)
class _LogReading:
    """What one pass over the log has found."""

    findings: tuple[Finding, ...]
    evaluation: EvaluationRecord | None
    seal: SealRecord | None
    initial_weights: str | None
    sealed_log: SealedLogReader | None


def verify_bundle(
    bundle: Bundle,
    trust_root: TrustRoot | TrustHistory,
    *,
    now: datetime,
    initial_weights: InitialWeights | None = None,
    code_secret: bytes | None = None,
    attestation_verifiers: Mapping[str, AttestationVerifier] | None = None,
) -> VerificationReport:
    """Run every check on a bundle.

    Args:
        bundle: the evidence of one session.
        trust_root: already opened with `trust.open_trust_root`, or all versions that are at hand.
            The versions in the bundle join it, and each document is judged by the version that
            was in force at its own time.
        now: time of verification, put into the report. Whether the newest version of the trust root
            has expired by then is for the caller to check.
        initial_weights: rebuilds the initial weights; None leaves that check undone.
        code_secret: of the membership codes; None unless the caller is the auditor, or the auditor
            has disclosed it.
        attestation_verifiers: whom to believe about attested hardware, by kind of attestation;
            None: nobody. See `attestation.installed_verifiers`.

    Returns:
        All findings, in the order of the story, and the assurance level. Never raises for bad
        evidence: that is what findings are for.
    """
    opened: list[Documents] = []

    def readable() -> Result:
        opened.append(open_documents(bundle, trust_root, code_secret))
        return "order, request, grant and continuations"

    findings = [
        run_check("documents", "Order, request, grant and continuations can be read", readable)
    ]
    detection = None
    if opened:
        findings, detection = _check_opened(
            opened[0], findings, initial_weights, now, attestation_verifiers or {}
        )
    return VerificationReport(
        session_id=opened[0].grant.session_id if opened else UNKNOWN_SESSION,
        verified_at=now,
        findings=tuple(findings),
        level=assurance_level(findings),
        detection=detection,
    )


def assurance_level(findings: Sequence[Finding]) -> AssuranceLevel:
    """Return the level that the findings carry; it is computed, never chosen.

    L1 needs every check of documents, checkpoints, log, model and scores to hold. L2 adds the
    image, L3 the replay, which covers the initial weights as well, and L4 attested hardware.
    """
    held = {f.check for f in findings if f.outcome in ("passed", "warning")}
    if any(f.outcome == "failed" for f in findings) or not held >= REQUIRED_CHECKS:
        return AssuranceLevel.L0
    if "image-verified" not in held:
        return AssuranceLevel.L1
    if "replay" not in held:
        return AssuranceLevel.L2
    return AssuranceLevel.L4 if "hardware-attested" in held else AssuranceLevel.L3


def _check_opened(
    documents: Documents,
    before: list[Finding],
    rebuild: InitialWeights | None,
    now: datetime,
    attestation_verifiers: Mapping[str, AttestationVerifier],
) -> tuple[list[Finding], DetectionProbability | None]:
    findings = before + [
        run_check(check.name, check.claim, _bound(check.run, documents))
        for check in DOCUMENT_CHECKS
    ]
    findings.append(
        run_check(
            "checkpoints-witnessed",
            "As many witnesses as the order demands cosigned the end of the log",
            lambda: checkpoints_witnessed(documents, now),
        )
    )
    cosigned_at = _readable_times(documents)
    log = _read_log(documents, cosigned_at)
    findings += log.findings
    replay = ReplayCheck(documents, log.sealed_log, cosigned_at)
    seal, sealed_at = log.seal, cosigned_at[-1] if cosigned_at else None
    findings += [
        run_check(
            "initial-weights",
            "Training started from the nonce's own weights",
            lambda: model_checks.initial_weights(documents, log.initial_weights, rebuild),
        ),
        run_check(
            "sealed-weights",
            "The submitted model is the one that was sealed",
            lambda: model_checks.sealed_weights(documents, seal),
        ),
        run_check(
            "calibration-scores",
            "The submitted scores are the committed ones",
            lambda: model_checks.calibration_scores(documents, seal),
        ),
        run_check(
            "error-rates",
            "The final error rates in the log follow from the committed scores",
            lambda: error_rates(documents, log.evaluation, seal),
        ),
    ]
    initial_weights_hold = any(
        found.check == "initial-weights" and found.outcome == "passed" for found in findings
    )
    findings += [
        run_check(
            "replay",
            "Random segments of the training were executed again with the same result",
            lambda: replay.run(initial_weights_hold=initial_weights_hold),
        ),
        run_check(
            "hardware-attested",
            "The hardware that the training ran on has signed for this very run",
            lambda: hardware_attested(documents, attestation_verifiers),
        ),
        run_check(
            "registered",
            "Every document is an entry of the auditor's public registry",
            lambda: registered(documents, seal),
        ),
    ]
    level = assurance_level(findings)
    findings += [
        run_check(
            "verdicts",
            "Every verdict follows from this model and its calibration",
            lambda: verdict_checks.verdicts(documents, seal, sealed_at, level),
        ),
        run_check(
            "codes-carried",
            "The model says of opened members the codes that the sealed scores declare",
            lambda: verdict_checks.codes_carried(documents, seal),
        ),
    ]
    found = tuple(findings)
    findings.append(
        run_check(
            SUMMARIES_CHECK,
            "What the auditor signed about this session is what is found here",
            lambda: verification_summaries(documents, seal, found, level),
        )
    )
    return findings, replay.detection


def _bound(check: Callable[[Documents], Result], documents: Documents) -> Callable[[], Result]:
    return lambda: check(documents)


def _readable_times(documents: Documents) -> Sequence[int]:
    try:
        return documents.cosignature_times
    except EvidenceError:
        return []  # `checkpoints-cosigned` has said so


def _readable_checkpoints(
    bundle: Bundle, cosigned_at: Iterable[int]
) -> Iterator[CosignedCheckpoint]:
    times = iter(cosigned_at)
    try:
        for note in bundle.checkpoints:
            checkpoint = notes.parse_checkpoint(notes.parse(note).text)
            yield CosignedCheckpoint(checkpoint, sha256_hex(note), next(times, None))
    except EvidenceError:
        return  # `checkpoints-signed` has said so


def _log_checks(documents: Documents) -> list[LogCheck]:
    order, request, grant = documents.order, documents.request, documents.grant
    checks: list[LogCheck] = [
        CompleteLogCheck(),
        CheckpointRootCheck(grant.origin),
        ReceiptCheck(),
        RunIdentityCheck(request, documents.grant_digest),
        ContinuationCheck(documents.continuations),
        MintTrainingCheck(request, grant),
        NumbersCheck(),
        TimesCheck(order, grant),
        StatesCheck(request),
        CustodyCheck(request),
        CalibrationCheck(grant),
    ]
    # Sizes that no leaves bear out are not unfolded: they may be as large as a number can be.
    pool = grant.split.pool
    unfolds = request.config.external_batch_size <= pool
    if unfolds and len(documents.bundle.pool_leaves) == pool * LEAF_BYTES:
        checks.append(ScheduleCheck(request, grant, documents.bundle.pool_leaves))
        checks.append(ExposureCheck(order, request, grant))
    return checks


class _Pass:
    """One pass of all checks over the log: each is left alone once it has failed."""

    def __init__(self, checks: Sequence[LogCheck]) -> None:
        self.failures: dict[str, EvidenceError] = {}
        self._checks = list(checks)
        self._readers: dict[type[Record], list[LogCheck]] = {}

    def checkpoint(self, found: CosignedCheckpoint) -> None:
        """Show a checkpoint to every check that has not failed."""
        for check in self._checks.copy():
            try:
                check.observe_checkpoint(found)
            except EvidenceError as error:
                self._drop(check, error)

    def record(self, line: bytes, record: AnyRecord) -> None:
        """Show a record to every check that reads its kind and has not failed."""
        kind = type(record)
        readers = self._readers.get(kind)
        if readers is None:
            readers = [check for check in self._checks if issubclass(kind, check.reads)]
            self._readers[kind] = readers
        for check in readers:
            try:
                check.observe(line, record)
            except EvidenceError as error:
                self._drop(check, error)

    def _drop(self, check: LogCheck, failure: EvidenceError) -> None:
        self.failures[check.name] = failure
        self._checks.remove(check)
        self._readers = {}


def _read_log(documents: Documents, cosigned_at: Iterable[int]) -> _LogReading:
    """Read the log and its checkpoints once, in step, through all checks."""
    checks = _log_checks(documents)
    reading = _Pass(checks)
    checkpoints = _readable_checkpoints(documents.bundle, cosigned_at)
    unreadable: EvidenceError | None = None
    # Its states grow with the log; nobody needs them where nothing was drawn.
    sealed_log = SealedLogReader() if documents.bundle.replays else None
    evaluation: EvaluationRecord | None = None
    seal: SealRecord | None = None
    covered = 0  # number of records that the checkpoint before us covers
    try:
        for index, line in enumerate(documents.bundle.records):
            record = parse_line(line, index)
            while covered <= index:
                found = next(checkpoints, None)
                covered = UNCOVERED if found is None else found.size
                if found is not None:
                    reading.checkpoint(found)
            reading.record(line, record)
            if sealed_log is not None:
                sealed_log.observe(line, record)
            if record.kind == "seal":
                seal = record
            elif record.kind == "evaluation":
                evaluation = record
    except (RecordFormatError, BundleError) as error:
        unreadable, sealed_log = error, None
    else:
        for found in checkpoints:
            reading.checkpoint(found)
    failures = reading.failures
    done = {
        check.name: _conclusion(check, failures.get(check.name), unreadable) for check in checks
    }
    findings = tuple(
        run_check(check.name, check.claim, done.get(check.name, _without_split))
        for check in LOG_CHECKS
    )
    initial = [check.initial_weights for check in checks if isinstance(check, StatesCheck)]
    return _LogReading(findings, evaluation, seal, initial[0], sealed_log)


def _without_split() -> Result:
    return Skipped(
        "the leaves of the pool are not as many as the grant's split has samples, or one step "
        "shows more than all of them"
    )


def _conclusion(
    check: LogCheck, failure: EvidenceError | None, unreadable: EvidenceError | None
) -> Callable[[], Result]:
    def conclude() -> Result:
        if failure is not None:
            raise failure
        if unreadable is not None:
            if isinstance(check, CompleteLogCheck):
                raise unreadable
            return Skipped("the log cannot be read to its end")
        return check.finish()

    return conclude
