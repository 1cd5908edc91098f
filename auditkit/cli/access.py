"""`access`: who may do what on the auditor's server, and what they looked at and asked."""

import getpass
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from auditkit.cli.auditor import (
    DEFAULT_HOME,
    MOST_TOKEN_DAYS,
    DatabaseOption,
    HomeOption,
    database_secret,
)
from auditkit.cli.errors import UsageError
from auditkit.cli.output import console, error_console, print_json, quoted
from auditkit.cli.passphrases import ask_new_passphrase
from auditor_server.access.principals import AUTHORITY, Principal, Role

if TYPE_CHECKING:
    from auditor_server.store import Store, TokenRow
    from schemas.wire import TrailEntry

# Long enough for an audit and its questions; a token that nobody remembers ends by itself.
DEFAULT_TOKEN_DAYS = 365.0
DEFAULT_TRAIL_ENTRIES = 50
SHOWN_TIME = "%Y-%m-%d %H:%M"

access_app = typer.Typer(
    no_args_is_help=True,
    help="Organisations, tokens and people: who may do what, and who asked what.",
)
organisation_app = typer.Typer(no_args_is_help=True, help="Whom tokens and people belong to.")
token_app = typer.Typer(no_args_is_help=True, help="Access for programs and the command line.")
user_app = typer.Typer(no_args_is_help=True, help="People who sign in to the server's pages.")
access_app.add_typer(organisation_app, name="organisation")
access_app.add_typer(token_app, name="token")
access_app.add_typer(user_app, name="user")

JsonOption = Annotated[bool, typer.Option("--json", help="Print as JSON.")]
RoleOption = Annotated[Role, typer.Option("--role", help="What may be done; see the guide.")]
OrganisationOption = Annotated[
    str,
    typer.Option(
        "--organisation",
        help="Whose sessions may be seen: an organisation's own; the organisation "
        f"`{AUTHORITY}`, which is you, sees all.",
    ),
]
PasswordFileOption = Annotated[
    Path | None,
    typer.Option(
        "--password-file",
        help="File whose first line is the password. Without it, you are asked.",
    ),
]


@organisation_app.command("add")
def organisation_add(
    identifier: Annotated[
        str, typer.Argument(metavar="ID", help="Short name, for commands and lists.")
    ],
    name: Annotated[
        str | None,
        typer.Option(
            "--name",
            help="The developer's name as orders have it. Those orders are then seen, and trained "
            "under, by this organisation alone. Without it, the short name.",
        ),
    ] = None,
    home: HomeOption = DEFAULT_HOME,
    database_url: DatabaseOption = None,
) -> None:
    """Add an organisation.

    auditkit access organisation add example-imaging --name "Example Imaging Ltd"
    """
    from auditor_server.access.accounts import add_organisation

    with _store(home, database_url) as store:
        row = add_organisation(store, identifier, name or identifier, datetime.now(UTC))
    console.print(f"added organisation [bold]{quoted(row.id)}[/bold], named {quoted(row.name)}")


@organisation_app.command("list")
def organisation_list(
    home: HomeOption = DEFAULT_HOME,
    database_url: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the organisations."""
    with _store(home, database_url) as store:
        rows = store.access.organisations()
    _print_rows(
        [{"id": row.id, "name": row.name, "created_at": _time(row.created_at)} for row in rows],
        as_json=as_json,
    )


@token_app.command("create")
def token_create(
    role: RoleOption,
    organisation: OrganisationOption,
    days: Annotated[
        float,
        typer.Option("--days", min=0.01, max=MOST_TOKEN_DAYS, help="Days until the token ends."),
    ] = DEFAULT_TOKEN_DAYS,
    session: Annotated[
        str | None,
        typer.Option("--session", help="The only session that it is good for, for an agent."),
    ] = None,
    note: Annotated[str, typer.Option("--note", help="Who holds it, or what for.")] = "",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write the token into this new file, and don't print."),
    ] = None,
    home: HomeOption = DEFAULT_HOME,
    database_url: DatabaseOption = None,
) -> None:
    """Make a token. It is shown this once; the server keeps only its hash.

    auditkit access token create --role developer --organisation example-imaging
    """
    from auditor_server.keys import write_private
    from auditor_server.tokens import issue

    if output is not None and output.exists():
        raise UsageError(f"{output} is there already; choose another file")
    now, lifetime = datetime.now(UTC), timedelta(days=days)
    with _store(home, database_url) as store:
        token = issue(
            store, role, organisation, now, lifetime=lifetime, session_id=session, note=note
        )
    end = now + lifetime
    what = f"token [bold]{quoted(token.partition('.')[0])}[/bold], good until {end:%Y-%m-%d}"
    if output is None:
        error_console.print(f"made {what}; it is shown this once:")
        console.print(token, markup=False, soft_wrap=True)
    else:
        write_private(output, token.encode() + b"\n")
        console.print(f"wrote {what}, to {quoted(output)}")


@token_app.command("list")
def token_list(
    home: HomeOption = DEFAULT_HOME,
    database_url: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the tokens by name, never by secret; also those that have ended."""
    with _store(home, database_url) as store:
        rows = store.access.tokens()
    now = datetime.now(UTC)
    _print_rows(
        [
            {
                "name": row.id,
                "role": row.role,
                "organisation": row.organisation,
                "session": row.session_id,
                "state": _state(row, now),
                "expires_at": _time(row.expires_at),
                "note": row.note,
            }
            for row in rows
        ],
        as_json=as_json,
    )


@token_app.command("revoke")
def token_revoke(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The part before the dot.")],
    home: HomeOption = DEFAULT_HOME,
    database_url: DatabaseOption = None,
) -> None:
    """Take a token back, at once and for good. Sessions that it opened stay."""
    with _store(home, database_url) as store:
        # A whole token is taken as well, but never shown or looked up.
        row = store.access.revoke_token(name.partition(".")[0], datetime.now(UTC))
    console.print(f"revoked token [bold]{quoted(row.id)}[/bold]")


@user_app.command("add")
def user_add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="With which they sign in.")],
    role: RoleOption,
    organisation: OrganisationOption,
    password_file: PasswordFileOption = None,
    home: HomeOption = DEFAULT_HOME,
    database_url: DatabaseOption = None,
) -> None:
    """Add a person, who then signs in to the server's pages with name and password."""
    from auditor_server.access.accounts import add_user

    password = _new_password(name, password_file)
    with _store(home, database_url) as store:
        row = add_user(
            store,
            name,
            organisation=organisation,
            role=role,
            password=password,
            now=datetime.now(UTC),
        )
    console.print(f"added user [bold]{quoted(row.name)}[/bold], {row.role} of {row.organisation}")


