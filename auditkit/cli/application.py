"""Puts the command groups together and turns typed errors into one clear line."""

import sys
from importlib.metadata import version

import typer

from auditkit.cli import (
    access,
    auditor,
    cells,
    demo,
    developer,
    doctor,
    evaluate,
    evidence,
    image,
    monitor,
    packaging,
    queries,
    replay,
    server,
    study,
    trust,
    verdicts,
    witness,
)
from auditkit.cli.errors import EXPECTED_ERRORS, describe
from auditkit.cli.output import console, print_error

EXIT_ERROR = 1
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells have it

app = typer.Typer(
    name="auditkit",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Know which data a model was trained on, with evidence that anyone can check.

    [bold]Auditors[/bold] start with [cyan]auditkit init[/cyan], [cyan]order create[/cyan] and
    [cyan]serve[/cyan]. [bold]Developers[/bold] write a configuration like those in examples/ and
    run [cyan]auditkit train[/cyan]. [bold]Compliance officers[/bold] ask with
    [cyan]auditkit query[/cyan] and file what [cyan]auditkit report[/cyan] writes.
    [bold]Anyone[/bold] with a bundle and the auditor's trust root can run
    [cyan]auditkit verify[/cyan], offline.

    To see all of it in a few minutes: [cyan]auditkit demo[/cyan].
    """,
)
AUDITOR, DEVELOPER, ANYONE = "For auditors", "For developers", "For everyone"
SCIENTIST = "For scientists"
app.command("init", rich_help_panel=AUDITOR)(auditor.init)
app.command("serve", rich_help_panel=AUDITOR)(auditor.serve)
app.add_typer(auditor.order_app, name="order", rich_help_panel=AUDITOR)
app.add_typer(access.access_app, name="access", rich_help_panel=AUDITOR)
app.add_typer(trust.trust_app, name="trust", rich_help_panel=AUDITOR)
app.add_typer(server.server_app, name="server", rich_help_panel=AUDITOR)
app.command("draw", rich_help_panel=AUDITOR)(replay.draw)
app.command("replay", rich_help_panel=AUDITOR)(replay.replay)
app.command("package", rich_help_panel=DEVELOPER)(packaging.package)
app.command("train", rich_help_panel=DEVELOPER)(developer.train)
app.command("sync", rich_help_panel=DEVELOPER)(developer.sync)
app.command("submit", rich_help_panel=DEVELOPER)(developer.submit)
app.command("open", rich_help_panel=DEVELOPER)(developer.open_one)
app.command("disclose", rich_help_panel=DEVELOPER)(replay.disclose)
app.command("verify", rich_help_panel=ANYONE)(evidence.verify)
app.command("verify-verdict", rich_help_panel=ANYONE)(verdicts.verify_verdict)
app.command("export", rich_help_panel=ANYONE)(evidence.export)
app.command("monitor", rich_help_panel=ANYONE)(monitor.monitor)
app.command("query", rich_help_panel=ANYONE)(queries.query)
app.command("report", rich_help_panel=ANYONE)(queries.report)
app.add_typer(image.image_app, name="image", rich_help_panel=ANYONE)
app.add_typer(witness.witness_app, name="witness", rich_help_panel=ANYONE)
app.command("evaluate", rich_help_panel=SCIENTIST)(evaluate.evaluate)
study.study_app.command("cell")(cells.cell)
app.add_typer(study.study_app, name="study", rich_help_panel=SCIENTIST)
app.command("doctor", rich_help_panel=ANYONE)(doctor.doctor)
app.command("demo", rich_help_panel=ANYONE)(demo.demo)


def _print_version(asked: bool) -> None:
    if asked:
        console.print(f"auditkit {version('auditkit')}")
        raise typer.Exit


@app.callback()
def _options(
    _version: bool = typer.Option(
        False, "--version", help="Print the version.", callback=_print_version, is_eager=True
    ),
) -> None:
    """Take the options that all commands share."""


def main() -> None:
    """Run the command line. Expected errors become one message and exit code 1."""
    try:
        app()
    except EXPECTED_ERRORS as error:
        print_error(describe(error))
        sys.exit(EXIT_ERROR)
    except KeyboardInterrupt:
        print_error("interrupted")
        sys.exit(EXIT_INTERRUPTED)
