"""`verify` and `export`: evidence that travels."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from auditkit.cli.connection import ServerOption, TokenFileOption, connect
from auditkit.cli.errors import UsageError
from auditkit.cli.output import console, holds, print_json, print_verification, quoted
from schemas import VerificationReport

if TYPE_CHECKING:
    from auditkit.evidence.trust_history import TrustHistory

EXIT_NOT_VERIFIED = 1


def verify(
    bundle: Annotated[
        Path, typer.Argument(metavar="BUNDLE", help="The evidence bundle, from `auditkit export`.")
    ],
    trust_root: Annotated[
        Path, typer.Option("--trust-root", help="The auditor's trust root, received out of band.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    no_rebuild: Annotated[
        bool,
        typer.Option(
            "--no-rebuild",
            help="Skip rebuilding the initial weights from the nonce, the only step that needs "
            "the architecture.",
        ),
    ] = False,
) -> None:
    """Check an evidence bundle, offline. Needs nothing but the bundle and the trust root.

    Exit code 0 when the evidence holds, 1 when it does not.

        auditkit verify evidence.bundle --trust-root trust-root.json
    """
    report = verify_file(bundle, trust_root, rebuild=not no_rebuild)
    if as_json:
        print_json({**report.as_json(), "verified": holds(report)})
    else:
        print_verification(report)
    if not holds(report):
        sys.exit(EXIT_NOT_VERIFIED)


def verify_file(bundle: Path, trust_root: Path, *, rebuild: bool = True) -> VerificationReport:
    """Run every check on a bundle file.

    Args:
        bundle: the evidence bundle.
        trust_root: the auditor's trust root, any version. Later ones in the bundle are believed
            when those before have signed them.
        rebuild: rebuild the initial weights from the nonce as well.

    Raises:
        UsageError: a file cannot be read.
        BundleError, TrustRootError: a file is not what it should be.
    """
    from auditkit.evidence.attestation import AttestationPluginError, installed_verifiers
    from auditkit.evidence.bundle import open_bundle
    from auditkit.evidence.document_checks import known_history
    from auditkit.evidence.verify import verify_bundle

    initial_weights = None
    if rebuild:
        from auditkit.mint.initial import initial_weights_digest

        initial_weights = initial_weights_digest
    try:
        attestation_verifiers = installed_verifiers()
    except AttestationPluginError as error:
        raise UsageError(str(error)) from error
    now = datetime.now(UTC)
    pinned = read_trust_root(trust_root)
    try:
        with bundle.open("rb") as file:
            contents = open_bundle(file)
            known_history(pinned, contents).check_current(now)
            return verify_bundle(
                contents,
                pinned,
                now=now,
                initial_weights=initial_weights,
                attestation_verifiers=attestation_verifiers,
            )
    except OSError as error:
        raise UsageError(f"cannot read the bundle {bundle}: {error.strerror}") from error


def export(
    session: Annotated[str, typer.Argument(metavar="SESSION", help="Identifier of the session.")],
    server: ServerOption,
    token_file: TokenFileOption = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Where to write the bundle.")
    ] = Path("evidence.bundle"),
) -> None:
    """Fetch a session's evidence bundle: all that a third party needs, in one file."""
    partial = output.with_name(output.name + ".partial")
    with connect(server, token_file) as client:
        try:
            with partial.open("wb") as file:
                size = client.bundle(session, file)
            partial.replace(output)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise UsageError(f"cannot write {output}: {error.strerror}") from error
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    console.print(f"wrote {quoted(output)} ({size / 1e6:.1f} MB)")
    console.print(f"check it with: auditkit verify {output} --trust-root TRUST_ROOT", markup=False)


def read_trust_root(path: Path) -> "TrustHistory":
    """Return the trust root in a file, with its earlier versions.

    Raises:
        UsageError: the file cannot be read.
        TrustRootError: it is not what it should be.
    """
    from auditor_server.trust_files import TrustFile

    try:
        return TrustFile(path).read()
    except OSError as error:
        raise UsageError(f"cannot read the trust root {path}: {error.strerror}") from error
