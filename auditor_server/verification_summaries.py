"""What the auditor signs about a submission, once it has verified it."""

from collections.abc import Sequence

from auditkit.evidence import dsse, statements
from auditkit.evidence.bundle import Bundle
from auditkit.evidence.registry_checks import sealed_checkpoint
from auditkit.evidence.summary_checks import SUMMARIES_CHECK
from auditor_server.context import Auditor
from auditor_server.store import SubmissionRow, VerificationRow
from schemas import CheckOutcome, VerificationReport, VerificationSummary


def sign_summary(
    auditor: Auditor, bundle: Bundle, submission: SubmissionRow, report: VerificationReport
) -> None:
    """Sign, store and register what a verification found, unless the last one found the same.

    Args:
        auditor: the server.
        bundle: what was verified.
        submission: the model in it.
        report: of the verification.

    Raises:
        EvidenceError: the log's last checkpoint cannot be read.

    """
    checkpoint = sealed_checkpoint(bundle)
    summary = VerificationSummary(
        session_id=submission.session_id,
        verified_at=report.verified_at,
        level=report.level,
        outcomes=tuple(
            CheckOutcome(check=finding.check, outcome=finding.outcome)
            for finding in report.findings
            if finding.check != SUMMARIES_CHECK  # or each would differ from the one before it
        ),
        log_size=checkpoint.size,
        log_root=checkpoint.root.hex(),
        weights_digest=submission.weights_digest,
        description_digest=submission.description_digest,
        scores_digest=submission.scores_digest,
    )

    def make(signed: Sequence[VerificationRow]) -> VerificationRow | None:
        if signed and _same_findings(_read(signed[-1]), summary):
            return None
        identifier = f"{submission.session_id}/{len(signed) + 1}"
        subjects = statements.subject("verification", identifier, summary)
        payload = statements.make(statements.VERIFICATION_PREDICATE, summary, subjects)
        return VerificationRow(
            session_id=submission.session_id,
            envelope=dsse.sign(
                payload, [auditor.signing_key("verdict", report.verified_at)]
            ).to_bytes(),
            verified_at=report.verified_at,
        )

    auditor.store.add_verification(submission.session_id, make)


def _read(row: VerificationRow) -> VerificationSummary:
    payload = dsse.Envelope.from_bytes(row.envelope).payload
    return statements.parse(payload, statements.VERIFICATION_PREDICATE, VerificationSummary)


def _same_findings(earlier: VerificationSummary, later: VerificationSummary) -> bool:
    return earlier.model_copy(update={"verified_at": later.verified_at}) == later
