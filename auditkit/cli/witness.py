"""`witness`: cosign an auditor's logs as an independent party."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from auditkit.cli.errors import UsageError
from auditkit.cli.output import console, print_json, quoted
from auditor_server.settings import DEFAULT_HOST

if TYPE_CHECKING:
    from auditor_server.witness.home import FollowedLog, WitnessHome

DEFAULT_HOME = Path("witness-home")
DEFAULT_PORT = 8471

HomeOption = Annotated[
    Path,
    typer.Option(
        "--home", envvar="AUDITKIT_WITNESS_HOME", help="The witness's folder: key, state."
    ),
]
TrustRootOption = Annotated[
    Path | None,
    typer.Option(
        "--trust-root", help="Follow every log of the auditor with this trust root (a file)."
    ),
]
LogOption = Annotated[
    str | None, typer.Option("--log", help="Follow one log, by its origin; needs --key.")
]
KeyOption = Annotated[
    list[str] | None,
    typer.Option("--key", help="A C2SP verifier key of that log; give it once for each key."),
]

witness_app = typer.Typer(
    no_args_is_help=True,
    help="Be a witness: cosign what an auditor's logs say, and so exclude that others are shown "
    "something else (c2sp.org/tlog-witness).",
)


@witness_app.command("init")
def init(
    name: Annotated[
        str,
        typer.Option("--name", help="Your witness's name: a URL without https://, w.example.org."),
    ],
    home: HomeOption = DEFAULT_HOME,
    trust_root: TrustRootOption = None,
    log: LogOption = None,
    key: KeyOption = None,
) -> None:
    """Make a witness: a key, an empty state, and the logs to follow.

    auditkit witness init --name w.example.org --trust-root trust-root.json
    """
    from auditor_server.witness.home import create_home

    followed = _logs(trust_root, log, key)
    made = create_home(home, name, followed)
    console.print(f"made the witness [bold]{quoted(name)}[/bold] in {quoted(home)}")
    _print_key(made)
    if not followed:
        console.print("\nit follows no log yet: auditkit witness follow --trust-root FILE")
    console.print(f"\nnext: auditkit witness serve --home {home}", markup=False)


@witness_app.command("follow")
def follow(
    home: HomeOption = DEFAULT_HOME,
    trust_root: TrustRootOption = None,
    log: LogOption = None,
    key: KeyOption = None,
) -> None:
    """Follow further logs, or the same ones with the keys of a newer trust root.

    A running witness has to be started anew.
    """
    from auditor_server.witness.home import open_home

    followed = _logs(trust_root, log, key)
    if not followed:
        raise UsageError("name what to follow: --trust-root FILE, or --log ORIGIN with --key KEY")
    opened = open_home(home)
    for item in followed:
        opened = opened.follow(item)
        console.print(f"follows {quoted(_described(item))}")


@witness_app.command("serve")
def serve(
    home: HomeOption = DEFAULT_HOME,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on. Put TLS in front of any other.")
    ] = DEFAULT_HOST,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Port; 0 takes a free one.")
    ] = DEFAULT_PORT,
) -> None:
    """Run the witness until it is stopped with Ctrl-C."""
    from auditor_server.listening import run
    from auditor_server.witness.app import create_app
    from auditor_server.witness.cosigning import Witness
    from auditor_server.witness.home import open_home

    opened = open_home(home)
    run(
        create_app(Witness(opened)),
        host,
        port,
        on_ready=lambda bound, actual: console.print(
            f"witness [bold]{quoted(opened.config.name)}[/bold] on http://{bound}:{actual} "
            "(Ctrl-C stops it)"
        ),
    )


@witness_app.command("show")
def show(
    home: HomeOption = DEFAULT_HOME,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Show the witness's key, the logs that it follows, and what it has cosigned."""
    from auditor_server.witness.home import open_home

    opened = open_home(home)
    cosigned = opened.state.logs()
    if as_json:
        print_json(
            {
                "name": opened.config.name,
                "key": opened.verifier_key.encode(),
                "logs": [item.model_dump(mode="json") for item in opened.config.logs],
                "cosigned": [
                    {"origin": found.origin, "size": found.size, "time": found.time}
                    for found in cosigned
                ],
            }
        )
        return
    _print_key(opened)
    for item in opened.config.logs:
        console.print(f"follows {quoted(_described(item))}")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("log", "size", "last cosigned"):
        table.add_column(heading, overflow="fold")
    for found in cosigned:
        when = datetime.fromtimestamp(found.time, UTC)
        table.add_row(quoted(found.origin), str(found.size), f"{when:%Y-%m-%d %H:%M:%S} UTC")
    console.print(table if cosigned else "nothing cosigned yet")


def _logs(trust_root: Path | None, log: str | None, keys: list[str] | None) -> list["FollowedLog"]:
    from auditkit.evidence.trust import open_trust_root
    from auditor_server.witness.home import FollowedLog

    if (log is None) != (not keys):
        raise UsageError(
            "--log and --key belong together: an origin, and the keys that sign for it"
        )
    found = []
    if trust_root is not None:
        try:
            data = trust_root.read_bytes()
        except OSError as error:
            raise UsageError(
                f"cannot read the trust root {trust_root}: {error.strerror}"
            ) from error
        found.append(FollowedLog.of_auditor(open_trust_root(data, datetime.now(UTC))))
    if log is not None and keys:
        found.append(FollowedLog(origin=log, keys=tuple(keys)))
    return found


def _described(log: "FollowedLog") -> str:
    return f"every log below {log.origin}/" if log.below else f"the log {log.origin}"


def _print_key(home: "WitnessHome") -> None:
    console.print("\nits key, for the auditor's witnesses.toml and for the order:")
    console.print(f"  {home.verifier_key.encode()}\n", markup=False, soft_wrap=True)
