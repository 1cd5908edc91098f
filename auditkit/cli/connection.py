"""Options by which a command finds the auditor's server and proves who asks."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from auditkit.cli.errors import UsageError

if TYPE_CHECKING:
    from auditkit.client import AuditorClient

ServerOption = Annotated[
    str,
    typer.Option(
        "--server", envvar="AUDITKIT_SERVER", help="Address of the auditor's server, http(s)://…"
    ),
]
TokenFileOption = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        envvar="AUDITKIT_TOKEN_FILE",
        help="File with your token. Without it, the variable AUDITKIT_TOKEN is used.",
    ),
]


def read_token(token_file: Path | None) -> str:
    """Return the token from a file, or from the variable AUDITKIT_TOKEN.

    Raises:
        UsageError: neither is there, or it is no token.
    """
    if token_file is not None:
        try:
            token = token_file.read_bytes().decode(errors="replace").strip()
        except OSError as error:
            raise UsageError(
                f"cannot read the token file {token_file}: {error.strerror}; the auditor hands "
                "tokens out when the server is set up"
            ) from error
    else:
        token = os.environ.get("AUDITKIT_TOKEN", "").strip()
    if not token:
        raise UsageError(
            "no token: give --token-file, or set AUDITKIT_TOKEN to the token from the auditor"
        )
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise UsageError(
            f"{token_file or 'AUDITKIT_TOKEN'} does not hold a token, which is one line of letters "
            "and digits; give the file as the auditor made it"
        )
    return token


def connect(server: str, token_file: Path | None) -> "AuditorClient":
    """Return a client for the server; nothing is sent yet."""
    from auditkit.client import AuditorClient

    return AuditorClient(server, read_token(token_file))
