"""The pure verifier: an evidence bundle and a trust root in, findings out.

No network, no database, no clock, no torch. The server, the command line and a third party who
holds nothing but a bundle and the trust root run this same code.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from pydantic import ValidationError

from auditkit.evidence import model_checks, notes, verdict_checks
from auditkit.evidence.bundle import Bundle
from auditkit.evidence.canonical import to_bytes
from auditkit.evidence.derivation import LEAF_BYTES
from auditkit.evidence.document_checks import (
    COSIGNER_SUFFIX,
    DOCUMENT_CHECKS,
    Documents,
    open_documents,
)
from auditkit.evidence.error_rates import error_rates
from auditkit.evidence.errors import CanonicalFormError, EvidenceError
from auditkit.evidence.findings import Result, Skipped, run_check
from auditkit.evidence.log_checks import (
    CalibrationCheck,
    CheckpointRootCheck,
    CompleteLogCheck,
    ContinuationCheck,
    ExposureCheck,
    LogCheck,
    LogIncompleteError,
    MintTrainingCheck,
    NumbersCheck,
    ReceiptCheck,
    RunIdentityCheck,
    ScheduleCheck,
    StatesCheck,
    TimesCheck,
)
from auditkit.evidence.model_checks import InitialWeights
from schemas import (
    AnyRecord,
    AssuranceLevel,
    EvaluationRecord,
    Finding,
    SealRecord,
    TrustRoot,
    VerificationReport,
    parse_record,
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
    CalibrationCheck,
    ScheduleCheck,
    ExposureCheck,
)

# Checks whose absence does not make a log incomplete: they raise the level, or need a query first.
OPTIONAL_CHECKS = frozenset(
    {"image-verified", "initial-weights", "verdicts", "codes-carried", "replay"}
)

REQUIRED_CHECKS = (
    frozenset({"documents", "sealed-weights", "calibration-scores", "error-rates"})
    | {check.name for check in DOCUMENT_CHECKS}
    | {check.name for check in LOG_CHECKS}
) - OPTIONAL_CHECKS


class RecordFormatError(LogIncompleteError):
    """A line of the log is not a valid record."""


@dataclass(frozen=True)
class _LogReading:
    """What one pass over the log has found."""

    findings: tuple[Finding, ...]
    evaluation: EvaluationRecord | None
    seal: SealRecord | None
    initial_weights: str | None


def verify_bundle(
    bundle: Bundle,
    trust_root: TrustRoot,
    *,
    now: datetime,
    initial_weights: InitialWeights | None = None,
    code_secret: bytes | None = None,
) -> VerificationReport:
    """Run every check on a bundle.

    Args:
        bundle: the evidence of one session.
        trust_root: already opened with `trust.open_trust_root`.
        now: time of verification, put into the report. Expiry is judged at the time of the grant.
        initial_weights: rebuilds the initial weights; None leaves that check undone.
        code_secret: of the membership codes; None unless the caller is the auditor, or the auditor
            has disclosed it.

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
    if opened:
        findings = _check_opened(opened[0], findings, initial_weights)
    return VerificationReport(
        session_id=opened[0].grant.session_id if opened else UNKNOWN_SESSION,
        verified_at=now,
        findings=tuple(findings),
        level=assurance_level(findings),
    )


def assurance_level(findings: Sequence[Finding]) -> AssuranceLevel:
    """Return the level that the findings carry; it is computed, never chosen.

    L1 needs every check of documents, checkpoints, log, model and scores to hold. L2 adds the
    image, L3 the replay. L4 needs attested hardware, for which no check exists yet.
    """
    held = {f.check for f in findings if f.outcome in ("passed", "warning")}
    if any(f.outcome == "failed" for f in findings) or not held >= REQUIRED_CHECKS:
        return AssuranceLevel.L0
    if "image-verified" not in held:
        return AssuranceLevel.L1
    if not {"replay", "initial-weights"} <= held:
        return AssuranceLevel.L2
    return AssuranceLevel.L3


