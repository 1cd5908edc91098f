"""`monitor`: watch an auditor's registry from outside."""

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from auditkit.cli.errors import UsageError
from auditkit.cli.output import console, error_console, print_json, quoted
from auditkit.client_errors import ClientError
from auditkit.evidence.errors import EvidenceError

if TYPE_CHECKING:
    from auditkit.cli.registry_follower import Follower
    from auditkit.evidence.bundle_comparison import Comparison, ShownSession
    from auditkit.evidence.monitoring import Mark, NewEntry

DEFAULT_INTERVAL_SECONDS = 60.0
ALARM_COMMAND_TIMEOUT_SECONDS = 60


def monitor(
    server: Annotated[
        str, typer.Argument(metavar="URL", help="Address of the auditor's server, http(s)://…")
    ],
    trust_root: Annotated[
        Path,
        typer.Option(
            "--trust-root",
            help="The auditor's trust root, received out of band. Newer versions that follow from "
            "it are added.",
        ),
    ],
    state: Annotated[
        Path, typer.Option("--state", help="Where to keep how far the registry was checked.")
    ],
    once: Annotated[bool, typer.Option("--once", help="Check once, and end.")] = False,
    every: Annotated[
        float, typer.Option("--every", min=1.0, help="Seconds from one check to the next.")
    ] = DEFAULT_INTERVAL_SECONDS,
    most_age: Annotated[
        float | None,
        typer.Option(
            "--most-age",
            min=1.0,
            help="Alarm when the newest head is older than this many seconds. Servers sign a fresh "
            "one when asked at least every five minutes.",
        ),
    ] = None,
    alarm_command: Annotated[
        str | None,
        typer.Option(
            "--alarm-command",
            help="Program to run on an alarm; gets the message on its standard input, and its name "
            "in AUDITKIT_ALARM.",
        ),
    ] = None,
    session: Annotated[
        str | None, typer.Option("--session", help="Print entries of this session only.")
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(
            "--bundle",
            help="Check once, compare this evidence bundle with all entries of its session, and "
            "end. Reads the whole registry.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document for each check.")
    ] = False,
) -> None:
    """Follow an auditor's registry, and raise an alarm when it does not hold.

    Checks each head's signatures, that it extends the one before, and every new entry; only then
    it moves its mark. A fork, a rollback, an unknown or revoked key, a changed or back-dated entry
    ends it with exit code 1, and both signed notes are kept beside the state as evidence. So does a
    session with two seals, and a bundle that lacks a document of its session.

        auditkit monitor https://audit.example.org --trust-root trust-root.json --state mark.json
        auditkit monitor URL --trust-root trust-root.json --state mark.json --bundle evidence.bundle
    """
    from auditkit.cli.registry_follower import Follower
    from auditkit.client import AuditorClient
    from auditor_server.trust_files import TrustFile

    if not trust_root.is_file():
        raise UsageError(f"there is no trust root at {trust_root}; ask the auditor for it")
    shown = None if bundle is None else _shown(bundle)
    once = once or shown is not None
    with AuditorClient(server) as client:
        follower = Follower(client, TrustFile(trust_root), state, most_age)
        while True:
            try:
                mark, entries = follower.follow(datetime.now(UTC))
            except EvidenceError as error:
                _raise_alarm(follower, error, alarm_command)
                raise
            except ClientError as error:
                if once:
                    raise
                _check_not_silent(follower, error, alarm_command)
            else:
                wanted = [new for new in entries if session in (None, new.entry.session_id)]
                _print_checked(mark, wanted, len(entries), as_json=as_json)
                if shown is not None:
                    _compare(follower, shown, mark, alarm_command, as_json=as_json)
            if once:
                return
            time.sleep(every)


def _shown(bundle: Path) -> "ShownSession":
    from auditkit.evidence.bundle import open_bundle
    from auditkit.evidence.bundle_comparison import ShownSession

    try:
        with bundle.open("rb") as file:
            return ShownSession.of(open_bundle(file))
    except OSError as error:
        raise UsageError(f"cannot read the bundle {bundle}: {error.strerror}") from error


def _compare(
    follower: "Follower", shown: "ShownSession", mark: "Mark", command: str | None, *, as_json: bool
) -> None:
    try:
        comparison = follower.compare(shown, mark, datetime.now(UTC))
    except EvidenceError as error:
        _raise_alarm(follower, error, command)
        raise
    _print_comparison(comparison, as_json=as_json)


def _check_not_silent(follower: "Follower", error: ClientError, command: str | None) -> None:
    """Go on without an answer, but not for longer than a head may be old."""
    from auditkit.evidence.monitoring import check_age

    error_console.print(f"[yellow]no answer:[/yellow] {quoted(error)}", soft_wrap=True)
    mark = follower.mark()
    if mark is None:
        return
    try:
        check_age(mark.head, datetime.now(UTC), follower.most_age_seconds)
    except EvidenceError as stale:
        _raise_alarm(follower, stale, command)
        raise


def _raise_alarm(follower: "Follower", error: EvidenceError, command: str | None) -> None:
    folder = follower.keep_evidence(error, datetime.now(UTC))
    name = type(error).__name__
    error_console.print(f"[bold red]ALARM[/bold red] {name}; evidence kept in {quoted(folder)}")
    if command is not None:
        _run(shlex.split(command), name, str(error))


def _run(command: Sequence[str], name: str, message: str) -> None:
    try:
        subprocess.run(  # noqa: S603 - the program that the user named
            command,
            input=message.encode(),
            env={**os.environ, "AUDITKIT_ALARM": name},
            stdout=sys.stderr,
            timeout=ALARM_COMMAND_TIMEOUT_SECONDS,
            check=True,
        )
    except (OSError, ValueError, IndexError, subprocess.SubprocessError) as error:
        error_console.print(f"[red]the alarm command failed:[/red] {quoted(error)}")


def _print_checked(
    mark: "Mark", entries: Sequence["NewEntry"], count: int, *, as_json: bool
) -> None:
    checkpoint = mark.head.checkpoint
    if as_json:
        print_json(
            {
                "origin": checkpoint.origin,
                "size": checkpoint.size,
                "root": checkpoint.root.hex(),
                "cosigned_at": mark.head.cosigned_at,
                "new": count,
                "entries": [{"index": new.index, **new.entry.as_json()} for new in entries],
            }
        )
        return
    if entries:
        console.print(_table(entries))
    cosigned = datetime.fromtimestamp(mark.head.cosigned_at, UTC)
    console.print(
        f"{quoted(checkpoint.origin)}: {checkpoint.size} entries, {count} new, all checked; "
        f"cosigned {cosigned:%Y-%m-%d %H:%M:%S} UTC"
    )


def _print_comparison(comparison: "Comparison", *, as_json: bool) -> None:
    if as_json:
        print_json(asdict(comparison))
        return
    verdicts = comparison.verdicts_not_shown
    console.print(
        f"{quoted(comparison.session_id)}: {comparison.entries} entries, the bundle shows all"
        + (f" but {verdicts} verdicts" if verdicts else "")
    )


def _table(entries: Sequence["NewEntry"]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("entry", justify="right")
    table.add_column("time (UTC)", no_wrap=True)
    table.add_column("kind", no_wrap=True)
    table.add_column("session", no_wrap=True)
    table.add_column("digest", no_wrap=True)
    for new in entries:
        made = datetime.fromtimestamp(new.entry.time_ms / 1000, UTC)
        table.add_row(
            str(new.index),
            f"{made:%Y-%m-%d %H:%M:%S}",
            new.entry.kind,
            new.entry.session_id or "",
            new.entry.digest,
        )
    return table
