"""Which rows are documents of the registry, and what of each is registered."""

from dataclasses import dataclass

from auditkit.evidence import canonical, dsse, notes
from auditkit.evidence.canonical import sha256_hex
from auditor_server.store.models import (
    ContinuationRow,
    OrderRow,
    ReplayRow,
    SegmentRow,
    SessionRow,
    SubmissionRow,
    VerdictRow,
    VerificationRow,
)
from schemas import RegistryEntry, SubmissionDigests
from schemas.registry import EntryKind


@dataclass(frozen=True)
class Registration:
    """A document on its way into the registry: an entry but for its time."""

    kind: EntryKind
    digest: str
    session_id: str | None = None
    log_size: int | None = None
    log_root: str | None = None

    @property
    def document(self) -> str:
        """What tells this document from all others; each is registered once."""
        return f"{self.kind}:{self.session_id or ''}:{self.digest}"

    def at(self, time_ms: int) -> RegistryEntry:
        """Return the entry."""
        return RegistryEntry(
            kind=self.kind,
            session_id=self.session_id,
            digest=self.digest,
            time_ms=time_ms,
            log_size=self.log_size,
            log_root=self.log_root,
        )


def of_order(row: OrderRow) -> Registration:
    """Return what is registered of an order."""
    return Registration("order", row.digest)


def of_grant(row: SessionRow) -> Registration:
    """Return what is registered of a session's grant."""
    return Registration("grant", _payload_digest(row.grant), row.id)


def of_continuation(row: ContinuationRow) -> Registration:
    """Return what is registered of a continuation."""
    return Registration("continuation", _payload_digest(row.envelope), row.session_id)


def of_seal(last: SegmentRow) -> Registration:
    """Return what is registered of the seal that a session's last segment ends with."""
    checkpoint = notes.parse_checkpoint(notes.parse(last.checkpoint.encode()).text)
    return Registration(
        "seal",
        sha256_hex(last.records.splitlines()[-1]),
        last.session_id,
        log_size=checkpoint.size,
        log_root=checkpoint.root.hex(),
    )


def of_submission(row: SubmissionRow) -> Registration:
    """Return what is registered of a submission."""
    digests = SubmissionDigests(
        session_id=row.session_id,
        weights_digest=row.weights_digest,
        description_digest=row.description_digest,
        scores_digest=row.scores_digest,
    )
    return Registration("submission", sha256_hex(canonical.to_bytes(digests)), row.session_id)


def of_verification(row: VerificationRow) -> Registration:
    """Return what is registered of a verification summary."""
    return Registration("verification", _payload_digest(row.envelope), row.session_id)


def of_verdict(row: VerdictRow) -> Registration:
    """Return what is registered of a verdict."""
    return Registration("verdict", _payload_digest(row.envelope), row.session_id)


def of_draw(row: ReplayRow) -> Registration:
    """Return what is registered of a draw."""
    return Registration("draw", row.draw_digest, row.session_id)


def of_replay(row: ReplayRow) -> Registration:
    """Return what is registered of a draw's result, which is there."""
    return Registration("replay", _payload_digest(row.result or b""), row.session_id)


def _payload_digest(envelope: bytes) -> str:
    return sha256_hex(dsse.Envelope.from_bytes(envelope).payload)
