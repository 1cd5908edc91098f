"""`server`: what whoever operates an auditor's server does beside running it."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from auditkit.cli.auditor import (
    DEFAULT_HOME,
    BlobsOption,
    DatabaseOption,
    HomeOption,
    database_secret,
)
from auditkit.cli.errors import UsageError
from auditkit.cli.output import console, error_console, print_json, quoted

if TYPE_CHECKING:
    from auditor_server.context import Auditor
    from auditor_server.store_checks import Found

server_app = typer.Typer(
    no_args_is_help=True,
    help="Check, back up and restore an auditor's server, take in images, and free its disk; see "
    "docs/guides/operator.md.",
)

KnownOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--known",
        help="A checkpoint that was kept elsewhere, a file: of a session's log or of the "
        "registry, as the server has given it out. Several may be given.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print as JSON.")]


@server_app.command("check")
def check(
    home: HomeOption = DEFAULT_HOME,
    database_url: DatabaseOption = None,
    blobs: BlobsOption = None,
    known: KnownOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check that everything is there that the server has ever signed.

    Reads the whole database and every submitted file, and asks the witnesses.
    Changes nothing; the server may be running. Fails if anything is amiss.

        auditkit server check --home auditor-home
    """
    _check(home, database_url, blobs, known or [], as_json=as_json)


@server_app.command("backup")
def backup(
    destination: Annotated[
        Path, typer.Argument(metavar="DESTINATION", help="Folder to make; private keys go in it.")
    ],
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Copy the home, with an SQLite database in it, while the server runs or not.

    PostgreSQL has to be copied before, with pg_dump; blobs in a bucket stay
    there. A copy that was restored somewhere is one that is known to be good:
    `server restore` checks it.

        auditkit server backup /backup/2026-11-21 --home auditor-home
    """
    from auditor_server.backups import back_up
    from auditor_server.home import open_home

    with console.status("copying") as status:
        has_database = back_up(
            open_home(home),
            destination,
            datetime.now(UTC),
            lambda name: status.update(f"copying {quoted(name)}"),
        )
    console.print(f"copied {quoted(home)} to [bold]{quoted(destination)}[/bold]")
    if not has_database:
        console.print(
            "its database is elsewhere and not in the copy: it must have been copied before "
            "(pg_dump)"
        )


@server_app.command("restore")
def restore(
    source: Annotated[
        Path, typer.Argument(metavar="BACKUP", help="Folder that `server backup` has made.")
    ],
    home: HomeOption = DEFAULT_HOME,
    database_url: DatabaseOption = None,
    blobs: BlobsOption = None,
    known: KnownOption = None,
) -> None:
    """Make a home from a backup, and check it. Nothing is overwritten.

    auditkit server restore /backup/2026-11-21 --home auditor-home
    """
    from auditor_server.backups import restore as make_home

    with console.status("copying") as status:
        make_home(source, home, lambda name: status.update(f"copying {quoted(name)}"))
    console.print(f"made [bold]{quoted(home)}[/bold] from {quoted(source)}")
    _check(home, database_url, blobs, known or [], as_json=False)


@server_app.command("retain")
def retain(
    weights_days: Annotated[
        float,
        typer.Option(
            "--weights-days",
            min=1.0,
            help="How long the weights of a submitted model are kept after its submission.",
        ),
    ],
    home: HomeOption = DEFAULT_HOME,
    database_url: DatabaseOption = None,
    blobs: BlobsOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be deleted, and delete nothing.")
    ] = False,
) -> None:
    """Delete the weights of old models. Everything that was signed stays, and every proof holds.

    Of such a model nothing can be asked any more, and it can't be verified from
    its weights again; the verification that was signed when it was submitted
    stays.

        auditkit server retain --weights-days 1095 --dry-run
    """
    from auditor_server import retention

    auditor = _open(home, database_url, blobs)
    try:
        found = (retention.plan if dry_run else retention.apply)(auditor, weights_days)
    finally:
        auditor.store.close()
    verb = "would delete" if dry_run else "deleted"
    for row in found.due:
        console.print(
            f"{verb} the weights of {quoted(row.session_id)}, submitted on "
            f"{row.received_at:%Y-%m-%d}: {row.weights_digest}",
            soft_wrap=True,
        )
    for kept in found.kept:
        console.print(f"kept the weights of {quoted(kept.session_id)}: {quoted(kept.why)}")
    console.print(
        f"{verb} {len(found.digests)} files, and {len(found.strays)} uploads that were cut off; "
        "logs, registry, verdicts, verifications, descriptions and scores are never deleted"
    )


def _check(
    home: Path,
    database_url: str | None,
    blobs: str | None,
    known: list[Path],
    *,
    as_json: bool,
) -> None:
    from auditor_server import store_checks

    kept = [_read(path) for path in known]
    auditor = _open(home, database_url, blobs)
    try:
        with console.status("checking") as status:
            found = store_checks.check(
                auditor,
                known=kept,
                on_session=lambda session: status.update(f"checking {quoted(session)}"),
            )
    finally:
        auditor.store.close()
    _print(found, as_json=as_json)
    if found.faults:
        raise typer.Exit(1)


@server_app.command("add-image")
def add_image(
    archive: Annotated[
        Path, typer.Argument(metavar="ARCHIVE", help="The image that trained, in a file.")
    ],
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Take in the image of a training, so that its developer's own model can be asked.

    Models of known architectures need none. A model of the developer's own code
    is run in the image that trained it and nowhere else, without network; this
    machine needs a container engine. Every byte of the image is hashed. The
    server may be running.

        auditkit server add-image trainer-with-code.tar --home auditor-home
    """
    from auditkit.cli.building import BuildProgress
    from auditkit.cli.image import print_identity
    from auditor_server.home import open_home
    from auditor_server.training_images import TrainingImages

    if not archive.is_file():
        raise UsageError(f"there is no image {archive}; ask the developer for the file")
    images = TrainingImages(open_home(home).path)
    with BuildProgress(error_console) as progress:
        identity = images.add(archive, progress)
    console.print(f"taken in  {quoted(images.path(identity.config_digest))}", soft_wrap=True)
    print_identity(identity)


def _open(home: Path, database_url: str | None, blobs: str | None) -> "Auditor":
    from auditor_server.context import Auditor
    from auditor_server.settings import ServerSettings

    return Auditor.open(
        ServerSettings(
            home=home, database_url=database_secret(database_url), blobs_url=blobs or None
        )
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error


def _print(found: "Found", *, as_json: bool) -> None:
    from auditor_server.store_checks import RULES

    if as_json:
        print_json(
            {
                "faults": [vars(fault) for fault in found.faults],
                "checked": dict(found.checked),
                "not_asked": found.not_asked,
            }
        )
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("", "rule", "what it says"):
        table.add_column(heading, overflow="fold")
    broken = {fault.rule for fault in found.faults}
    for rule, claim in RULES.items():
        table.add_row(
            "[bold red]✘[/bold red]" if rule in broken else "[green]✔[/green]", rule, claim
        )
    console.print(table)
    for fault in found.faults:
        console.print(
            f"[bold red]✘[/bold red] {fault.rule}, {quoted(fault.subject)}: {quoted(fault.detail)}",
            soft_wrap=True,
        )
    for reason in found.not_asked:
        console.print(f"[yellow]not asked:[/yellow] {quoted(reason)}", soft_wrap=True)
    counts = ", ".join(f"{count} {what}" for what, count in found.checked.items())
    console.print(f"checked {counts or 'nothing'}: {len(found.faults)} faults")
