"""`study cell`: one cell of the paper's tables, with an architecture, a setup and a data set."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from auditkit.cli.bars import TrainingBar
from auditkit.cli.output import console, error_console, quoted
from auditkit.cli.tables import terminal_table


def cell(
    architecture: Annotated[
        str,
        typer.Option(
            "--architecture", help="MobileNet, ResNet50, ResNet101, DenseNet121, Xception or ViT."
        ),
    ],
    setup: Annotated[
        Literal["entry", "middle", "output"], typer.Option("--setup", help="Where T reads M.")
    ],
    data_set: Annotated[
        str,
        typer.Option(
            "--data-set", help="MNIST, CIFAR-10, GTSRB, 'Tiny ImageNet' or 'CASIA WebFace'."
        ),
    ],
    data: Annotated[
        Path,
        typer.Option(
            "--data",
            exists=True,
            file_okay=False,
            help="Folder of the data set as released. MNIST, CIFAR-10 and GTSRB may also be an "
            "image folder, train/<class>/ and test/<class>/.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Folder for results; a stopped cell goes on in it."),
    ],
    scale: Annotated[
        Literal["tiny", "cpu", "gpu"],
        typer.Option(
            "--scale",
            help="tiny: shows only that it works; cpu: a few thousand samples on two cores; "
            "gpu: the whole set.",
        ),
    ] = "cpu",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of everything random.")] = 0,
) -> None:
    """Train M jointly with T and M alone, and compare Active with Passive MINT on them.

    One cell of the paper's tables: audited accuracy with and without T, MINT accuracy, power at
    rates calibrated on C, and what silent and told-only samples show. Nothing here is evidence.

    auditkit study cell --architecture ResNet50 --setup middle --data-set CIFAR-10 --data cifar10
    --scale tiny --output cells
    """
    from auditkit.studies.cell_run import measured, run
    from auditkit.studies.cell_tables import cell_table
    from auditkit.studies.cells import PASSIVE_SETUP, SCALES, cell_settings
    from auditkit.studies.presets import preset

    with error_console.status("describing the models"):
        found = preset(architecture, setup, data_set)
        settings = cell_settings(found.cell, data, SCALES[scale], seed)
    with TrainingBar(error_console) as bar:
        for done in run([settings], output, on_start=lambda training: bar.started(training.title)):
            kept = " (kept)" if done.kept else ""
            bar.finished(done.done, done.total, f"{done.settings.title}{kept}")
    where = f"{found.cell.architecture}, {found.cell.data_set}"
    title = (
        f"{where}: Active MINT at {found.cell.setup}; Passive MINT of M alone at {PASSIVE_SETUP}"
    )
    table = cell_table(title, measured(settings, output))
    console.print(f"\n[cyan]{table.title}[/cyan]")
    console.print(terminal_table(table))
    console.print(f"[dim]{table.note}[/dim]")
    console.print("Not the paper's own figures: " + "; ".join(found.assumptions) + ".")
    console.print(f"results are kept in {quoted(output)}")
