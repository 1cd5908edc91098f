"""Root keys in a PKCS #11 token: a smart card, a hardware module or SoftHSM.

The private key is made in the token and never leaves it. A key is named by a URI of RFC 7512:

    pkcs11:token=auditor;object=root-1?module-path=/usr/lib/softhsm/libsofthsm2.so
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from auditkit.cli.errors import UsageError
from auditkit.evidence.keys import PublicKey
from auditor_server.keys import Secret

if TYPE_CHECKING:
    import pkcs11

SCHEME = "pkcs11:"
# DER of the object identifier 1.3.101.112, Ed25519 (RFC 8410, section 3).
ED25519_PARAMETERS = bytes.fromhex("06032b6570")
# CKA_EC_POINT holds the 32 bytes as a DER OCTET STRING (PKCS #11 3.0, section 2.3.5).
POINT_PREFIX = bytes.fromhex("0420")


class KeyReferenceError(UsageError):
    """A reference to a private key is not of the right form."""


class KeyTokenError(UsageError):
    """A PKCS #11 token, or a key in it, cannot be used."""


class KeyNotInTokenError(KeyTokenError):
    """The token has no key of this label."""


@dataclass(frozen=True)
class TokenKey:
    """Where a key lies: the module to talk to, the token, the key's label in it, its PIN."""

    module: Path
    token: str
    label: str
    pin_source: Path | None = None

    @classmethod
    def parse(cls, reference: str, module: Path | None) -> "TokenKey":
        """Read a `pkcs11:` URI with `token`, `object`, and maybe `module-path` and `pin-source`.

        Args:
            reference: the URI.
            module: the PKCS #11 library to use when the URI names none.

        Raises:
            KeyReferenceError: another URI, or no module is known.

        """
        path, _, query = reference.removeprefix(SCHEME).partition("?")
        attributes = _attributes(path, ";") | _attributes(query, "&")
        unknown = set(attributes) - {"token", "object", "module-path", "pin-source"}
        if unknown or not {"token", "object"} <= set(attributes):
            raise KeyReferenceError(
                f"expected a key as pkcs11:token=NAME;object=LABEL, found {reference!r}; only "
                "module-path and pin-source may follow after a question mark"
            )
        named = attributes.get("module-path")
        found = module if named is None else Path(named)
        if found is None:
            raise KeyReferenceError(
                f"no PKCS #11 module is named for {reference!r}; give --pkcs11-module, set "
                "PKCS11_MODULE, or write module-path=… into the key's URI"
            )
        source = attributes.get("pin-source")
        return cls(
            module=found,
            token=attributes["token"],
            label=attributes["object"],
            pin_source=None if source is None else Path(source.removeprefix("file:")),
        )

    def pin(self, secret: Secret) -> str:
        """Return the PIN of the token, from its file or by asking."""
        if self.pin_source is not None:
            return self.pin_source.read_text(encoding="utf-8").strip()
        return secret(self.token).decode()


class TokenSigner:
    """A key in a token. Every signature opens the token anew, so nothing stays logged in."""

    def __init__(self, key: TokenKey, pin: str) -> None:
        """Find the key.

        Raises:
            KeyNotInTokenError: the token has no such key.
            KeyTokenError: the token is not there, or the PIN is wrong.
            KeyFormatError, WeakKeyError: the public key is no Ed25519 key that can be trusted.

        """
        from pkcs11 import Attribute, ObjectClass

        self._key, self._pin = key, pin
        with _opened(key, pin) as session:
            public = session.get_key(object_class=ObjectClass.PUBLIC_KEY, label=key.label)
            self._public = _public_key(bytes(public[Attribute.EC_POINT]))

    @property
    def public(self) -> PublicKey:
        """The public half."""
        return self._public

    def sign(self, data: bytes) -> bytes:
        """Return the 64 bytes of the Ed25519 signature (CKM_EDDSA) over `data`.

        Raises:
            KeyTokenError: the token does not sign.

        """
        from pkcs11 import Mechanism, ObjectClass

        with _opened(self._key, self._pin) as session:
            private = session.get_key(object_class=ObjectClass.PRIVATE_KEY, label=self._key.label)
            return bytes(private.sign(data, mechanism=Mechanism.EDDSA))  # type: ignore[attr-defined]


def make_token_key(key: TokenKey, pin: str) -> TokenSigner:
    """Make a new Ed25519 key pair in the token, which the private key can never leave.

    Raises:
        KeyTokenError: a key has this label already, or the token can't make one.

    """
    from pkcs11 import Attribute, KeyType, Mechanism, ObjectClass

    with _opened(key, pin, writing=True) as session:
        if list(session.get_objects({Attribute.LABEL: key.label})):
            raise KeyTokenError(
                f"token {key.token} has an object {key.label!r} already; choose another label, "
                "keys are never overwritten"
            )
        parameters = session.create_domain_parameters(
            KeyType.EC_EDWARDS, {Attribute.EC_PARAMS: ED25519_PARAMETERS}, local=True
        )
        parameters.generate_keypair(
            mechanism=Mechanism.EC_EDWARDS_KEY_PAIR_GEN,
            store=True,
            label=key.label,
            private_template={
                Attribute.CLASS: ObjectClass.PRIVATE_KEY,
                Attribute.SENSITIVE: True,
                Attribute.EXTRACTABLE: False,
            },
        )
    return TokenSigner(key, pin)


@contextmanager
def _opened(key: TokenKey, pin: str, *, writing: bool = False) -> "Iterator[pkcs11.Session]":
    try:
        import pkcs11
    except ImportError as error:
        raise KeyTokenError(
            "keys in PKCS #11 tokens need the package python-pkcs11; install auditkit[pkcs11]"
        ) from error
    try:
        token = pkcs11.lib(str(key.module)).get_token(token_label=key.token)
        with token.open(rw=writing, user_pin=pin) as session:
            yield session
    except pkcs11.NoSuchKey as error:
        raise KeyNotInTokenError(
            f"token {key.token!r} has no key {key.label!r}; make it with `auditkit trust key`"
        ) from error
    except pkcs11.PKCS11Error as error:
        problem = str(error) or type(error).__name__
        raise KeyTokenError(
            f"key {key.label!r} in token {key.token!r} can't be used through {key.module}: "
            f"{problem}; is the token there, and the PIN right?"
        ) from error


def _public_key(point: bytes) -> PublicKey:
    return PublicKey(point.removeprefix(POINT_PREFIX) if len(point) > len(POINT_PREFIX) else point)


def _attributes(text: str, separator: str) -> dict[str, str]:
    pairs = (part.partition("=") for part in text.split(separator) if part)
    return {name: unquote(value) for name, _, value in pairs}
