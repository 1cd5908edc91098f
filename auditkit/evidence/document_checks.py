"""Checks of what was signed before training: order, request, grant, keys, samples, checkpoints."""

from array import array
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

import numpy as np
from pydantic import ValidationError

from auditkit.evidence import containment, continuations, dsse, merkle, notes, statements
from auditkit.evidence.bundle import Bundle
from auditkit.evidence.canonical import sha256_hex, to_bytes
from auditkit.evidence.derivation import LEAF_BYTES
from auditkit.evidence.errors import EnvelopeFormatError, EvidenceError, TrustRootError
from auditkit.evidence.findings import Result, Skipped
from auditkit.evidence.keys import PublicKey
from auditkit.evidence.membership_codes import check_committed, check_secret
from auditkit.evidence.policy import (
    check_image,
    check_order_in_force,
    check_rules,
    check_session_number,
    split_sizes,
)
from auditkit.evidence.trust_history import COSIGNER_SUFFIX, TrustHistory
from schemas import AuditOrder, SampleCommitment, SessionGrant, SessionRequest, TrustRoot
from schemas.registry import RegistryExcerpt

__all__ = ["COSIGNER_SUFFIX", "DOCUMENT_CHECKS", "Documents", "open_documents", "open_envelope"]

SECONDS_PER_HOUR = 3600
BYTES_PER_GIB = 2**30
LAST_SECOND = int(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp())
TIME_GRAIN_SECONDS = 1e-6  # times are told to the microsecond, and rounded to it


class DocumentError(EvidenceError):
    """Order, request, grant or a continuation cannot be read at all."""


class GrantMismatchError(EvidenceError):
    """The grant answers another request, or another order."""


class SessionKeyError(EvidenceError):
    """The session key is not the certified one, or was revoked, or its time was over."""


class ImageExchangedError(EvidenceError):
    """The session went on in a container of another image than it began in."""


class SampleCommitmentError(EvidenceError):
    """The manifest leaves do not hash to the committed root."""


class RepeatedLeafError(EvidenceError):
    """A manifest has a leaf twice: two samples would share a membership code, or a key."""


class CheckpointMissingError(EvidenceError):
    """The log has no checkpoint at all, so nobody has signed for it."""


class CosignatureThresholdError(EvidenceError):
    """Fewer of the auditor's keys cosigned a checkpoint than the trust root demands."""


@dataclass(frozen=True)
class Documents:
    """Order, request, grant and continuations as they can be read, before any is believed."""

    trusted: TrustHistory
    """The versions of the trust root that the verifier brought along."""
    bundle: Bundle
    order: AuditOrder
    order_envelope: dsse.Envelope
    request: SessionRequest
    grant: SessionGrant
    grant_envelope: dsse.Envelope
    continuations: tuple[continuations.OpenContinuation, ...]
    code_secret: bytes | None = None
    """Of the membership codes, from whoever has it: the auditor, or those it was disclosed to."""

    @cached_property
    def history(self) -> TrustHistory:
        """The trusted versions of the trust root, with those in the bundle if they follow."""
        return known_history(self.trusted, self.bundle)

    @property
    def trust_root(self) -> TrustRoot:
        """The newest version of the trust root."""
        return self.history.current

    @property
    def order_digest(self) -> str:
        """SHA-256 of the order's payload."""
        return sha256_hex(self.order_envelope.payload)

    @property
    def grant_digest(self) -> str:
        """SHA-256 of the grant's payload."""
        return sha256_hex(self.grant_envelope.payload)

    @cached_property
    def cosignature_times(self) -> Sequence[int]:
        """When the auditor cosigned each checkpoint, in Unix seconds; verified once.

        Raises:
            EvidenceError: a cosignature is missing or bad.
        """
        times = (cosignature_time(self.history, note) for note in self.bundle.checkpoints)
        return array("q", times)

    def logged_by(self, size: int = 0) -> datetime | None:
        """By when a cosignature shows that the log had more than `size` records.

        What these records name existed by then. None if no cosignature shows it.
        """
        try:
            return next(
                _as_datetime(time)
                for note, time in zip(self.bundle.checkpoints, self.cosignature_times, strict=True)
                if notes.parse_checkpoint(notes.parse(note).text).size > size
            )
        except (EvidenceError, StopIteration):
            return None

    def registered_by(self, envelope: dsse.Envelope) -> datetime | None:
        """By when an entry of the registry shows that a signed document existed, if one does.

        Whether the entry itself holds is for the checks of the registry to say.
        """
        return self._registered.get(sha256_hex(envelope.payload))

    @cached_property
    def _registered(self) -> dict[str, datetime]:
        return registration_times(self.bundle)


