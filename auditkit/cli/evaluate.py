"""`evaluate`: one model, every method of the literature and ours, one table."""

import os
import platform
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from auditkit.cli.errors import UsageError
from auditkit.cli.output import console, error_console, quoted

if TYPE_CHECKING:
    from auditkit.studies.comparison import ComparisonSettings

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
    from auditkit.evidence import canonical
    from auditkit.studies.comparison_run import results, run
    from auditkit.studies.comparison_text import comparison_tables, markdown, roc_chart

    settings = _settings(settings_file)
    if seeds is not None:
        settings = settings.model_copy(update={"seeds": tuple(range(seeds))})
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=16),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(compact=True),
        console=error_console,
        disable=not error_console.is_terminal,
    )
    with progress:
        task = progress.add_task("starting", total=None)
        for part in run(settings, settings_file.resolve().parent, output):
            progress.update(
                task, description=part.part.title, completed=part.done, total=part.total
            )
            if progress.disable and not part.kept:
                console.print(f"{part.part.title} done ({part.done} of {part.total})")
    found = results(settings, output)
    document = [entry.as_json() for entry in found]
    (output / f"{REPORT_NAME}.json").write_bytes(canonical.to_bytes(document))
    (output / f"{REPORT_NAME}.md").write_text(markdown(settings, found, _environment()))
    (output / f"{REPORT_NAME}-roc.svg").write_text(roc_chart(found))
    for table in comparison_tables(found):
        shown = Table(*table.header, title=table.title, title_justify="left")
        for row in table.rows:
            shown.add_row(*row)
        console.print(shown)
    console.print(
        f"\nwrote {REPORT_NAME}.md, {REPORT_NAME}.json and {REPORT_NAME}-roc.svg in "
        f"{quoted(output)}"
    )


def _settings(path: Path) -> "ComparisonSettings":
    import json

    from auditkit.studies.comparison import ComparisonSettings

    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid TOML: {error}") from error
    # Through JSON: TOML's arrays are then read as the schema's own types.
    return ComparisonSettings.from_bytes(json.dumps(document, default=str))


def _environment() -> str:
    return (
        f"`auditkit evaluate` on {os.cpu_count()} CPU cores, {platform.machine()}, "
        f"Python {platform.python_version()}, torch {version('torch')}, timm {version('timm')}, "
        f"auditkit {version('auditkit')}."
    )
