"""Running cells of the paper's tables one by one, and keeping what is done."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from auditkit.studies.cells import CellResult, CellSettings, measure_cell
from auditkit.studies.kept import file_name, keep, read_kept, run_apart


@dataclass(frozen=True)
class TrainingDone:
    """One finished training of a running table."""

    settings: CellSettings
    kept: bool  # from an earlier run
    done: int
    total: int


@dataclass(frozen=True)
class MeasuredCell:
    """What is known of one cell; None: not measured."""

    joint: CellResult | None = None
    alone: CellResult | None = None


def trainings(cells: Sequence[CellSettings]) -> tuple[CellSettings, ...]:
    """Return both trainings of every cell, each once: setups share M alone."""
    both = (training for cell in cells for training in (cell.alone(), cell))
    return tuple({training.digest: training for training in both}.values())


def run(
    cells: Sequence[CellSettings],
    folder: Path,
    on_start: Callable[[CellSettings], None] = lambda _training: None,
) -> Iterator[TrainingDone]:
    """Run every training that `folder` does not hold yet, each in a process of its own.

    Args:
        cells: joint trainings; those of M alone are added.
        folder: where results are kept.
        on_start: told about each training that is not kept, before it is run.

    Raises:
        PartKilledError: a process was killed.
        StudyError, MintError, DataError: see `measure_cell`; finished trainings are kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = trainings(cells)
    for count, training in enumerate(wanted, start=1):
        kept = path_of(training, folder).exists()
        if not kept:
            on_start(training)
            run_apart(training.title, run_one, training, folder)
        yield TrainingDone(training, kept, count, len(wanted))


def run_one(training: CellSettings, folder: Path) -> None:
    """Run one training in this process, and keep its result."""
    keep(path_of(training, folder), measure_cell(training))


def measured(cell: CellSettings, folder: Path) -> MeasuredCell:
    """Return what `folder` holds of a cell.

    Raises:
        CellFileError: a kept result is damaged.
    """
    return MeasuredCell(_kept(cell, folder), _kept(cell.alone(), folder))


def path_of(training: CellSettings, folder: Path) -> Path:
    """Return where a training's result is kept."""
    return folder / file_name(training.title, training.digest)


def _kept(training: CellSettings, folder: Path) -> CellResult | None:
    path = path_of(training, folder)
    return read_kept(path, CellResult, training.digest) if path.exists() else None