def _check_opened(
    documents: Documents, before: list[Finding], rebuild: InitialWeights | None
) -> list[Finding]:
    findings = before + [
        run_check(check.name, check.claim, _bound(check.run, documents))
        for check in DOCUMENT_CHECKS
    ]
    cosigned_at = _readable_times(documents)
    log = _read_log(documents, cosigned_at)
    findings += log.findings
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
        run_check(
            "replay",
            "Random segments of the training were executed again with the same result",
            lambda: Skipped("no replay was performed: a forged training is not excluded"),
        ),
    ]
    return findings


def _bound(check: Callable[[Documents], Result], documents: Documents) -> Callable[[], Result]:
    return lambda: check(documents)


def _readable_times(documents: Documents) -> list[int]:
    try:
        return documents.cosignature_times
    except EvidenceError:
        return []  # `checkpoints-cosigned` has said so


def _readable_checkpoints(bundle: Bundle) -> list[notes.Checkpoint]:
    try:
        return [notes.parse_checkpoint(notes.parse(note).text) for note in bundle.checkpoints]
    except EvidenceError:
        return []  # `checkpoints-signed` has said so


def _log_checks(documents: Documents, cosigned_at: list[int]) -> list[LogCheck]:
    order, request, grant = documents.order, documents.request, documents.grant
    checkpoints = _readable_checkpoints(documents.bundle)
    sizes = [checkpoint.size for checkpoint in checkpoints]
    checks: list[LogCheck] = [
        CompleteLogCheck(),
        CheckpointRootCheck(checkpoints, grant.origin),
        ReceiptCheck(checkpoints, documents.bundle.checkpoints),
        RunIdentityCheck(request, documents.grant_digest),
        ContinuationCheck(documents.continuations, sizes, cosigned_at),
        MintTrainingCheck(request, grant),
        NumbersCheck(),
        TimesCheck(order, grant, sizes, cosigned_at),
        StatesCheck(request),
        CalibrationCheck(grant),
    ]
    # Sizes that no leaves bear out are not unfolded: they may be as large as a number can be.
    pool = grant.split.pool
    unfolds = request.config.external_batch_size <= pool
    if unfolds and len(documents.bundle.pool_leaves) == pool * LEAF_BYTES:
        checks.append(ScheduleCheck(request, grant, documents.bundle.pool_leaves))
        checks.append(ExposureCheck(order, request, grant))
    return checks


def _read_log(documents: Documents, cosigned_at: list[int]) -> _LogReading:
    """Read the log once, through all of its checks."""
    checks = _log_checks(documents, cosigned_at)
    failures: dict[str, EvidenceError] = {}
    unreadable: EvidenceError | None = None
    evaluation: EvaluationRecord | None = None
    seal: SealRecord | None = None
    for index, line in enumerate(documents.bundle.records):
        try:
            record = _parse_line(line, index)
        except RecordFormatError as error:
            unreadable = error
            break
        if isinstance(record, SealRecord):
            seal = record
        elif isinstance(record, EvaluationRecord):
            evaluation = record
        for check in checks:
            if check.name not in failures:
                try:
                    check.observe(line, record)
                except EvidenceError as error:
                    failures[check.name] = error
    done = {
        check.name: _conclusion(check, failures.get(check.name), unreadable) for check in checks
    }
    findings = tuple(
        run_check(check.name, check.claim, done.get(check.name, _without_split))
        for check in LOG_CHECKS
    )
    initial = [check.initial_weights for check in checks if isinstance(check, StatesCheck)]
    return _LogReading(findings, evaluation, seal, initial[0])


def _without_split() -> Result:
    return Skipped(
        "the leaves of the pool are not as many as the grant's split has samples, or one step "
        "shows more than all of them"
    )


def _parse_line(line: bytes, index: int) -> AnyRecord:
    try:
        record = parse_record(line)
        form = to_bytes(record)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in problem["loc"]) or "the line"
        raise RecordFormatError(
            f"record {index} is not valid, {place}: {problem['msg']}; the log was damaged or "
            "written by another program"
        ) from error
    except CanonicalFormError as error:
        raise RecordFormatError(f"record {index} is not valid: {error}") from error
    if form != line:
        raise RecordFormatError(
            f"record {index} is not in RFC 8785 form, so two readers may read it differently"
        )
    return record


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
