"""The trust root: from it alone a third party verifies everything else.

Modelled on the root role of The Update Framework (TUF specification, sections 2.1.1 and 5.3).
"""

from collections.abc import Sequence
from datetime import datetime
from typing import TypeVar

from auditkit.evidence import dsse, statements
from auditkit.evidence.errors import (
    EnvelopeFormatError,
    KeyFormatError,
    PayloadTypeError,
    StatementError,
    ThresholdError,
    TrustRoleMissingError,
    TrustRootExpiredError,
    TrustRootFormatError,
    TrustRootSignatureError,
    WeakKeyError,
)
from auditkit.evidence.keys import PublicKey, Signer
from schemas.base import Schema
from schemas.trust import Role, RoleName, TrustRoot

S = TypeVar("S", bound=Schema)


def trust_root_payload(root: TrustRoot) -> bytes:
    """Return the statement that the root keys sign.

    Its SHA-256 is the digest of the version: the `previous` of the next one, and the fingerprint
    that people compare.
    """
    subject = statements.subject("trust-root", str(root.version), root)
    return statements.make(statements.TRUST_ROOT_PREDICATE, root, subject)


def sign_trust_root(root: TrustRoot, keys: Sequence[Signer]) -> dsse.Envelope:
    """Return the signed trust root.

    A version after the first must be signed by the root keys of the version before as well: see
    `trust_history.TrustHistory`.

    Raises:
        ThresholdError: no key is given.
    """
    return dsse.sign(trust_root_payload(root), keys)


def open_trust_root(data: bytes, now: datetime) -> TrustRoot:
    """Return a trust root that has signed itself and has not expired.

    That says nothing about whose it is: get the bytes, or their SHA-256, from the auditor directly.

    Args:
        data: DSSE envelope as JSON.
        now: the time to judge by, with a time zone.

    Raises:
        TrustRootFormatError: not a trust root, or a key is weak or not what its identifier says.
        TrustRootSignatureError: fewer keys of its root role than their threshold have signed.
        TrustRootExpiredError: it expired at or before `now`.
    """
    _, root = read_trust_root(data)
    check_not_expired(root, now)
    return root


def read_trust_root(data: bytes) -> tuple[dsse.Envelope, TrustRoot]:
    """Return a trust root that has signed itself, expired or not, and its envelope.

    Raises:
        TrustRootFormatError, TrustRootSignatureError: as `open_trust_root`.
    """
    try:
        envelope = dsse.Envelope.from_bytes(data)
    except EnvelopeFormatError as error:
        raise TrustRootFormatError(f"not a trust root: {error}") from error
    root = parse_trust_root(envelope.payload)
    check_signed_by(envelope, root)
    return envelope, root


def parse_trust_root(payload: bytes) -> TrustRoot:
    """Read the statement of a trust root without believing it: nobody may have signed it yet.

    Raises:
        TrustRootFormatError: not a trust root, or a key is weak or not what its identifier says.
    """
    try:
        root = statements.parse(payload, statements.TRUST_ROOT_PREDICATE, TrustRoot)
    except StatementError as error:
        raise TrustRootFormatError(f"not a trust root: {error}") from error
    for keyid in root.keys:
        _key(root, keyid)
    return root


def read_draft(data: bytes) -> tuple[dsse.Envelope, TrustRoot]:
    """Return a version that root keys are still signing: an envelope, or its bare statement.

    Raises:
        TrustRootFormatError: not a trust root, or a key is weak or not what its identifier says.
    """
    try:
        envelope = dsse.Envelope.from_bytes(data)
    except EnvelopeFormatError:
        envelope = dsse.Envelope(data, dsse.IN_TOTO_PAYLOAD_TYPE, ())
    return envelope, parse_trust_root(envelope.payload)


def add_signatures(envelope: dsse.Envelope, keys: Sequence[Signer]) -> dsse.Envelope:
    """Return a draft with signatures of further root keys; a key's earlier one is replaced.

    Raises:
        ThresholdError: no key is given.
    """
    added = dsse.sign(envelope.payload, keys, envelope.payload_type).signatures
    keyids = {signature.keyid for signature in added}
    kept = tuple(found for found in envelope.signatures if found.keyid not in keyids)
    return dsse.Envelope(envelope.payload, envelope.payload_type, (*kept, *added))


def root_signers(envelope: dsse.Envelope, root: TrustRoot) -> frozenset[str]:
    """Return which root keys of a version have signed an envelope, by identifier."""
    return frozenset(
        keyid for keyid, key in role_keys(root, "root").items() if _has_signed(envelope, keyid, key)
    )


def check_not_expired(root: TrustRoot, now: datetime) -> None:
    """Check that a version may still be used at a time.

    Raises:
        TrustRootExpiredError: it expired at or before `now`.
    """
    if root.expires_at <= now:
        raise TrustRootExpiredError(
            f"trust root version {root.version} expired at {root.expires_at.isoformat()}, found "
            f"was the time {now.isoformat()}; ask the auditor for the current one"
        )


def check_signed_by(envelope: dsse.Envelope, root: TrustRoot) -> None:
    """Check that enough keys of this version's root role have signed an envelope.

    Raises:
        TrustRootSignatureError: too few have.
    """
    try:
        dsse.verify(envelope, role_keys(root, "root"), root.roles["root"].threshold)
    except (ThresholdError, PayloadTypeError) as error:
        raise TrustRootSignatureError(
            f"not signed by the root role of trust root version {root.version}: {error}"
        ) from error


def role_keys(root: TrustRoot, role: RoleName) -> dict[str, PublicKey]:
    """Return the keys that may act in a role, by identifier.

    Raises:
        TrustRoleMissingError: the trust root gives no key for the role.
        TrustRootFormatError: a key is weak or not what its identifier says.
    """
    return {keyid: _key(root, keyid) for keyid in _role(root, role).keyids}


def role_threshold(root: TrustRoot, role: RoleName) -> int:
    """Return how many different keys of a role must sign.

    Raises:
        TrustRoleMissingError: the trust root gives no key for the role.
    """
    return _role(root, role).threshold


def verify_statement(
    root: TrustRoot, role: RoleName, envelope: dsse.Envelope, predicate_type: str, model: type[S]
) -> S:
    """Return the predicate of a statement signed by as many different keys as the role demands.

    Raises:
        TrustRoleMissingError: the trust root gives no key for the role.
        ThresholdError: fewer keys of the role have signed.
        PayloadTypeError: the payload is not an in-toto statement.
        StatementError: it is another statement than expected.
    """
    payload = dsse.verify(envelope, role_keys(root, role), role_threshold(root, role))
    return statements.parse(payload, predicate_type, model)


def _has_signed(envelope: dsse.Envelope, keyid: str, key: PublicKey) -> bool:
    try:
        dsse.verify(envelope, {keyid: key})
    except (ThresholdError, PayloadTypeError):
        return False
    return True


def _role(root: TrustRoot, role: RoleName) -> Role:
    if role not in root.roles:
        raise TrustRoleMissingError(
            f"trust root version {root.version} gives no key for the role {role}; the auditor can "
            "add one with `auditkit trust rotate`"
        )
    return root.roles[role]


def _key(root: TrustRoot, keyid: str) -> PublicKey:
    try:
        key = PublicKey.from_hex(root.keys[keyid])
    except (KeyFormatError, WeakKeyError) as error:
        raise TrustRootFormatError(f"key {keyid} of the trust root is unusable: {error}") from error
    if key.keyid != keyid:
        raise TrustRootFormatError(f"key {key.hex} is listed as {keyid} but is {key.keyid}")
    return key
