"""Envelopes of the Dead Simple Signing Envelope specification, version 1 (DSSE).

What is signed is the payload with its type, length-prefixed (PAE), never a re-serialisation of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from auditkit.evidence import canonical
from auditkit.evidence.encoding import from_base64, to_base64
from auditkit.evidence.errors import (
    CanonicalFormError,
    EnvelopeFormatError,
    PayloadTypeError,
    SignatureError,
    ThresholdError,
)
from auditkit.evidence.keys import PublicKey, Signer

IN_TOTO_PAYLOAD_TYPE = "application/vnd.in-toto+json"
"""Payload type of in-toto statements (in-toto attestation framework, Envelope layer)."""

MAX_ENVELOPE_BYTES = 4_000_000
"""Largest envelope read; an order or a verdict takes a few thousand bytes."""

MAX_SIGNATURES = 100
"""Most signatures read in one envelope."""

MAX_LABEL_CHARACTERS = 1_000
"""Longest payload type and longest key identifier read."""


class EnvelopeSignature(NamedTuple):
    """A signature, and the unauthenticated hint which key made it (may be empty)."""

    keyid: str
    sig: bytes


@dataclass(frozen=True)
class Envelope:
    """Payload bytes, their type, and signatures over both. Nothing of it is verified yet."""

    payload: bytes
    payload_type: str
    signatures: tuple[EnvelopeSignature, ...]

    def to_bytes(self) -> bytes:
        """Return the JSON envelope, with standard base64 and in RFC 8785 form."""
        return canonical.to_bytes(
            {
                "payload": to_base64(self.payload),
                "payloadType": self.payload_type,
                "signatures": [
                    {"keyid": signature.keyid, "sig": to_base64(signature.sig)}
                    for signature in self.signatures
                ],
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> "Envelope":
        """Read a JSON envelope.

        As the specification demands, fields that it does not know are ignored, empty fields may be
        left out, and base64 may be standard or URL-safe. A member named twice is refused.

        Raises:
            EnvelopeFormatError: not such an envelope, or one beyond the size limits.
        """
        try:
            document = canonical.parse(data, MAX_ENVELOPE_BYTES)
        except CanonicalFormError as error:
            raise EnvelopeFormatError(f"not a DSSE envelope: {error}") from error
        if not isinstance(document, dict):
            raise EnvelopeFormatError("expected a DSSE envelope as a JSON object")
        signatures = document.get("signatures")
        if not isinstance(signatures, list) or not 1 <= len(signatures) <= MAX_SIGNATURES:
            raise EnvelopeFormatError(f"expected a list of 1 to {MAX_SIGNATURES} signatures")
        return cls(
            payload=_decoded(document, "payload"),
            payload_type=_label(document, "payloadType"),
            signatures=tuple(_signature(item) for item in signatures),
        )


def pre_authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    """Return PAE(UTF8(payload_type), payload), the bytes that are signed (DSSE protocol)."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def sign(
    payload: bytes, keys: Sequence[Signer], payload_type: str = IN_TOTO_PAYLOAD_TYPE
) -> Envelope:
    """Return an envelope with one signature for each key.

    Raises:
        ThresholdError: no key is given.
    """
    if not keys:
        raise ThresholdError("expected at least one key to sign with, found none")
    message = pre_authentication_encoding(payload_type, payload)
    return Envelope(
        payload,
        payload_type,
        tuple(EnvelopeSignature(key.public.keyid, key.sign(message)) for key in keys),
    )


def verify(
    envelope: Envelope,
    keys: Mapping[str, PublicKey],
    threshold: int = 1,
    payload_type: str = IN_TOTO_PAYLOAD_TYPE,
) -> bytes:
    """Return the payload when `threshold` different keys have signed it (DSSE (t, n) protocol).

    Bad signatures and signatures by unknown keys are skipped. The key identifier only decides which
    key is tried first; a key that signs twice, or is listed under two identifiers, counts once.

    Args:
        envelope: what has been received.
        keys: trusted keys by identifier.
        threshold: number of different keys that must have signed, at least 1.
        payload_type: the type that the caller can read.

    Raises:
        ThresholdError: fewer keys have signed, or the threshold is below 1.
        PayloadTypeError: the payload is of another type.
    """
    if threshold < 1:
        raise ThresholdError(f"expected a threshold of at least 1, found {threshold}")
    message = pre_authentication_encoding(envelope.payload_type, envelope.payload)
    found = {_signer(signature, keys, message) for signature in envelope.signatures}
    signers = found - {None}
    if len(signers) < threshold:
        raise ThresholdError(
            f"expected signatures by {threshold} of {len(keys)} trusted keys, found {len(signers)}"
        )
    if envelope.payload_type != payload_type:
        raise PayloadTypeError(
            f"expected a payload of type {payload_type}, found {envelope.payload_type[:80]!r}"
        )
    return envelope.payload


def _signer(
    signature: EnvelopeSignature, keys: Mapping[str, PublicKey], message: bytes
) -> PublicKey | None:
    """Return the trusted key that has signed, trying the one that the identifier hints at first."""
    hinted = keys.get(signature.keyid)
    candidates = keys.values() if hinted is None else (hinted, *keys.values())
    return next((key for key in candidates if _has_signed(key, signature.sig, message)), None)


def _has_signed(key: PublicKey, signature: bytes, message: bytes) -> bool:
    try:
        key.verify(signature, message)
    except SignatureError:
        return False
    return True


def _signature(item: Any) -> EnvelopeSignature:  # noqa: ANN401 - any JSON value
    if not isinstance(item, dict):
        raise EnvelopeFormatError("expected each signature as a JSON object")
    return EnvelopeSignature(_label(item, "keyid"), _decoded(item, "sig"))


def _label(document: dict[str, Any], name: str) -> str:
    value = document.get(name, "")
    if not isinstance(value, str) or len(value) > MAX_LABEL_CHARACTERS:
        raise EnvelopeFormatError(
            f"expected `{name}` as text of at most {MAX_LABEL_CHARACTERS} characters"
        )
    return value


def _decoded(document: dict[str, Any], name: str) -> bytes:
    value = document.get(name, "")
    if not isinstance(value, str):
        raise EnvelopeFormatError(f"expected `{name}` as base64 text")
    try:
        return from_base64(value, url_safe="-" in value or "_" in value)
    except ValueError as error:
        raise EnvelopeFormatError(f"`{name}` is {error}") from error
