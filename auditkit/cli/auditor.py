"""`init`, `serve` and `order`: what an auditor does before anyone trains."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import SecretStr
from rich.table import Table

from auditkit.cli.connection import ServerOption, TokenFileOption, connect
from auditkit.cli.errors import UsageError
from auditkit.cli.output import console, error_console, print_json, quoted
from auditkit.cli.passphrases import PassphraseFileOption, ask_new_passphrase, given_passphrase
from auditkit.evidence import dsse, statements
from auditor_server import flags
from auditor_server.settings import (
    DEFAULT_HOST,
    DEFAULT_PORT,
    MODEL_WORKERS,
    MOST_MODEL_MEMORY_MIB,
    MOST_MODEL_SECONDS,
    TRAIL_DAYS,
    Bound,
    Listening,
    LogFormat,
)
from schemas import AuditOrder

if TYPE_CHECKING:
    from auditor_server.home import Home

DEFAULT_HOME = Path("auditor-home")
TOKENS_FOLDER = "tokens"

HomeOption = Annotated[
    Path,
    typer.Option("--home", envvar="AUDITKIT_HOME", help="The auditor's folder: keys, database."),
]


def _option(flag: flags.Flag) -> Any:  # noqa: ANN401 - what typer looks for in an annotation
    return typer.Option(
        flag.name, envvar=flag.variable, help=flag.help, min=flag.least, max=flag.most
    )


# Five years, as the trust root's own lifetime.
DEFAULT_FIRST_TOKENS_DAYS = 1825.0
MOST_TOKEN_DAYS = 3650.0
TokenDaysOption = Annotated[
    float,
    typer.Option(
        "--token-days",
        min=0.01,
        max=MOST_TOKEN_DAYS,
        help="Days until the first tokens end. `auditkit access token create` makes others.",
    ),
]
DatabaseOption = Annotated[str | None, _option(flags.DATABASE)]
BlobsOption = Annotated[str | None, _option(flags.BLOBS)]

order_app = typer.Typer(
    no_args_is_help=True,
    help="Write, sign, show and list audit orders: who may train what, how, until when.",
)


def init(
    home: HomeOption = DEFAULT_HOME,
    auditor: Annotated[
        str, typer.Option("--auditor", help="Name of the authority, as reports show it.")
    ] = "Auditor",
    origin: Annotated[
        str,
        typer.Option("--origin", help="Name of the server; every log's origin begins with it."),
    ] = "localhost",
    passphrase: Annotated[
        bool, typer.Option("--passphrase", help="Ask for a passphrase for the root key's file.")
    ] = False,
    passphrase_file: PassphraseFileOption = None,
    token_days: TokenDaysOption = DEFAULT_FIRST_TOKENS_DAYS,
    database_url: DatabaseOption = None,
) -> None:
    """Set up an auditor: keys, trust root, database, and one access token per role.

    The root key lies in the home, with a passphrase if one is given. To keep several root keys
    elsewhere, use `auditkit trust init`.

        auditkit init --auditor "Data Protection Authority" --origin audit.example.org
    """
    from auditor_server.home import create_home

    secret = given_passphrase(passphrase_file)
    if secret is None and passphrase:
        secret = ask_new_passphrase("the root key")
    now, lifetime = datetime.now(UTC), timedelta(days=token_days)
    created = create_home(
        home,
        auditor,
        origin,
        now,
        root_passphrase=secret,
        tokens_lifetime=lifetime,
        database_url=database_secret(database_url),
    )
    write_tokens(created)
    report_home(created, now + lifetime)


def database_secret(database_url: str | None) -> SecretStr | None:
    """Return the URL of a database so that no message can show its password; empty: none."""
    return flags.database_secret(database_url)


def write_tokens(created: "Home") -> None:
    """Write the tokens of a new home, which nobody can read again, into files of their own."""
    from auditor_server.home import write_private

    folder = created.path / TOKENS_FOLDER
    folder.mkdir(mode=0o700)
    for role, token in created.tokens.items():
        write_private(folder / f"{role}.token", token.encode() + b"\n")


def report_home(created: "Home", tokens_end: datetime) -> None:
    """Say what a new home holds, and what to do next."""
    home, shown = created.path, quoted(created.path)
    console.print(f"made the auditor's home [bold]{shown}[/bold]")
    console.print(f"  {shown}/keys/            private keys; back them up, show them to nobody")
    console.print(f"  {shown}/trust-root.json  hand this to developers and to anyone who verifies")
    console.print(f"  {shown}/tokens/          one access token per role, to hand out;")
    console.print(f"  {' ' * len(shown)}          they end on {tokens_end:%Y-%m-%d}")
    console.print("\nnext: write an order (see examples/orders/) and run")
    console.print(f"  auditkit order create ORDER.toml --home {home}", markup=False)
    console.print(f"  auditkit serve --home {home}", markup=False)


def serve(
    home: HomeOption = DEFAULT_HOME,
    host: Annotated[str, _option(flags.HOST)] = DEFAULT_HOST,
    port: Annotated[int, _option(flags.PORT)] = DEFAULT_PORT,
    workers: Annotated[int, _option(flags.WORKERS)] = 1,
    database_url: DatabaseOption = None,
    blobs: BlobsOption = None,
    trail_days: Annotated[float, _option(flags.TRAIL)] = TRAIL_DAYS,
    log_format: Annotated[LogFormat, _option(flags.LOG_FORMAT)] = LogFormat.TEXT,
    model_workers: Annotated[int, _option(flags.MODEL_WORKERS_FLAG)] = MODEL_WORKERS,
    model_memory_mib: Annotated[int, _option(flags.MODEL_MEMORY)] = MOST_MODEL_MEMORY_MIB,
    model_seconds: Annotated[float, _option(flags.MODEL_SECONDS)] = MOST_MODEL_SECONDS,
    metrics_host: Annotated[str, _option(flags.METRICS_HOST)] = DEFAULT_HOST,
    metrics_port: Annotated[int | None, _option(flags.METRICS_PORT)] = None,
) -> None:
    """Run the auditor's server until it is stopped with Ctrl-C."""
    from auditor_server.serve import serve as run_server

    settings = flags.settings_of(
        home,
        {
            "database_url": database_url,
            "blobs": blobs,
            "trail_days": trail_days,
            "log_format": log_format,
            "model_workers": model_workers,
            "model_memory_mib": model_memory_mib,
            "model_seconds": model_seconds,
        },
    )
    at = Listening(host, port, workers, metrics_host, metrics_port)
    run_server(settings, at, lambda bound: _announce(home, bound))


