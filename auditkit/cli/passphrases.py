"""Where commands get passphrases and PINs from: a file, a variable, or a prompt."""

import os
from pathlib import Path
from typing import Annotated

import typer

from auditkit.cli.errors import UsageError
from auditkit.cli.root_keys import KeyRing

PASSPHRASE_VARIABLE = "AUDITKIT_PASSPHRASE"  # noqa: S105 - its name only
PIN_VARIABLE = "AUDITKIT_PIN"

PassphraseFileOption = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file",
        help="File whose first line is the passphrase of the root keys' files. Without it, the "
        f"variable {PASSPHRASE_VARIABLE} is used, and then you are asked.",
    ),
]
ModuleOption = Annotated[
    Path | None,
    typer.Option(
        "--pkcs11-module",
        envvar="PKCS11_MODULE",
        help="PKCS #11 library through which tokens are reached. Their PIN comes from the URI's "
        f"pin-source, the variable {PIN_VARIABLE}, or you are asked.",
    ),
]


def key_ring(passphrase_file: Path | None, module: Path | None) -> KeyRing:
    """Return what opens and makes root keys with the secrets that the user gives."""

    def passphrase(path: str) -> bytes:
        given = given_passphrase(passphrase_file)
        return given or _typed(f"Passphrase of {path}", confirm=False)

    def new_passphrase(path: str) -> bytes:
        given = given_passphrase(passphrase_file)
        return given or _typed(f"New passphrase for {path}", confirm=True)

    def pin(token: str) -> bytes:
        given = os.environ.get(PIN_VARIABLE, "").encode()
        return given or _typed(f"PIN of token {token}", confirm=False)

    return KeyRing(passphrase, new_passphrase, pin, module)


def given_passphrase(passphrase_file: Path | None) -> bytes | None:
    """Return the passphrase from the file or the variable, None if there is neither.

    Raises:
        UsageError: the file cannot be read, or its first line is empty.
    """
    if passphrase_file is None:
        return os.environ.get(PASSPHRASE_VARIABLE, "").encode() or None
    try:
        lines = passphrase_file.read_bytes().splitlines()
    except OSError as error:
        raise UsageError(
            f"cannot read the passphrase file {passphrase_file}: {error.strerror}"
        ) from error
    if not lines or not lines[0]:
        raise UsageError(f"the first line of {passphrase_file} is empty; a passphrase must not be")
    return lines[0]


def ask_new_passphrase(what: str) -> bytes:
    """Ask twice for a new passphrase."""
    return _typed(f"New passphrase for {what}", confirm=True)


def _typed(prompt: str, *, confirm: bool) -> bytes:
    text: str = typer.prompt(prompt, hide_input=True, confirmation_prompt=confirm, err=True)
    return text.encode()