@user_app.command("list")
def user_list(
    home: HomeOption = DEFAULT_HOME,
    database_url: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the people who may sign in, or might once."""
    with _store(home, database_url) as store:
        rows = store.access.users()
    _print_rows(
        [
            {
                "name": row.name,
                "role": row.role,
                "organisation": row.organisation,
                "state": "active" if row.disabled_at is None else "disabled",
                "created_at": _time(row.created_at),
            }
            for row in rows
        ],
        as_json=as_json,
    )


@user_app.command("disable")
def user_disable(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who may sign in no more.")],
    home: HomeOption = DEFAULT_HOME,
    database_url: DatabaseOption = None,
) -> None:
    """Let a person in no more, and sign them out everywhere. A new password lets them in again."""
    with _store(home, database_url) as store:
        store.access.disable_user(name, datetime.now(UTC))
    console.print(f"disabled user [bold]{quoted(name)}[/bold]")


@user_app.command("password")
def user_password(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose password it is.")],
    password_file: PasswordFileOption = None,
    home: HomeOption = DEFAULT_HOME,
    database_url: DatabaseOption = None,
) -> None:
    """Set a person's password, and sign them out everywhere. Who was disabled may come again."""
    from auditor_server.access.accounts import set_password

    password = _new_password(name, password_file)
    with _store(home, database_url) as store:
        set_password(store, name, password)
    console.print(f"set the password of user [bold]{quoted(name)}[/bold]")


@access_app.command("trail")
def trail(
    session: Annotated[
        str | None, typer.Option("--session", help="Only what concerns this session.")
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option("--picture", help="Only queries about exactly this file: who asked about it."),
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", min=1, help="How many entries at most.")
    ] = DEFAULT_TRAIL_ENTRIES,
    home: HomeOption = DEFAULT_HOME,
    database_url: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show who looked at what, and asked what and why, newest first.

    That you look is an entry itself.
    """
    entries = list(_trail(home, database_url, session, picture, limit))
    if as_json:
        print_json([entry.as_json() for entry in entries])
        return
    _print_rows(
        [
            {
                "when": f"{entry.at:{SHOWN_TIME}}",
                "who": entry.principal,
                "role": entry.role,
                "organisation": entry.organisation,
                "did": entry.action,
                "session": entry.session_id,
                "pictures": entry.pictures or None,
                "purpose": entry.purpose,
            }
            for entry in entries
        ],
        as_json=False,
    )


def _trail(
    home: Path, database_url: str | None, session: str | None, picture: Path | None, limit: int
) -> Iterator["TrailEntry"]:
    from auditor_server.access import trail as trails
    from auditor_server.context import Auditor
    from auditor_server.settings import ServerSettings

    settings = ServerSettings(home=home, database_url=database_secret(database_url))
    auditor = Auditor.open(settings)
    digest = None
    if picture is not None:
        digest = trails.keyed_digest(auditor.home.trail_key(), picture.read_bytes()).hex()
    reader = Principal(f"home/{_who_runs_this()}", "auditor", AUTHORITY)
    before: int | None = None
    found = 0
    try:
        while found < limit:
            page = trails.page(auditor, reader, before, session)
            for entry in page.entries:
                if found < limit and (digest is None or digest in entry.picture_digests):
                    found += 1
                    yield entry
            before = page.before
            if before is None:
                return
    finally:
        auditor.store.close()


def _who_runs_this() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # the system has no name for this user, as in some containers
        return str(os.getuid())


@contextmanager
def _store(home: Path, database_url: str | None) -> Iterator["Store"]:
    from auditor_server.home import open_home

    store = open_home(home).prepare_store(database_secret(database_url))
    try:
        yield store
    finally:
        store.close()


def _new_password(name: str, password_file: Path | None) -> str:
    if password_file is None:
        return ask_new_passphrase(f"user {name}").decode()
    try:
        lines = password_file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UsageError(
            f"cannot read the password file {password_file}: {error.strerror}"
        ) from error
    except UnicodeDecodeError as error:
        raise UsageError(f"the password file {password_file} is no UTF-8 text") from error
    return lines[0] if lines else ""


def _state(row: "TokenRow", now: datetime) -> str:
    if row.revoked_at is not None:
        return "revoked"
    ended = row.expires_at is not None and now >= row.expires_at
    return "expired" if ended else "active"


def _time(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()


def _print_rows(rows: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print_json(list(rows))
        return
    if not rows:
        console.print("none yet")
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in rows[0]:
        table.add_column(heading.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*("" if value is None else quoted(value) for value in row.values()))
    console.print(table)
