"""What `table1.py`, `table2.py` and `table3.py` have in common: options, running and printing."""

import argparse
import sys
from pathlib import Path
from typing import get_args

from auditkit.studies.cell_run import MeasuredCell, measured, run
from auditkit.studies.cell_tables import PAPER_TABLES, TableName, markdown
from auditkit.studies.cells import SCALES, CellSettings, ScaleName, cell_settings
from auditkit.studies.presets import Cell, known_data_set


def main(name: TableName, description: str) -> None:
    """Run what is wanted and not yet done of one table, and print the table."""
    options = _options(description)
    table = PAPER_TABLES[name]
    folders = dict(options.data)
    scale = SCALES[options.scale]
    settings: dict[Cell, CellSettings] = {
        cell: cell_settings(cell, folders[cell.data_set], scale, options.seed)
        for cell in table.cells
        if cell.data_set in folders
    }
    wanted = [
        found
        for cell, found in settings.items()
        if not options.cells or any(part.casefold() in cell.name for part in options.cells)
    ]
    if not options.print_only:
        for done in run(wanted, options.output, on_start=_say_start):
            kept = " (kept)" if done.kept else ""
            print(f"{done.done}/{done.total} {done.settings.title}{kept}", file=sys.stderr)
    found = [
        (cell, measured(settings[cell], options.output) if cell in settings else MeasuredCell())
        for cell in table.cells
    ]
    ran = {
        result.environment
        for _, cell in found
        for result in (cell.joint, cell.alone)
        if result is not None
    }
    about = f"Scale {options.scale}, seed {options.seed}. {' '.join(sorted(ran))}".strip()
    print(markdown(table.lay_out(table.title, found), about))


def _options(description: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data",
        action="append",
        type=_named_folder,
        default=[],
        metavar="NAME=FOLDER",
        help="a data set and where it is; may be repeated. Cells of the others are not measured",
    )
    parser.add_argument("--scale", choices=get_args(ScaleName), default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--cells",
        action="append",
        default=[],
        metavar="PART",
        help="run only cells with this in their name, such as resnet50 or vit_entry_mnist; may be "
        "repeated",
    )
    parser.add_argument("--print-only", action="store_true", help="run nothing")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("paper-tables"),
        help="folder for results; what is done is not run again. All three tables share one",
    )
    return parser.parse_args()


def _named_folder(text: str) -> tuple[str, Path]:
    name, given, folder = text.partition("=")
    if not given or not Path(folder).is_dir():
        raise argparse.ArgumentTypeError(f"expected NAME=FOLDER, found {text!r}")
    return known_data_set(name).name, Path(folder)


def _say_start(training: CellSettings) -> None:
    print(f"running {training.title}", file=sys.stderr)
