"""From the stored session to its evidence bundle and its verification report."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from auditkit.evidence.attestation import installed_verifiers
from auditkit.evidence.bundle import (
    LINE_LIMITS,
    RECORDS,
    Bundle,
    Continuation,
    Lines,
    Replay,
    Streamed,
)
from auditkit.evidence.verify import verify_bundle
from auditor_server import registry
from auditor_server.context import Auditor
from auditor_server.orders import find_order
from auditor_server.store import SegmentRow, SessionRow
from auditor_server.submissions import find_submission
from auditor_server.trust_roots import registered_trust_roots
from auditor_server.verification_summaries import sign_summary
from auditor_server.witnesses import with_cosignatures
from schemas import SealRecord, VerificationReport, parse_record


def assemble(auditor: Auditor, session: SessionRow) -> Bundle:
    """Return everything about a session as one bundle, as it is now."""
    full = auditor.store.session_with_leaves(session.id) or session
    size, continuations = auditor.store.history(session.id)
    submission = auditor.store.submission(session.id)
    blobs = auditor.blobs
    bundle = Bundle(
        order=find_order(auditor, session.order_id).envelope,
        request=full.request,
        grant=full.grant,
        records=Lines(lambda: _records(auditor, session, size), LINE_LIMITS[RECORDS]),
        checkpoints=Streamed(lambda: _checkpoints(auditor, session, size)),
        pool_leaves=full.pool_leaves,
        test_leaves=full.test_leaves,
        weights=(
            blobs.read(submission.weights_digest)
            if submission and submission.weights_dropped_at is None
            else None
        ),
        description=blobs.read(submission.description_digest) if submission else None,
        scores=blobs.read(submission.scores_digest) if submission else None,
        verdicts=tuple(verdict.envelope for verdict in auditor.store.verdicts(session.id)),
        verifications=tuple(row.envelope for row in auditor.store.verifications(session.id)),
        continuations=tuple(Continuation(row.request, row.envelope) for row in continuations),
        replays=tuple(Replay(row.draw, row.result) for row in auditor.store.replays(session.id)),
        trust_roots=registered_trust_roots(auditor),
    )
    last = auditor.store.segments(session.id, size - 1, size) if size else []
    registered = _with_registry(auditor, bundle, last)
    return with_cosignatures(auditor, registered, session.id, size)


def _records(auditor: Auditor, session: SessionRow, size: int) -> Iterator[bytes]:
    return (segment.records for segment in auditor.store.stream_segments(session.id, size))


def _checkpoints(auditor: Auditor, session: SessionRow, size: int) -> Iterator[bytes]:
    for segment in auditor.store.stream_segments(session.id, size):
        if segment.cosigned is not None:
            yield segment.cosigned.encode()


def _with_registry(auditor: Auditor, bundle: Bundle, last: Sequence[SegmentRow]) -> Bundle:
    """Return the bundle with the entries of its documents in the auditor's registry."""
    if auditor.registry_key is None:
        return bundle
    record = parse_record(last[-1].records.splitlines()[-1]) if last else None
    seal = record if isinstance(record, SealRecord) else None
    entries, head = registry.excerpt(auditor, bundle, seal)
    return replace(bundle, registry=entries, registry_checkpoint=head)


def verify(auditor: Auditor, session: SessionRow, bundle: Bundle) -> VerificationReport:
    """Run every check on a session's bundle, also those that need a model or a secret."""
    return verify_bundle(
        bundle,
        auditor.home.history(),
        now=auditor.now(),
        initial_weights=auditor.inference.initial_weights_digest,
        code_secret=auditor.store.code_secret(session.id),
        attestation_verifiers=installed_verifiers(),
    )


def verify_submission(auditor: Auditor, session: SessionRow) -> VerificationReport:
    """Verify a session whose model is here; sign what was found, and keep its level."""
    bundle = assemble(auditor, session)
    report = verify(auditor, session, bundle)
    auditor.store.set_level(session.id, report.level)
    sign_summary(auditor, bundle, find_submission(auditor, session), report)
    return report
