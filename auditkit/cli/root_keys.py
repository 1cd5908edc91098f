"""Root keys wherever their holders keep them: in a file with a passphrase, or in a token.

A reference names one: a path, a `pkcs11:` URI, or 64 hexadecimal digits of a public key whose
private half somebody else holds.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from auditkit.cli.pkcs11_keys import (
    SCHEME,
    KeyNotInTokenError,
    TokenKey,
    TokenSigner,
    make_token_key,
)
from auditkit.evidence.keys import Signer, SigningKey
from auditor_server.errors import KeyFileError
from auditor_server.keys import Secret, open_key_file, write_private

_PUBLIC_KEY = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class KeyRing:
    """Opens and makes keys by reference.

    Attributes:
        passphrase: gives the one of an existing file.
        new_passphrase: gives the one for a file that is made.
        pin: gives the one of a token.
        module: PKCS #11 library for URIs that name none.
    """

    passphrase: Secret
    new_passphrase: Secret
    pin: Secret
    module: Path | None = None

    def open(self, reference: str) -> Signer:
        """Return an existing key.

        Raises:
            KeyReferenceError: the reference names no private key.
            KeyFileError, KeyTokenError: it is not there, or does not open.
            KeyFormatError, WeakKeyError: it is no Ed25519 key that can be trusted.

        """
        if reference.startswith(SCHEME):
            key = TokenKey.parse(reference, self.module)
            return TokenSigner(key, key.pin(self.pin))
        return open_key_file(Path(reference), self.passphrase)

    def make(self, reference: str) -> Signer:
        """Make a new key; nothing is ever overwritten.

        Raises:
            KeyReferenceError, KeyTokenError: as `open`.
            KeyFileError: the file is there already, or can't be written.

        """
        if reference.startswith(SCHEME):
            key = TokenKey.parse(reference, self.module)
            return make_token_key(key, key.pin(self.pin))
        path = Path(reference)
        if path.exists():
            raise KeyFileError(f"{path} is there already; keys are never overwritten")
        key_made = SigningKey.generate()
        pem = key_made.to_pem(self.new_passphrase(str(path)))
        try:
            write_private(path, pem)
        except OSError as error:
            raise KeyFileError(f"can't write the key {path}: {error.strerror}") from error
        return key_made

    def open_or_make(self, reference: str) -> Signer:
        """Return the key, which is made if there is none yet.

        Raises:
            UsageError, KeyFileError: as `open` and `make`.
        """
        if reference.startswith(SCHEME):
            try:
                return self.open(reference)
            except KeyNotInTokenError:
                return self.make(reference)
        return self.open(reference) if Path(reference).exists() else self.make(reference)


def is_public_key(reference: str) -> bool:
    """Tell whether a reference is a public key itself."""
    return _PUBLIC_KEY.fullmatch(reference) is not None
