"""`study`: laboratory studies that anyone can run again."""

import platform
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from auditkit.cli.bars import TrainingBar
from auditkit.cli.errors import UsageError
from auditkit.cli.output import console, error_console, quoted
from auditkit.cli.tables import terminal_table

if TYPE_CHECKING:
    from auditkit.studies.factor_cells import CellDone, CellResult
    from auditkit.studies.factor_tables import StudyReport
    from auditkit.studies.factors import FactorName, StudySettings

REPORT_NAME = "factors"

study_app = typer.Typer(
    no_args_is_help=True,
    help="Run a study again: many small trainings, tables, and what they show.",
)


@study_app.callback()
def _studies() -> None:
    """Keep `factors` a command of its own, however many studies there are."""


@study_app.command()
def factors(
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Folder for results; a stopped study goes on in it."),
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            help="Image folder (<class>/ or train/<class>/), or torchvision's folder of MNIST or "
            "CIFAR-10. Left out: scikit-learn's handwritten digits.",
        ),
    ] = None,
    scale: Annotated[
        Literal["tiny", "cpu", "gpu"],
        typer.Option(
            "--scale",
            help="tiny: seconds, shows only that it works; cpu: under 20 minutes on two cores; "
            "gpu: more samples, levels and seeds.",
        ),
    ] = "cpu",
    only: Annotated[
        list[str] | None,
        typer.Option("--only", help="exposure, batch_size, dropout or loss; may be repeated."),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option("--seeds", min=2, help="Trainings of every level.")
    ] = None,
) -> None:
    """Measure what makes members easy or hard to tell: exposure, batch size, dropout, loss.

    Trains M alone with one factor varied at a time, attacks it with passive MINT and by its loss,
    and prints every effect with its interval. Writes factors.md and factors.json.

    auditkit study factors --scale cpu --data cifar10 --output factors-study
    """
    from auditkit.studies.factor_cells import run_cells
    from auditkit.studies.factors import SCALES, open_data

    wanted = _chosen(only or [])
    settings = SCALES[scale]
    if seeds is not None:
        settings = settings.model_copy(update={"seeds": seeds})
    with error_console.status("reading the data"):
        pool, test, settings = open_data(data, settings)
    output.mkdir(parents=True, exist_ok=True)
    console.print(
        f"{pool.size} samples for D, E and C, {test.size} fresh ones; results in {quoted(output)}"
    )
    results = _run(run_cells(settings, pool, test, output, wanted))
    report = _report(results, settings, wanted, "digits" if data is None else data.resolve().name)
    _write(output, report)
    _print(report)
    console.print(f"\nwrote {REPORT_NAME}.md and {REPORT_NAME}.json in {quoted(output)}")


def _chosen(names: Sequence[str]) -> "tuple[FactorName, ...]":
    from auditkit.studies.factors import FACTORS

    unknown = sorted(set(names) - set(FACTORS))
    if unknown:
        raise UsageError(
            f"--only: expected one of {', '.join(FACTORS)}, found {', '.join(unknown)}"
        )
    return tuple(factor for factor in FACTORS if not names or factor in names)


def _run(cells: "Iterator[CellDone]") -> "list[CellResult]":
    results = []
    with TrainingBar(error_console) as bar:
        for cell in cells:
            results.append(cell.result)
            how = "kept" if cell.kept else f"{cell.result.seconds:.1f} s of training"
            bar.finished(cell.done, cell.total, f"{cell.result.cell.title}: {how}")
    return results


def _report(
    results: "Sequence[CellResult]",
    settings: "StudySettings",
    wanted: "Sequence[FactorName]",
    data: str,
) -> "StudyReport":
    from auditkit.studies.factor_tables import StudyReport, factor_tables

    return StudyReport(
        settings=settings,
        data=data,
        environment=(
            f"{platform.system()} {platform.machine()}, Python {platform.python_version()}, "
            f"torch {version('torch')}, timm {version('timm')}, auditkit {version('auditkit')}"
        ),
        training_seconds=sum(result.seconds for result in results),
        tables=factor_tables(results, settings, wanted),
    )


def _write(folder: Path, report: "StudyReport") -> None:
    from auditkit.studies.factor_text import markdown

    (folder / f"{REPORT_NAME}.json").write_text(
        report.model_dump_json(indent=2) + "\n", encoding="utf-8"
    )
    (folder / f"{REPORT_NAME}.md").write_text(markdown(report), encoding="utf-8")


def _print(report: "StudyReport") -> None:
    from auditkit.studies.factor_tables import FACTOR_TITLES
    from auditkit.studies.factor_text import text_tables

    for table in report.tables:
        console.print(f"\n[bold]{FACTOR_TITLES[table.factor]}[/bold]")
        for text in text_tables(table):
            console.print(f"[cyan]{text.title}[/cyan]")
            console.print(terminal_table(text))
        for remark in table.remarks:
            console.print(f"• {remark}")
