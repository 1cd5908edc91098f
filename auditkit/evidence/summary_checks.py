"""Check of the verification summaries: what the auditor signed about this session at the time."""

from collections.abc import Sequence

from auditkit.evidence import statements
from auditkit.evidence.document_checks import Documents, open_envelope
from auditkit.evidence.errors import EvidenceError
from auditkit.evidence.findings import Result, Skipped, Warned
from auditkit.evidence.registry_checks import sealed_checkpoint
from schemas import AssuranceLevel, Finding, SealRecord, VerificationSummary

SUMMARIES_CHECK = "verification-summaries"
HELD = frozenset({"passed", "warning"})


class SummaryError(EvidenceError):
    """A verification summary is not about this sealed session, or says more than the evidence."""


def verification_summaries(
    documents: Documents,
    seal: SealRecord | None,
    findings: Sequence[Finding],
    level: AssuranceLevel,
) -> Result:
    """Every summary is signed, about this log and this model, and claims nothing that fails here.

    Args:
        documents: of the session.
        seal: the record that ends its log.
        findings: of all checks but this one.
        level: what the evidence reaches.

    Raises:
        SummaryError: a summary of another session, log or model, or one that claims more.
        EvidenceError: a summary cannot be read, or the `verdict` role has not signed it.
    """
    if not documents.bundle.verifications:
        return Skipped("the auditor has signed no verification of this session")
    if seal is None:
        raise SummaryError("a verification was signed, and the log has no seal")
    checkpoint = sealed_checkpoint(documents.bundle)
    here: dict[str, str | int] = {
        "session": documents.grant.session_id,
        "size of the log": checkpoint.size,
        "root of the log": checkpoint.root.hex(),
        "weights": seal.weights_digest,
        "description": seal.description_digest,
        "scores": seal.scores_digest,
    }
    for data in documents.bundle.verifications:
        envelope = open_envelope(data)
        summary = documents.history.verify_statement(
            "verdict",
            envelope,
            statements.VERIFICATION_PREDICATE,
            VerificationSummary,
            dated=lambda found: found.verified_at,
            known_by=documents.registered_by(envelope),
        )
        _check_subject(summary, here)
    return _compared(summary, findings, level)


def _check_subject(summary: VerificationSummary, here: dict[str, str | int]) -> None:
    said = (
        summary.session_id,
        summary.log_size,
        summary.log_root,
        summary.weights_digest,
        summary.description_digest,
        summary.scores_digest,
    )
    for (what, expected), found in zip(here.items(), said, strict=True):
        if found != expected:
            raise SummaryError(
                f"{what}: the auditor's verification of {summary.verified_at:%Y-%m-%d} is of "
                f"{found}, here it is {expected}"
            )


def _compared(
    last: VerificationSummary, findings: Sequence[Finding], level: AssuranceLevel
) -> Result:
    """Compare what the auditor said last with what is found here."""
    outcomes = {finding.check: finding.outcome for finding in findings}
    claimed = {found.check for found in last.outcomes if found.outcome in HELD}
    undone = sorted(check for check in claimed if outcomes.get(check) == "not_checked")
    # Where a check was left undone here, the auditor may have reached more; at L0 one has failed.
    if last.level > level > AssuranceLevel.L0 and not undone:
        raise SummaryError(
            f"the auditor's verification claims assurance level {last.level.name}, the evidence "
            f"here reaches {level.name}"
        )
    said = f"verified by the auditor on {last.verified_at:%Y-%m-%d %H:%M} UTC as {last.level.name}"
    if undone:
        return Warned(f"{said}; not checked again here: {', '.join(undone)}")
    return said
