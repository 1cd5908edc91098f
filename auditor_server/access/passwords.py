"""Passwords, kept so that whoever has the database can't read and hardly guess them (scrypt)."""

import base64
import hashlib
import hmac
import secrets
import unicodedata
from dataclasses import dataclass

from auditor_server.errors import PasswordTooShortError

# RFC 7914. 32 MiB and about a third of a second for one guess on one core: what the OWASP password
# storage cheat sheet asks for, in a third of the memory that it names first, three times over.
SCRYPT_N = 2**15
SCRYPT_R = 8
SCRYPT_P = 3
SALT_BYTES = 16
HASH_BYTES = 32
# NIST SP 800-63B, section 3.1.1.2: length counts, kinds of characters do not.
LEAST_PASSWORD_CHARACTERS = 15
MOST_PASSWORD_CHARACTERS = 1024
_SCHEME = "scrypt"


@dataclass(frozen=True)
class Cost:
    """What one guess costs; stored with every hash, so that it can be raised later."""

    n: int = SCRYPT_N
    r: int = SCRYPT_R
    p: int = SCRYPT_P

    @property
    def memory(self) -> int:
        """Bytes that OpenSSL may take: the block, and as much again for what is around it."""
        return 2 * 128 * self.r * (self.n + self.p)


DEFAULT_COST = Cost()


def hash_password(password: str, cost: Cost = DEFAULT_COST) -> str:
    """Return what to store of a new password.

    Raises:
        PasswordTooShortError: it is too short, or absurdly long.

    """
    if not LEAST_PASSWORD_CHARACTERS <= len(password) <= MOST_PASSWORD_CHARACTERS:
        raise PasswordTooShortError(
            f"expected a password of {LEAST_PASSWORD_CHARACTERS} to {MOST_PASSWORD_CHARACTERS} "
            f"characters, found one of {len(password)}; four or five words make a good one"
        )
    salt = secrets.token_bytes(SALT_BYTES)
    return "$".join(
        (
            _SCHEME,
            *map(str, (cost.n, cost.r, cost.p)),
            _text(salt),
            _text(_hash(password, salt, cost)),
        )
    )


def is_password(password: str, stored: str | None) -> bool:
    """Tell whether a password is the one whose hash is stored; None: nobody's, which takes as long.

    Compared in constant time.
    """
    if len(password) > MOST_PASSWORD_CHARACTERS:
        return False
    if stored is None:
        _hash(password, bytes(SALT_BYTES), DEFAULT_COST)
        return False
    _, n, r, p, salt, expected = stored.split("$")
    found = _hash(password, base64.b64decode(salt), Cost(int(n), int(r), int(p)))
    return hmac.compare_digest(found, base64.b64decode(expected))


def _hash(password: str, salt: bytes, cost: Cost) -> bytes:
    # The same characters can be typed as different code points on another keyboard.
    text = unicodedata.normalize("NFKC", password).encode(errors="surrogatepass")
    return hashlib.scrypt(
        text, salt=salt, n=cost.n, r=cost.r, p=cost.p, maxmem=cost.memory, dklen=HASH_BYTES
    )


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
