"""Ed25519 keys (RFC 8032), strict about the points and scalars that other verifiers let through.

The usual libraries accept public keys of small order, under which one signature verifies for many
messages, and points with a second encoding. Neither may ever speak for anyone here.
"""

import hashlib
import re
from dataclasses import dataclass
from typing import Protocol

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from auditkit.evidence.errors import KeyFormatError, SignatureError, WeakKeyError

KEY_BYTES = 32
SIGNATURE_BYTES = 64
MAX_PEM_BYTES = 10_000
"""Largest private key file read; an encrypted Ed25519 key takes about 300 bytes."""

FIELD_PRIME = 2**255 - 19
"""p of RFC 8032, section 5.1: coordinates are integers below it."""

GROUP_ORDER = 2**252 + 27742317777372353535851937790883648493
"""L of RFC 8032, section 5.1: the scalar S of a signature is an integer below it."""

CURVE_CONSTANT = -121665 * pow(121666, -1, FIELD_PRIME) % FIELD_PRIME
"""d of RFC 8032, section 5.1: the curve is -x^2 + y^2 = 1 + d x^2 y^2."""

SIGN_BIT = 1 << 255
"""The top bit of an encoded point holds the sign of x (RFC 8032, section 5.1.2)."""

SMALL_ORDER_ENCODINGS: dict[bytes, str] = {
    bytes.fromhex(encoding): description
    for encoding, description in {
        "0100000000000000000000000000000000000000000000000000000000000000": "order 1",
        "0100000000000000000000000000000000000000000000000000000000000080": "order 1, x = -0",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f": "order 1, y = p + 1",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff": "order 1, both",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f": "order 2",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff": "order 2, x = -0",
        "0000000000000000000000000000000000000000000000000000000000000000": "order 4",
        "0000000000000000000000000000000000000000000000000000000000000080": "order 4, -x",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f": "order 4, y = p",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff": "order 4, -x, y = p",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05": "order 8",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85": "order 8, -x",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a": "order 8, -y",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa": "order 8, -x, -y",
    }.items()
}
"""Every encoding that a lenient decoder reads as one of the eight points of small order."""

_LOWER_HEX_KEY = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class PublicKey:
    """An Ed25519 public key that is safe to trust: on the curve, canonical, not of small order.

    Raises:
        KeyFormatError: not 32 bytes, or not a point of the curve.
        WeakKeyError: small order, or an encoding that RFC 8032 does not allow.
    """

    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != KEY_BYTES:
            raise KeyFormatError(f"expected {KEY_BYTES} bytes of public key, found {len(self.raw)}")
        weakness = _weakness(self.raw)
        if weakness:
            raise WeakKeyError(f"public key {self.hex} {weakness}; the owner must make a new key")
        if not _is_on_curve(self.raw):
            raise KeyFormatError(f"{self.hex} is not a point of Ed25519; check the key for typos")

    @classmethod
    def from_hex(cls, text: str) -> "PublicKey":
        """Read 64 lower-case hexadecimal digits.

        Raises:
            KeyFormatError: other characters, another length, or not a point of the curve.
            WeakKeyError: a key that must not be trusted.
        """
        if not _LOWER_HEX_KEY.fullmatch(text):
            raise KeyFormatError(
                f"expected a public key as 64 lower-case hex digits, found {text[:80]!r}"
            )
        return cls(bytes.fromhex(text))

    @property
    def hex(self) -> str:
        """The 32 bytes as lower-case hexadecimal digits."""
        return self.raw.hex()

    @property
    def keyid(self) -> str:
        """SHA-256 of the 32 bytes, lower-case hexadecimal."""
        return hashlib.sha256(self.raw).hexdigest()

    def verify(self, signature: bytes, data: bytes) -> None:
        """Return when `signature` is this key's Ed25519 signature over `data`.

        Raises:
            SignatureError: wrong length, a scalar S not below the group order (RFC 8032, 5.1.7), a
                point R of small order or with a second encoding, or simply not a signature.
        """
        if len(signature) != SIGNATURE_BYTES:
            raise SignatureError(
                f"expected a signature of {SIGNATURE_BYTES} bytes, found {len(signature)}"
            )
        weakness = _weakness(signature[:32])
        if weakness:
            raise SignatureError(f"the signature's point R {weakness}")
        if int.from_bytes(signature[32:], "little") >= GROUP_ORDER:
            raise SignatureError("the signature's scalar S is not below the group order")
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, data)
        except InvalidSignature as error:
            raise SignatureError(f"not a signature by key {self.hex} over these bytes") from error


class Signer(Protocol):
    """Whatever signs with an Ed25519 key: one in memory, or one that never leaves its token."""

    @property
    def public(self) -> PublicKey:
        """The public half."""

    def sign(self, data: bytes) -> bytes:
        """Return the 64 bytes of the Ed25519 signature over `data`."""


class SigningKey:
    """An Ed25519 private key. It shows only its public half."""

    def __init__(self, private_key: Ed25519PrivateKey) -> None:
        self._private_key = private_key
        self.public = PublicKey(private_key.public_key().public_bytes_raw())

    def __repr__(self) -> str:
        return f"SigningKey(public={self.public.hex})"

    @classmethod
    def generate(cls) -> "SigningKey":
        """Make a new key from the operating system's randomness."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_pem(cls, pem: bytes, passphrase: bytes | None = None) -> "SigningKey":
        """Read a PKCS #8 PEM file.

        Raises:
            KeyFormatError: not such a file, another kind of key, or a wrong, missing or
                superfluous passphrase.
        """
        if len(pem) > MAX_PEM_BYTES:
            raise KeyFormatError(f"expected a key file of at most {MAX_PEM_BYTES} bytes")
        try:
            private_key = serialization.load_pem_private_key(pem, password=passphrase)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise KeyFormatError(
                f"expected an Ed25519 private key in PEM form and its passphrase: {error}"
            ) from error
        if not isinstance(private_key, Ed25519PrivateKey):
            raise KeyFormatError("expected an Ed25519 private key, found another kind of key")
        return cls(private_key)

    def to_pem(self, passphrase: bytes | None = None) -> bytes:
        """Return the key as PKCS #8 PEM, encrypted when a passphrase is given."""
        encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if passphrase is not None:
            encryption = serialization.BestAvailableEncryption(passphrase)
        return self._private_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
        )

    def sign(self, data: bytes) -> bytes:
        """Return the 64 bytes of the Ed25519 signature over `data`."""
        return self._private_key.sign(data)


def _weakness(encoding: bytes) -> str | None:
    """Say what forbids this encoded point (32 bytes), or None."""
    description = SMALL_ORDER_ENCODINGS.get(encoding)
    if description is not None:
        return f"has small order ({description})"
    if int.from_bytes(encoding, "little") % SIGN_BIT >= FIELD_PRIME:
        return "is not the canonical encoding of its point (RFC 8032, section 5.1.3)"
    return None


def _is_on_curve(encoding: bytes) -> bool:
    """Solve the curve equation for x^2 and test that it is a square (Euler's criterion)."""
    y = int.from_bytes(encoding, "little") % SIGN_BIT
    denominator = CURVE_CONSTANT * y * y + 1
    # The quotient u/v is a square exactly when the product u*v is one.
    return pow((y * y - 1) * denominator, (FIELD_PRIME - 1) // 2, FIELD_PRIME) == 1
