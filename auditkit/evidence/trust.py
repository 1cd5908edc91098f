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
    TrustRootExpiredError,
    TrustRootFormatError,
    TrustRootSignatureError,
    TrustRootVersionError,
    WeakKeyError,
)
from auditkit.evidence.keys import PublicKey, SigningKey
from schemas.base import Schema
from schemas.trust import RoleName, TrustRoot

S = TypeVar("S", bound=Schema)


def sign_trust_root(root: TrustRoot, keys: Sequence[SigningKey]) -> dsse.Envelope:
    """Return the signed trust root.

    When keys of the root role change, both the old and the new ones sign: see `open_successor`.

    Raises:
        ThresholdError: no key is given.
    """
    subject = statements.subject("trust-root", str(root.version), root)
    return dsse.sign(statements.make(statements.TRUST_ROOT_PREDICATE, root, subject), keys)


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
    envelope, root = _read(data)
    _verify_root_role(envelope, root)
    if root.expires_at <= now:
        raise TrustRootExpiredError(
            f"trust root version {root.version} expired at {root.expires_at.isoformat()}; "
            "ask the auditor for the current one"
        )
    return root


def open_successor(trusted: TrustRoot, data: bytes, now: datetime) -> TrustRoot:
    """Return the next version of a trust root (TUF specification, section 5.3).

    Raises:
        TrustRootError: as `open_trust_root`; also TrustRootVersionError when the version is not the
            next one or the auditor another, and TrustRootSignatureError when too few of the
            trusted version's root keys have signed it.
    """
    envelope, root = _read(data)
    _verify_root_role(envelope, trusted)
    if root.version != trusted.version + 1 or root.origin != trusted.origin:
        raise TrustRootVersionError(
            f"expected version {trusted.version + 1} of {trusted.origin}, "
            f"found version {root.version} of {root.origin}"
        )
    return open_trust_root(data, now)


def role_keys(root: TrustRoot, role: RoleName) -> dict[str, PublicKey]:
    """Return the keys that may act in a role, by identifier.

    Raises:
        TrustRootFormatError: a key is weak or not what its identifier says.
    """
    return {keyid: _key(root, keyid) for keyid in root.roles[role].keyids}


def verify_statement(
    root: TrustRoot, role: RoleName, envelope: dsse.Envelope, predicate_type: str, model: type[S]
) -> S:
    """Return the predicate of a statement signed by as many different keys as the role demands.

    Raises:
        ThresholdError: fewer keys of the role have signed.
        PayloadTypeError: the payload is not an in-toto statement.
        StatementError: it is another statement than expected.
    """
    payload = dsse.verify(envelope, role_keys(root, role), root.roles[role].threshold)
    return statements.parse(payload, predicate_type, model)


def _read(data: bytes) -> tuple[dsse.Envelope, TrustRoot]:
    """Read a trust root without believing it: its keys are needed to verify its signatures."""
    try:
        envelope = dsse.Envelope.from_bytes(data)
        root = statements.parse(envelope.payload, statements.TRUST_ROOT_PREDICATE, TrustRoot)
    except (EnvelopeFormatError, StatementError) as error:
        raise TrustRootFormatError(f"not a trust root: {error}") from error
    for keyid in root.keys:
        _key(root, keyid)
    return envelope, root


def _verify_root_role(envelope: dsse.Envelope, root: TrustRoot) -> None:
    try:
        dsse.verify(envelope, role_keys(root, "root"), root.roles["root"].threshold)
    except (ThresholdError, PayloadTypeError) as error:
        raise TrustRootSignatureError(
            f"not signed by the root role of trust root version {root.version}: {error}"
        ) from error


def _key(root: TrustRoot, keyid: str) -> PublicKey:
    try:
        key = PublicKey.from_hex(root.keys[keyid])
    except (KeyFormatError, WeakKeyError) as error:
        raise TrustRootFormatError(f"key {keyid} of the trust root is unusable: {error}") from error
    if key.keyid != keyid:
        raise TrustRootFormatError(f"key {key.hex} is listed as {keyid} but is {key.keyid}")
    return key
