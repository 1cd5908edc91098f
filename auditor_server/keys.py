"""Private keys in files that only their owner can read, maybe with a passphrase."""

import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from auditkit.evidence.errors import EvidenceError
from auditkit.evidence.keys import SigningKey
from auditor_server.errors import KeyFileError

PRIVATE_FILE_MODE = 0o600
ENCRYPTED_MARK = b"BEGIN ENCRYPTED PRIVATE KEY"  # RFC 7468, section 11

Secret = Callable[[str], bytes]
"""Gives the passphrase or PIN that opens what is named."""


def open_key_file(path: Path, secret: Secret) -> SigningKey:
    """Read a private key; the passphrase is asked for only if the file has one.

    Raises:
        KeyFileError: the file is not there or does not open.

    """
    try:
        pem = path.read_bytes()
        passphrase = secret(str(path)) if ENCRYPTED_MARK in pem else None
        return SigningKey.from_pem(pem, passphrase)
    except OSError as error:
        raise KeyFileError(f"can't read the key {path}: {error.strerror}") from error
    except EvidenceError as error:
        raise KeyFileError(f"the key {path} can't be opened: {error}") from error


def shared_secret(path: Path, size: int) -> bytes:
    """Return the random bytes in a file, which are made first if it is not there.

    Processes that do so at once all get the same: a file has all its bytes when it gets its name.
    """
    if not path.exists():
        fresh = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
        write_private(fresh, secrets.token_bytes(size))
        with suppress(FileExistsError):
            os.link(fresh, path)
        fresh.unlink()
    return path.read_bytes()


def write_private(path: Path, data: bytes) -> None:
    """Write a new file that only its owner can read, from its first byte on.

    Raises:
        FileExistsError: the file is there already.

    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE_MODE)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