def known_history(trusted: TrustHistory, bundle: Bundle) -> TrustHistory:
    """Return the trusted versions of the trust root, with those in the bundle if they follow."""
    try:
        return trusted.joined(bundle.trust_roots)
    except TrustRootError:
        return trusted  # `trust-root` says so


def registration_times(bundle: Bundle) -> dict[str, datetime]:
    """Return by when the registry had each document, by the digest of its payload.

    Whether the entries hold is for the checks of the registry to say.
    """
    if bundle.registry is None:
        return {}
    try:
        return {
            found.entry.digest: _as_datetime(found.entry.time_ms // 1000)
            for found in RegistryExcerpt.from_bytes(bundle.registry).entries
        }
    except ValidationError:
        return {}


def open_documents(
    bundle: Bundle, trusted: TrustRoot | TrustHistory, code_secret: bytes | None = None
) -> Documents:
    """Read order, request, grant and continuations.

    Raises:
        DocumentError: one of them is not even well-formed.
    """
    try:
        order_envelope = open_envelope(bundle.order)
        grant_envelope = open_envelope(bundle.grant)
        request = SessionRequest.from_bytes(bundle.request)
        if to_bytes(request) != bundle.request:
            raise DocumentError("the request is not in RFC 8785 form; keep its exact bytes")
        return Documents(
            trusted=TrustHistory.of(trusted),
            bundle=bundle,
            order=statements.parse(order_envelope.payload, statements.ORDER_PREDICATE, AuditOrder),
            order_envelope=order_envelope,
            request=request,
            grant=statements.parse(
                grant_envelope.payload, statements.GRANT_PREDICATE, SessionGrant
            ),
            grant_envelope=grant_envelope,
            continuations=tuple(
                continuations.open_continuation(found) for found in bundle.continuations
            ),
            code_secret=code_secret,
        )
    except (EvidenceError, ValidationError) as error:
        raise DocumentError(f"a signed document cannot be read: {error}") from error


def open_envelope(data: bytes) -> dsse.Envelope:
    """Read a signed document in the one form that it is kept in.

    DSSE lets an envelope be written in many ways, and says nothing of what else stands in it. None
    of that is signed, so evidence that is to stay as it was must not have it.

    Raises:
        EnvelopeFormatError: not an envelope, or not in RFC 8785 form.
    """
    envelope = dsse.Envelope.from_bytes(data)
    if envelope.to_bytes() != data:
        raise EnvelopeFormatError("a DSSE envelope is not in RFC 8785 form; keep its exact bytes")
    return envelope


def trust_root_followed(documents: Documents) -> Result:
    """The versions of the trust root in the bundle follow from a trusted one, or lead to it."""
    versions = documents.trusted.joined(documents.bundle.trust_roots).versions
    first, last = versions[0].root, versions[-1]
    numbers = str(first.version)
    if len(versions) > 1:
        numbers += f" to {last.root.version}"
    return (
        f"{'version' if len(versions) == 1 else 'versions'} {numbers} of {last.root.auditor}; "
        f"the newest is {last.digest[:16]}…"
    )


def order_signed(documents: Documents) -> Result:
    """The order carries enough signatures of the order role of its time."""
    documents.history.verify_statement(
        "order",
        documents.order_envelope,
        statements.ORDER_PREDICATE,
        AuditOrder,
        dated=lambda order: order.issued_at,
        known_by=documents.logged_by(),
    )
    return f"order {documents.order.order_id}, signed by {documents.history.auditor}"


def order_in_force(documents: Documents) -> Result:
    """The order was in force when the session was granted, and the session does not outlive it."""
    order, grant = documents.order, documents.grant
    check_order_in_force(order, grant.valid_from)
    check_order_in_force(order, grant.valid_until)
    return f"until {order.expires_at:%Y-%m-%d}, granted {grant.valid_from:%Y-%m-%d}"


def request_within_policy(documents: Documents) -> Result:
    """The request fits the order, and the grant splits the pool as the order says."""
    order, request, grant = documents.order, documents.request, documents.grant
    check_rules(order, request)
    expected = split_sizes(order.split, request.pool.size)
    if expected != grant.split:
        raise GrantMismatchError(
            f"the grant splits the pool into {grant.split}, the order's fractions give {expected}"
        )
    check_session_number(order, grant.session_number)
    return (
        f"{request.config.model.architecture}, taps {request.config.taps.setup}; session "
        f"{grant.session_number} of at most {order.most_sessions} under this order"
    )


def grant_signed(documents: Documents) -> Result:
    """The grant, and with it the session key's certificate, is the auditor's."""
    documents.history.verify_statement(
        "session",
        documents.grant_envelope,
        statements.GRANT_PREDICATE,
        SessionGrant,
        dated=lambda grant: grant.valid_from,
        known_by=documents.logged_by(),
    )
    return f"session {documents.grant.session_id}, signed by {documents.history.auditor}"


def grant_matches(documents: Documents) -> Result:
    """The grant names the digests of this request and of this order, and a log of this auditor."""
    grant, order_digest = documents.grant, documents.order_digest
    origin = f"{documents.history.origin}/sessions/{grant.session_id}"
    for what, expected, found in (
        ("digest of the request", sha256_hex(documents.bundle.request), grant.request_digest),
        ("digest of the order", order_digest, grant.order_digest),
        ("order that the request names", order_digest, documents.request.order_digest),
        ("origin of the log", origin, grant.origin),
    ):
        if expected != found:
            raise GrantMismatchError(f"{what}: named is {found}, expected was {expected}")
    return f"request {grant.request_digest[:16]}…"


def codes_committed(documents: Documents) -> Result:
    """The grant commits to a secret if codes are used; the secret is that one, if it is here."""
    grant, mint = documents.grant, documents.request.config.mint
    check_committed(documents.request.config, grant)
    if grant.code_commitment is None:
        return "no codes are used"
    if documents.code_secret is None:
        return f"codes of length {mint.code_length}; the auditor keeps the secret to itself"
    check_secret(documents.code_secret, grant.code_commitment)
    return f"codes of length {mint.code_length}, from the secret committed to"


def session_key(documents: Documents) -> Result:
    """The session key is the requested one, strong, not revoked, and valid as ordered."""
    order, grant = documents.order, documents.grant
    if documents.request.session_key != grant.session_key:
        raise SessionKeyError("the grant certifies another key than was requested")
    if grant.session_key in documents.history.revoked_session_keys:
        raise SessionKeyError(
            f"the auditor has revoked session key {grant.session_key}; what it signed is void"
        )
    seconds = (grant.valid_until - grant.valid_from).total_seconds()
    if not 0 < seconds <= order.most_session_hours * SECONDS_PER_HOUR + TIME_GRAIN_SECONDS:
        raise SessionKeyError(
            f"the certificate runs for {seconds / SECONDS_PER_HOUR:g} hours, the order allows "
            f"{order.most_session_hours:g} hours"
        )
    PublicKey.from_hex(grant.session_key)
    return f"key {grant.session_key[:16]}…, valid until {grant.valid_until:%Y-%m-%d %H:%M} UTC"


def samples_committed(documents: Documents) -> Result:
    """The leaves are all different, and hash to the roots that the request fixed beforehand."""
    request = documents.request
    _check_leaves("pool", documents.bundle.pool_leaves, request.pool)
    _check_leaves("test set", documents.bundle.test_leaves, request.test)
    return f"{request.pool.size} pool samples and {request.test.size} test samples"


def _check_leaves(what: str, leaves: bytes, commitment: SampleCommitment) -> None:
    if len(leaves) != commitment.size * LEAF_BYTES:
        raise SampleCommitmentError(
            f"the manifest of the {what} has {len(leaves) / LEAF_BYTES:g} leaves, committed were "
            f"{commitment.size}"
        )
    tree = merkle.Frontier()
    for start in range(0, len(leaves), LEAF_BYTES):
        tree.append(merkle.leaf_hash(leaves[start : start + LEAF_BYTES]))
    if tree.root().hex() != commitment.root:
        raise SampleCommitmentError(
            f"the manifest of the {what} does not hash to the root {commitment.root} that was "
            "fixed before the nonce: samples were exchanged"
        )
    check_distinct_leaves(what, leaves)


def check_distinct_leaves(what: str, leaves: bytes) -> None:
    """Check that every sample of a manifest has a leaf, and so a code, of its own.

    One code in several places would count as often in a test of a set, which is a bound for codes
    that are independent of each other.

    Args:
        what: the manifest is of, for the message.
        leaves: of `LEAF_BYTES` each, one after the other.

    Raises:
        RepeatedLeafError: one is there twice.

    """
    table = np.frombuffer(leaves, np.dtype((np.void, LEAF_BYTES)))
    found, places, counts = np.unique(table, return_index=True, return_counts=True)
    if len(found) < len(table):
        first = int(places[counts > 1].min())
        raise RepeatedLeafError(
            f"expected different leaves in the manifest of the {what}, found that of sample "
            f"{first} {int(counts[places == first][0])} times; every sample needs a key of its own"
        )


def image_verified(documents: Documents) -> Result:
    """Every container of the session ran one allowed image, locked down."""
    request = documents.request
    first = request.container
    if first is None:
        return Skipped("the training did not run in a container, as the order allows")
    check_image(documents.order, first.image, first.signature)
    containment.check_container(first)
    for found in documents.continuations:
        container = found.request.container
        if container.image.config_digest != first.image.config_digest:
            raise ImageExchangedError(
                f"the session began in image {first.image.config_digest} and went on in "
                f"{container.image.config_digest}; resume a run in the image that it began in"
            )
        containment.check_container(container)
    described = first.description
    limits = (
        f"{described.memory_bytes / BYTES_PER_GIB:.3g} GiB, {described.cpus:g} CPUs, "
        f"{described.most_processes} processes"
    )
    count = 1 + len(documents.continuations)
    containers = "1 container" if count == 1 else f"{count} containers one after another"
    return (
        f"image {first.image.config_digest[:16]}… in {containers} without network, at most "
        f"{limits}; engine: {described.engine}"
    )


def continuations_certified(documents: Documents) -> Result:
    """Each fresh container asked for this session, and the auditor certified its new key."""
    continuations.check_continuations(
        documents.history,
        documents.request,
        documents.grant,
        documents.grant_digest,
        documents.continuations,
        logged_by=documents.logged_by,
    )
    count = len(documents.continuations)
    if not count:
        return "the session was not continued under another key"
    return f"{count} {'continuation' if count == 1 else 'continuations'}, each with its own key"


def checkpoints_signed(documents: Documents) -> Result:
    """Every checkpoint carries the signature of the key for its size (C2SP signed-note)."""
    checkpoints = _checkpoints(documents)
    grant = documents.grant
    answers = [found.answer for found in documents.continuations]
    signers = {
        key: notes.VerifierKey.ed25519(grant.origin, PublicKey.from_hex(key))
        for key in (grant.session_key, *(answer.session_key for answer in answers))
    }
    for note in checkpoints:
        size = notes.parse_checkpoint(notes.parse(note).text).size
        notes.verify(note, [signers[continuations.key_for_size(grant, answers, size)]])
    keys = "the session key" if not answers else "the session keys, each in its time"
    return f"{len(checkpoints)} checkpoints, signed by {keys}"


def checkpoints_cosigned(documents: Documents) -> Result:
    """Every checkpoint carries the auditor's cosignature (C2SP tlog-cosignature)."""
    _checkpoints(documents)
    times = documents.cosignature_times
    first, last = (_as_text(time) for time in (times[0], times[-1]))
    return f"from {first} to {last} UTC"


def _as_text(time: int) -> str:
    return f"{_as_datetime(time):%Y-%m-%d %H:%M:%S}"


def _as_datetime(seconds: int) -> datetime:
    # A cosignature may carry any 63-bit time; the calendar ends earlier.
    return datetime.fromtimestamp(min(seconds, LAST_SECOND), UTC)


def _checkpoints(documents: Documents) -> Collection[bytes]:
    if not documents.bundle.checkpoints:
        raise CheckpointMissingError(
            "the log has no checkpoint: nothing of it ever reached the auditor; run `auditkit sync`"
        )
    return documents.bundle.checkpoints


def cosignature_time(history: TrustHistory, note: bytes) -> int:
    """Return when the auditor cosigned a checkpoint, in Unix seconds; the earliest time counts.

    Each cosignature is judged by the version of the trust root that was in force at its time.

    Raises:
        EvidenceError: the note has no cosignature of the auditor, or a bad one.
        CosignatureThresholdError: too few of the keys that were in force have cosigned it.
    """
    times = {
        signature.key.public_key: signature.timestamp
        for signature in notes.verify(note, history.cosigner_keys()).signatures
        if signature.timestamp is not None
    }
    counted, threshold = history.counted(
        "cosigner", {key: _as_datetime(time) for key, time in times.items()}
    )
    if len(counted) < threshold:
        raise CosignatureThresholdError(
            f"a checkpoint carries {len(counted)} cosignatures by keys that spoke for the auditor "
            f"when they were made, the trust root demands {threshold}"
        )
    return min(times[key] for key in counted)


@dataclass(frozen=True)
class DocumentCheck:
    """One named check over the documents and the checkpoints' signatures."""

    name: str
    claim: str
    run: Callable[[Documents], Result]


DOCUMENT_CHECKS = (
    DocumentCheck(
        "trust-root",
        "Every version of the trust root follows from the one that is trusted",
        trust_root_followed,
    ),
    DocumentCheck("order-signed", "The auditor signed the order", order_signed),
    DocumentCheck("order-in-force", "The order was in force for the whole session", order_in_force),
    DocumentCheck(
        "request-within-policy", "The request fits every rule of the order", request_within_policy
    ),
    DocumentCheck("grant-signed", "The auditor signed the session's grant", grant_signed),
    DocumentCheck("grant-matches", "The grant answers this request and this order", grant_matches),
    DocumentCheck(
        "codes-committed",
        "The secret of the membership codes, if any are used, was fixed before the training",
        codes_committed,
    ),
    DocumentCheck("session-key", "The session key is certified and not revoked", session_key),
    DocumentCheck(
        "continuations",
        "The auditor certified the key of every further container",
        continuations_certified,
    ),
    DocumentCheck(
        "samples-committed", "The samples were fixed before the nonce existed", samples_committed
    ),
    DocumentCheck(
        "image-verified",
        "The training ran in locked-down containers of one allowed image",
        image_verified,
    ),
    DocumentCheck(
        "checkpoints-signed",
        "The session key of its time signed every checkpoint",
        checkpoints_signed,
    ),
    DocumentCheck(
        "checkpoints-cosigned", "The auditor cosigned every checkpoint", checkpoints_cosigned
    ),
)
