"""The error rates of a MINT Model as a table on the terminal."""

from collections.abc import Sequence

from rich.table import Table

from auditkit.cli.output import console
from schemas import CohortMetrics, FlaggedRate, RateEstimate

BALANCED_RATE = 0.05  # the rate at which balanced accuracy is given, fixed in advance

COHORT_WORDS = {
    "told": "D told (members)",
    "silent": "D silent (trained, not told)",
    "told_only": "told only (never trained)",
    "external": "E (told: non-member)",
    "calibration": "C (calibration)",
    "test": "test (never seen)",
}


def print_cohorts(cohorts: Sequence[CohortMetrics]) -> None:
    """Print the error rates per cohort, and the balanced accuracy of the MINT Model."""
    console.print()
    console.print(cohort_table(cohorts))
    told, test = (_flagged(cohorts, name) for name in ("told", "test"))
    if told is not None and test is not None:
        console.print(
            f"MINT balanced accuracy {(told + 1 - test) / 2:.3f} (told against test, threshold "
            f"calibrated on C at FPR {BALANCED_RATE:.0%})"
        )
    console.print()


def _flagged(cohorts: Sequence[CohortMetrics], name: str) -> float | None:
    for metrics in cohorts:
        for flagged in metrics.flagged:
            if metrics.cohort == name and flagged.false_positive_rate == BALANCED_RATE:
                return flagged.flagged.value
    return None


def cohort_table(cohorts: Sequence[CohortMetrics]) -> Table:
    """Return one row per cohort: AUC, rates flagged, own codes found if any, accuracy of M."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("cohort", no_wrap=True)
    table.add_column("n", justify="right")
    table.add_column("AUC", justify="right")
    rates = [flagged.false_positive_rate for flagged in cohorts[0].flagged]
    for rate in rates:
        table.add_column(f"flagged at FPR {rate:.1%}", justify="right")
    provable = [found.false_positive_rate for found in cohorts[0].own_code]
    for rate in provable:
        table.add_column(f"own code at {rate:.0e}", justify="right")
    table.add_column("accuracy of M", justify="right")
    for metrics in cohorts:
        table.add_row(
            COHORT_WORDS[metrics.cohort],
            str(metrics.size),
            "" if metrics.auc is None else f"{metrics.auc:.3f}",
            *_cells(metrics.flagged, rates),
            *_cells(metrics.own_code, provable),
            f"{metrics.task_accuracy.value:.1%}",
        )
    return table


def _cells(measured: Sequence[FlaggedRate], rates: Sequence[float]) -> list[str]:
    """Return one cell per rate; C has no flagged rates, and keeps its columns."""
    found = {flagged.false_positive_rate: flagged.flagged for flagged in measured}
    return [format_rate(found[rate]) if rate in found else "" for rate in rates]


def format_rate(rate: RateEstimate) -> str:
    """Return a proportion with its exact 95 % interval, in percent."""
    return f"{100 * rate.value:.1f} [{100 * rate.low:.1f}, {100 * rate.high:.1f}]"