def _announce(home: Path, bound: Bound) -> None:
    console.print(
        f"auditkit server for [bold]{quoted(home)}[/bold] on http://{bound.host}:{bound.port} "
        "(Ctrl-C stops it)"
    )
    if bound.metrics_port is not None:
        console.print(f"metrics on port {bound.metrics_port}")


@order_app.command("create")
def order_create(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The order as TOML; see examples/orders/.")
    ],
    home: HomeOption = DEFAULT_HOME,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write the signed order here as well."),
    ] = None,
    database_url: DatabaseOption = None,
) -> None:
    """Sign an order and file it with the server of this home."""
    from auditor_server.context import Auditor
    from auditor_server.home import open_home
    from auditor_server.orders import add_order
    from auditor_server.settings import ServerSettings

    opened = open_home(home)
    now = datetime.now(UTC)
    order = read_order(file, opened.history().auditor, now)
    envelope = sign_order(opened, order)
    settings = ServerSettings(home=home, database_url=database_secret(database_url))
    add_order(Auditor.open(settings), envelope)
    if output is not None:
        _write(output, envelope)
    if not (order.images or order.image_keys or order.allow_without_container):
        error_console.print(
            "[yellow]warning:[/yellow] the order lists no image and no key, and allows no run "
            "without a container: nobody can train under it",
            soft_wrap=True,
        )
    console.print(
        f"signed and filed order [bold]{order.order_id}[/bold] for {quoted(order.developer)}, in "
        f"force until {order.expires_at:%Y-%m-%d}"
    )


def read_order(file: Path, auditor: str, now: datetime) -> AuditOrder:
    """Read an order from TOML; `valid_days` in it sets the end.

    Raises:
        UsageError: the file cannot be read, or is no TOML.
        pydantic.ValidationError: it breaks the schema of orders.
    """
    from auditor_server.order_drafts import DraftError, read_draft

    try:
        return read_draft(file.read_text(encoding="utf-8"), auditor, now)
    except OSError as error:
        raise UsageError(f"cannot read the order {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{file}: not valid TOML: {error}") from error
    except DraftError as error:
        raise UsageError(f"{file}: {error}") from error


def sign_order(home: "Home", order: AuditOrder) -> bytes:
    """Return the order as a DSSE envelope, signed by the home's order key."""
    payload = statements.make(
        statements.ORDER_PREDICATE, order, statements.subject("order", order.order_id, order)
    )
    return dsse.sign(payload, [home.signing_key("order")]).to_bytes()


@order_app.command("show")
def order_show(
    order: Annotated[str, typer.Argument(metavar="ORDER", help="Identifier of the order.")],
    server: ServerOption,
    token_file: TokenFileOption = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write the signed order here as well."),
    ] = None,
) -> None:
    """Show one order as it was signed."""
    with connect(server, token_file) as client:
        envelope = client.order(order)
    if output is not None:
        _write(output, envelope.to_bytes())
    print_json(statements.parse(envelope.payload, statements.ORDER_PREDICATE, AuditOrder).as_json())


@order_app.command("list")
def order_list(
    server: ServerOption,
    token_file: TokenFileOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """List the orders on the server."""
    with connect(server, token_file) as client:
        orders = list(client.orders())
    if as_json:
        print_json([order.as_json() for order in orders])
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("order", "developer", "in force until", "purpose"):
        table.add_column(heading)
    for order in orders:
        table.add_row(
            quoted(order.order_id),
            quoted(order.developer),
            f"{order.expires_at:%Y-%m-%d}",
            quoted(order.purpose),
        )
    console.print(table if orders else "no orders yet")


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error
