"""`evaluate`: one model, every method of the literature and ours, one table."""

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from auditkit.cli.bars import TrainingBar
from auditkit.cli.output import console, error_console, quoted
from auditkit.cli.tables import terminal_table
from schemas.settings import parse_settings, read_toml

REPORT_NAME = "evaluation"


def evaluate(
    settings_file: Annotated[
        Path,
        typer.Argument(metavar="SETTINGS", help="TOML file like examples/evaluate-digits.toml."),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Folder for results; a stopped evaluation goes on."),
    ],
    seeds: Annotated[
        int | None,
        typer.Option("--seeds", min=1, help="Run the first so many seeds instead of the file's."),
    ] = None,
) -> None:
    """Train one model alone and with every MINT Model, and compare all methods on one split.

    Active and Passive MINT, gMINT, the attacks of the literature and keyed membership codes, with
    thresholds from C alone and exact intervals. Writes evaluation.md, evaluation.json and the
    log-log ROC as evaluation-roc.svg. Nothing here is evidence: no auditor watches.

    auditkit evaluate examples/evaluate-digits.toml --output evaluation
    """
    document = read_toml(settings_file)

    from auditkit.evidence import canonical
    from auditkit.studies.comparison import ComparisonSettings
    from auditkit.studies.comparison_run import results, run
    from auditkit.studies.comparison_text import SHORT, comparison_tables, markdown, roc_chart

    settings = parse_settings(ComparisonSettings, document, str(settings_file))
    if seeds is not None:
        settings = settings.model_copy(update={"seeds": tuple(range(seeds))})
    with TrainingBar(error_console) as bar:
        for done in run(
            settings,
            settings_file.resolve().parent,
            output,
            on_start=lambda part: bar.started(part.title),
        ):
            bar.finished(
                done.done, done.total, f"{done.part.title}{' (kept)' if done.kept else ''}"
            )
    found = results(settings, output, _environment())
    (output / f"{REPORT_NAME}.json").write_bytes(canonical.to_bytes(found))
    (output / f"{REPORT_NAME}.md").write_text(markdown(found), encoding="utf-8")
    (output / f"{REPORT_NAME}-roc.svg").write_text(roc_chart(found.methods), encoding="utf-8")
    for table in comparison_tables(found, SHORT):
        console.print(f"\n[cyan]{table.title}[/cyan]")
        console.print(terminal_table(table))
        if table.note:
            console.print(f"[dim]{table.note}[/dim]")
    console.print(
        f"\nwrote {REPORT_NAME}.md, {REPORT_NAME}.json and {REPORT_NAME}-roc.svg in "
        f"{quoted(output)}"
    )


def _environment() -> str:
    return (
        f"`auditkit evaluate` on {os.cpu_count()} CPU cores, {platform.machine()}, "
        f"Python {platform.python_version()}, torch {version('torch')}, timm {version('timm')}, "
        f"auditkit {version('auditkit')}."
    )
