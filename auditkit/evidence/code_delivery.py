"""Handing codes to the training process, and to nobody on the way: HPKE (RFC 9180).

The process makes a key that lives as long as itself, and signs it with its certified session key.
The auditor encrypts to that key. A relay, a proxy and the host's disk see neither codes nor secret.
Suite: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305, base mode, one message per key.
"""

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from pydantic import ValidationError

from auditkit.evidence import dsse
from auditkit.evidence.canonical import to_bytes
from auditkit.evidence.errors import EvidenceError
from auditkit.evidence.keys import PublicKey, SigningKey
from schemas import CodesRequest

REQUEST_TYPE = "application/vnd.auditkit.codes-request+json"
"""What the session key signs in a request; no checkpoint or statement can be mistaken for it."""

INFO_DOMAIN = b"auditkit/membership-codes/v1\0"

_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)


class CodesRequestError(EvidenceError):
    """What was signed is not a request for codes."""


class EphemeralKeyError(EvidenceError):
    """Nothing may be encrypted to this X25519 key."""


class CodesDeliveryError(EvidenceError):
    """What came is not encrypted to this process's key, for its session and its commitment."""


class CodesReceiver:
    """The receiving end: a key of this process alone, for one delivery."""

    def __init__(self) -> None:
        self._key = X25519PrivateKey.generate()

    @property
    def public_key(self) -> str:
        """The key to encrypt to: 32 bytes, lower-case hex."""
        return self._key.public_key().public_bytes_raw().hex()

    def open(self, sealed: bytes, session_id: str, commitment: str) -> bytes:
        """Decrypt what `seal_codes` made.

        Raises:
            CodesDeliveryError: it is for another key, session or commitment, or was changed.
        """
        try:
            return _SUITE.decrypt(sealed, self._key, _info(session_id, commitment))
        except (InvalidTag, ValueError) as error:
            raise CodesDeliveryError(
                "the codes that came are not encrypted to this process for session "
                f"{session_id} and the commitment of its grant; something between here and the "
                "auditor has changed or exchanged them"
            ) from error


def seal_codes(codes: bytes, public_key: str, session_id: str, commitment: str) -> bytes:
    """Encrypt packed codes to a process, bound to its session and to the grant's commitment.

    Raises:
        EphemeralKeyError: the key has small order, so others would know what it opens.
    """
    try:
        key = X25519PublicKey.from_public_bytes(bytes.fromhex(public_key))
        return _SUITE.encrypt(codes, key, _info(session_id, commitment))
    except ValueError as error:
        raise EphemeralKeyError(
            f"expected a fresh X25519 key, found {public_key[:80]!r}: {error}; make a new one"
        ) from error


def sign_request(request: CodesRequest, key: SigningKey) -> bytes:
    """Return the request as a DSSE envelope that the session key has signed."""
    return dsse.sign(to_bytes(request), [key], REQUEST_TYPE).to_bytes()


def open_request(envelope: dsse.Envelope, key: PublicKey) -> CodesRequest:
    """Verify and read what `sign_request` made.

    Raises:
        ThresholdError, PayloadTypeError: this key has not signed it, or not as a request for codes.
        CodesRequestError: it breaks the schema, or is not in RFC 8785 form.
    """
    payload = dsse.verify(envelope, {key.keyid: key}, payload_type=REQUEST_TYPE)
    try:
        request = CodesRequest.from_bytes(payload)
    except ValidationError as error:
        raise CodesRequestError(f"not a request for codes: {error}") from error
    if to_bytes(request) != payload:
        raise CodesRequestError("the request for codes is not in RFC 8785 form")
    return request


def _info(session_id: str, commitment: str) -> bytes:
    return INFO_DOMAIN + bytes.fromhex(commitment) + session_id.encode()
