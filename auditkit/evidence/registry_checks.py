"""Check of a bundle against the auditor's registry: each of its documents is an entry there.

What was registered cannot be left out, exchanged or dated back later without a second registry,
and that is what `monitoring` looks for from outside.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from pydantic import ValidationError

from auditkit.evidence import canonical, dsse, merkle, notes, statements
from auditkit.evidence.bundle import Bundle
from auditkit.evidence.canonical import sha256_hex
from auditkit.evidence.document_checks import CheckpointMissingError, Documents
from auditkit.evidence.findings import Result, Skipped, Warned
from auditkit.evidence.registry_head import RegistryError, RegistryHead, open_head
from schemas import (
    MembershipVerdict,
    RegisteredEntry,
    RegistryEntry,
    RegistryExcerpt,
    SealRecord,
    SessionContinuation,
    SessionGrant,
    SubmissionDigests,
    VerificationSummary,
)
from schemas.registry import EntryKind

MILLISECONDS = 1000
CLOCK_GRAIN_MS = 1000  # cosignature times are whole seconds
MOST_DELAY_MS = 600_000
"""How long after its own date a document of the server's is registered without remark."""


class RegistryExcerptError(RegistryError):
    """The excerpt of the registry cannot be read, or one of its two parts is missing."""


class NotRegisteredError(RegistryError):
    """A document of the bundle is not in the registry."""


class DocumentLeftOutError(RegistryError):
    """The excerpt has an entry whose document the bundle does not have."""


class RegisteredLogError(RegistryError):
    """The session's log was registered with another size or root."""


class RegistryOrderError(RegistryError):
    """Entries do not stand in the order in which their documents can have been made."""


class RegistryTimeError(RegistryError):
    """An entry's time contradicts its document, its neighbours or the head."""


@dataclass(frozen=True)
class RegisteredDocument:
    """A document of a bundle as the registry must have it."""

    kind: EntryKind
    digest: str
    session_id: str | None = None
    dated: datetime | None = None
    """What its maker, the server, says about when it was made; None: another clock, or none."""
    after: "RegisteredDocument | None" = None
    """The document without which it cannot have been made, which is registered before."""
    log_size: int | None = None
    log_root: str | None = None

    @property
    def identity(self) -> tuple[str, str | None, str]:
        """What tells this document from all others."""
        return (self.kind, self.session_id, self.digest)


def registered_documents(bundle: Bundle, seal: SealRecord | None) -> tuple[RegisteredDocument, ...]:
    """Return the documents of a bundle that its auditor has registered, in the order of the story.

    Args:
        bundle: the evidence of one session.
        seal: the record that ends its log; None: the log goes on.

    Raises:
        EvidenceError: a document cannot be read.
    """
    return tuple(_documents(bundle, seal))


def sealed_checkpoint(bundle: Bundle) -> notes.Checkpoint:
    """Return the last checkpoint of a bundle, which covers the seal if the log has one.

    Raises:
        CheckpointMissingError: there is none.
        EvidenceError: it cannot be read.
    """
    last = deque(bundle.checkpoints, maxlen=1)
    if not last:
        raise CheckpointMissingError("the log is sealed, and has no checkpoint")
    return notes.parse_checkpoint(notes.parse(last[0]).text)


def entry_identity(entry: RegistryEntry) -> tuple[str, str | None, str]:
    """Return what tells the document of an entry from all others."""
    return (entry.kind, entry.session_id, entry.digest)


def registered(documents: Documents, seal: SealRecord | None) -> Result:
    """Every document of the bundle is an entry under a head that the registry role signed.

    Raises:
        RegistryError: the excerpt does not hold; the subclass names the rule.
        InclusionProofError, TreeIndexError: an entry is not proven to be in the registry.
        EvidenceError: a document or the head cannot be read.
    """
    bundle = documents.bundle
    if bundle.registry is None and bundle.registry_checkpoint is None:
        return Skipped("the bundle was exported without an excerpt of the auditor's registry")
    if bundle.registry is None or bundle.registry_checkpoint is None:
        raise RegistryExcerptError(
            "the bundle has only one of registry/entries.json and registry/checkpoint; export it "
            "again"
        )
    head = open_head(bundle.registry_checkpoint, documents.history)
    excerpt = _read(bundle.registry)
    _check_proofs(excerpt, head.checkpoint)
    _check_entry_times(excerpt, head)
    expected = registered_documents(bundle, seal)
    entries = {entry_identity(found.entry): found for found in excerpt}
    late = [
        document.kind
        for document in expected
        if _delay_ms(document, _check_entry(document, entries)) > MOST_DELAY_MS
    ]
    left_out = entries.keys() - {document.identity for document in expected}
    if left_out:
        kind, _, digest = min(left_out, key=str)
        raise DocumentLeftOutError(
            f"the registry has an entry for the {kind} with digest {digest}, and the bundle does "
            "not have that document; ask for the whole bundle"
        )
    found = f"{len(expected)} documents in the registry of {head.checkpoint.size} entries"
    if late:
        return Warned(
            f"{found}; registered more than {MOST_DELAY_MS // 60_000} minutes after their own "
            f"date: {', '.join(sorted(set(late)))}"
        )
    return found


