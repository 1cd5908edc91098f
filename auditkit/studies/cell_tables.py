"""The paper's three tables in our protocol, as text; cells that were not measured say so."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from auditkit.studies.cell_run import MeasuredCell
from auditkit.studies.cells import ACTIVE, CellMethod, CellResult
from auditkit.studies.comparison_text import full_share, short_share
from auditkit.studies.presets import EXPERIMENTS, Cell
from auditkit.studies.tables import TextTable, markdown_table
from schemas import CohortName, RateEstimate

TableName = Literal["table1", "table2", "table3"]
Measured = Sequence[tuple[Cell, MeasuredCell]]
Share = Callable[[RateEstimate], str]

NOT_MEASURED = "not measured"
OUT_OF_REACH = "C too small"
METHOD_TITLES = MappingProxyType(
    {
        ACTIVE: "Active",
        "passive-vanilla": "Vanilla",
        "passive-cnn": "CNN",
        "passive-outcome": "outcome",
    }
)
FIGURES = (
    "accuracy of M",
    "MINT accuracy",
    "AUC",
    "TPR at 1 %",
    "TPR at 0.1 %",
    "silent at 1 %",
    "told only at 1 %",
)
MEBIBYTE = 2**20
NOTE = (
    "Shares in percent with exact (Clopper-Pearson) 95 % intervals. Every threshold comes from C "
    "alone: that of the balanced accuracy (told members against fresh samples) at 5 %. Silent "
    "samples train M and are hidden from T; told-only samples are told to T and never train M. "
    "Memory is that of the training's process, and of the accelerator where one was used."
)


@dataclass(frozen=True)
class PaperTable:
    """One table of the paper, as far as its summaries tell what it is, and ours in its place."""

    name: TableName
    title: str
    cells: tuple[Cell, ...]
    lay_out: Callable[[str, Measured], TextTable]


def setups_table(title: str, cells: Measured) -> TextTable:
    """Return one row per cell: the audited accuracy, T's power, the controls and the cost."""
    header = (
        "setup",
        "accuracy of M+",
        "M alone",
        "MINT accuracy",
        "AUC",
        "TPR at 1 %",
        "TPR at 0.1 %",
        "silent at 1 %",
        "told only at 1 %",
        "epochs",
        "seconds",
        "MiB",
    )
    rows = tuple(_active_row(cell, found, len(header)) for cell, found in cells)
    groups = tuple(f"{cell.data_set}, {cell.architecture}" for cell, _ in cells)
    return TextTable(title, header, rows, groups, NOTE)


def methods_table(title: str, cells: Measured) -> TextTable:
    """Return Active and Passive MINT side by side, one row per method and cell."""
    rows: list[tuple[str, ...]] = []
    groups: list[str] = []
    for cell, found in cells:
        own = _method_rows(found)
        rows += own
        groups += [f"{cell.data_set}, {cell.architecture}"] * len(own)
    return TextTable(title, ("method", *FIGURES), tuple(rows), tuple(groups), NOTE)


def cell_table(title: str, found: MeasuredCell) -> TextTable:
    """Return one cell for a terminal: a column per method, a row per figure."""
    methods = _measured_methods(found)
    columns = [
        (*_figures(method, short_share), *_cost(result, method)) for _, result, method in methods
    ]
    rows = tuple(zip((*FIGURES, "epochs", "seconds", "MiB"), *columns, strict=True))
    return TextTable(title, ("", *(name for name, _, _ in methods)), rows, note=NOTE)


PAPER_TABLES: dict[TableName, PaperTable] = {
    "table1": PaperTable(
        "table1",
        "Where should T read: Entry, Middle or Output?",
        EXPERIMENTS["E1"].cells,
        setups_table,
    ),
    "table2": PaperTable(
        "table2",
        "Active MINT in the Entry setup: every architecture on every data set",
        EXPERIMENTS["E2"].cells,
        setups_table,
    ),
    "table3": PaperTable(
        "table3",
        "Active MINT against Passive MINT in the Entry setup",
        EXPERIMENTS["E2"].cells,
        methods_table,
    ),
}


def markdown(table: TextTable, ran: str) -> str:
    """Return a table as a document that can be committed."""
    return "\n".join([f"# {table.title}", "", ran, "", *markdown_table(table), "", table.note, ""])


def _active_row(cell: Cell, found: MeasuredCell, width: int) -> tuple[str, ...]:
    active = None if found.joint is None else found.joint.method(ACTIVE)
    if found.joint is None or active is None:
        return (cell.setup, NOT_MEASURED, *[""] * (width - 2))
    accuracy, *rest = _figures(active, full_share)
    return (cell.setup, accuracy, _accuracy_alone(found), *rest, *_cost(found.joint, active))


def _method_rows(found: MeasuredCell) -> list[tuple[str, ...]]:
    blank = ("",) * (len(FIGURES) - 1)
    rows = [(name, *_figures(method, full_share)) for name, _, method in _measured_methods(found)]
    if found.joint is None:
        rows.insert(0, (METHOD_TITLES[ACTIVE], NOT_MEASURED, *blank))
    if found.alone is None:
        rows.append(("Passive", NOT_MEASURED, *blank))
    return rows


def _measured_methods(found: MeasuredCell) -> list[tuple[str, CellResult, CellMethod]]:
    return [
        (title, result, method)
        for name, title in METHOD_TITLES.items()
        for result in (found.joint, found.alone)
        if result is not None and (method := result.method(name)) is not None
    ]


def _accuracy_alone(found: MeasuredCell) -> str:
    if found.alone is None:
        return NOT_MEASURED
    return full_share(found.alone.methods[0].figures.audited_accuracy)


def _figures(method: CellMethod, share: Share) -> tuple[str, ...]:
    wanted: tuple[tuple[CohortName, float], ...] = (
        ("told", 0.01),
        ("told", 0.001),
        ("silent", 0.01),
        ("told_only", 0.01),
    )
    return (
        share(method.figures.audited_accuracy),
        f"{100 * method.balanced_accuracy:.2f}",
        _auc(method),
        *(_flagged(method, cohort, nominal, share) for cohort, nominal in wanted),
    )


def _flagged(method: CellMethod, cohort: CohortName, nominal: float, share: Share) -> str:
    figures = method.figures.cohort(cohort)
    found = () if figures is None else figures.flagged
    rate = next((entry.flagged for entry in found if entry.false_positive_rate == nominal), None)
    return OUT_OF_REACH if rate is None else share(rate)


def _auc(method: CellMethod) -> str:
    told = method.figures.cohort("told")
    return "" if told is None or told.auc is None else f"{told.auc:.3f}"


def _cost(result: CellResult, method: CellMethod) -> tuple[str, ...]:
    memory = f"{method.figures.peak_bytes / MEBIBYTE:.0f}"
    if result.device_peak_bytes:
        memory += f" + {result.device_peak_bytes / MEBIBYTE:.0f}"
    return (str(result.epochs), f"{method.figures.training_seconds:.0f}", memory)
