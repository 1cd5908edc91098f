"""From the stored session to its evidence bundle and its verification report."""

from auditkit.evidence.bundle import Bundle, Continuation, Lines
from auditkit.evidence.verify import verify_bundle
from auditkit.mint.initial import initial_weights_digest
from auditor_server.context import Auditor
from auditor_server.orders import find_order
from auditor_server.store import SessionRow
from schemas import VerificationReport


def assemble(auditor: Auditor, session: SessionRow) -> Bundle:
    """Return everything about a session as one bundle, as it is now."""
    full = auditor.store.session_with_leaves(session.id) or session
    segments, continuations = auditor.store.history(session.id)
    submission = auditor.store.submission(session.id)
    blobs = auditor.blobs
    return Bundle(
        order=find_order(auditor, session.order_id).envelope,
        request=full.request,
        grant=full.grant,
        records=Lines(b"".join(segment.records for segment in segments)),
        checkpoints=tuple(
            segment.cosigned.encode() for segment in segments if segment.cosigned is not None
        ),
        pool_leaves=full.pool_leaves,
        test_leaves=full.test_leaves,
        weights=blobs.read(submission.weights_digest) if submission else None,
        description=blobs.read(submission.description_digest) if submission else None,
        scores=blobs.read(submission.scores_digest) if submission else None,
        verdicts=tuple(verdict.envelope for verdict in auditor.store.verdicts(session.id)),
        continuations=tuple(Continuation(row.request, row.envelope) for row in continuations),
    )


def verify(auditor: Auditor, session: SessionRow, bundle: Bundle) -> VerificationReport:
    """Run every check on a session's bundle, also those that need a model or a secret."""
    return verify_bundle(
        bundle,
        auditor.trust_root(),
        now=auditor.now(),
        initial_weights=initial_weights_digest,
        code_secret=auditor.store.code_secret(session.id),
    )


def verify_submission(auditor: Auditor, session: SessionRow) -> VerificationReport:
    """Verify a session whose model is here, and keep its level for the verdicts to come."""
    report = verify(auditor, session, assemble(auditor, session))
    auditor.store.set_level(session.id, report.level)
    return report