def _documents(bundle: Bundle, seal: SealRecord | None) -> Iterator[RegisteredDocument]:
    for envelope in bundle.trust_roots:
        yield RegisteredDocument("trust-root", sha256_hex(_payload(envelope)))
    order = RegisteredDocument("order", sha256_hex(_payload(bundle.order)))
    yield order
    payload = _payload(bundle.grant)
    grant = statements.parse(payload, statements.GRANT_PREDICATE, SessionGrant)
    session = grant.session_id
    last = RegisteredDocument("grant", sha256_hex(payload), session, grant.valid_from, order)
    yield last
    for continued in bundle.continuations:
        payload = _payload(continued.envelope)
        continuation = statements.parse(
            payload, statements.CONTINUATION_PREDICATE, SessionContinuation
        )
        last = RegisteredDocument(
            "continuation", sha256_hex(payload), session, continuation.granted_at, last
        )
        yield last
    if seal is None:
        return
    sealed = _seal(bundle, seal, session, last)
    yield sealed
    for replay in bundle.replays:  # that they were drawn after the seal is for `replay` to say
        drawn = RegisteredDocument("draw", sha256_hex(_payload(replay.draw)), session)
        yield drawn
        if replay.result is not None:
            digest = sha256_hex(_payload(replay.result))
            yield RegisteredDocument("replay", digest, session, after=drawn)
    if bundle.description is None:  # what every submission has, whoever holds T
        return
    digests = SubmissionDigests(
        session_id=session,
        weights_digest=seal.weights_digest,
        description_digest=seal.description_digest,
        scores_digest=seal.scores_digest,
    )
    submission = RegisteredDocument(
        "submission", sha256_hex(canonical.to_bytes(digests)), session, after=sealed
    )
    yield submission
    for envelope in bundle.verifications:
        payload = _payload(envelope)
        summary = statements.parse(payload, statements.VERIFICATION_PREDICATE, VerificationSummary)
        yield RegisteredDocument(
            "verification", sha256_hex(payload), session, summary.verified_at, submission
        )
    for envelope in bundle.verdicts:
        payload = _payload(envelope)
        verdict = statements.parse(payload, statements.VERDICT_PREDICATE, MembershipVerdict)
        yield RegisteredDocument(
            "verdict", sha256_hex(payload), session, verdict.issued_at, submission
        )


def _seal(
    bundle: Bundle, seal: SealRecord, session: str, after: RegisteredDocument
) -> RegisteredDocument:
    checkpoint = sealed_checkpoint(bundle)
    return RegisteredDocument(
        "seal",
        sha256_hex(canonical.to_bytes(seal)),
        session,
        after=after,
        log_size=checkpoint.size,
        log_root=checkpoint.root.hex(),
    )


def _payload(envelope: bytes) -> bytes:
    return dsse.Envelope.from_bytes(envelope).payload


def _read(data: bytes) -> tuple[RegisteredEntry, ...]:
    try:
        excerpt = RegistryExcerpt.from_bytes(data)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in problem["loc"]) or "the document"
        raise RegistryExcerptError(
            f"registry/entries.json is not valid, {place}: {problem['msg']}"
        ) from error
    if canonical.to_bytes(excerpt) != data:
        raise RegistryExcerptError(
            "registry/entries.json is not in RFC 8785 form; keep its exact bytes"
        )
    return excerpt.entries


def _check_proofs(excerpt: tuple[RegisteredEntry, ...], head: notes.Checkpoint) -> None:
    for found in excerpt:
        merkle.verify_inclusion(
            found.index,
            head.size,
            merkle.leaf_hash(canonical.to_bytes(found.entry)),
            [bytes.fromhex(node) for node in found.proof],
            head.root,
        )


def _check_entry_times(excerpt: tuple[RegisteredEntry, ...], head: RegistryHead) -> None:
    before: RegisteredEntry | None = None
    for found in excerpt:
        if before is not None and found.index <= before.index:
            raise RegistryOrderError(
                f"entry {found.index} follows entry {before.index} in the excerpt; expected each "
                "entry once, in the order of the registry"
            )
        if before is not None and found.entry.time_ms < before.entry.time_ms:
            raise RegistryTimeError(
                f"entry {found.index} is dated {found.entry.time_ms} ms, before entry "
                f"{before.index} at {before.entry.time_ms} ms: it was dated back"
            )
        before = found
    latest = head.cosigned_at * MILLISECONDS + CLOCK_GRAIN_MS
    if before is not None and before.entry.time_ms >= latest:
        raise RegistryTimeError(
            f"entry {before.index} is dated {before.entry.time_ms} ms, after the head that it is "
            f"under was cosigned, in second {head.cosigned_at}"
        )


def _check_entry(
    document: RegisteredDocument, entries: dict[tuple[str, str | None, str], RegisteredEntry]
) -> RegistryEntry:
    found = entries.get(document.identity)
    if found is None:
        raise NotRegisteredError(
            f"expected an entry for the {document.kind} with digest {document.digest}, the excerpt "
            "of the auditor's registry has none; a document that was never registered may be shown "
            "to some and not to others"
        )
    entry = found.entry
    if (entry.log_size, entry.log_root) != (document.log_size, document.log_root):
        raise RegisteredLogError(
            f"the log was registered with {entry.log_size} records and root {entry.log_root}, "
            f"here it has {document.log_size} and {document.log_root}: there are two histories"
        )
    before = None if document.after is None else entries.get(document.after.identity)
    if before is not None and before.index >= found.index:
        raise RegistryOrderError(
            f"the {document.kind} is entry {found.index}, the {before.entry.kind} that it rests on "
            f"only entry {before.index}"
        )
    if _delay_ms(document, entry) < -CLOCK_GRAIN_MS:
        raise RegistryTimeError(
            f"the {document.kind} of {document.dated} was registered at {entry.time_ms} ms, before "
            "it was made: its entry was dated back"
        )
    return entry


def _delay_ms(document: RegisteredDocument, entry: RegistryEntry) -> int:
    if document.dated is None:
        return 0
    return entry.time_ms - int(document.dated.timestamp() * MILLISECONDS)
