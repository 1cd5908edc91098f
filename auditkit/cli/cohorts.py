"""The error rates of a MINT Model as a table on the terminal."""

from collections.abc import Sequence

from rich.table import Table

from schemas import CohortMetrics, RateEstimate

COHORT_WORDS = {
    "told": "D told (members)",
    "silent": "D silent (trained, not told)",
    "told_only": "told only (never trained)",
    "external": "E (told: non-member)",
    "calibration": "C (calibration)",
    "test": "test (never seen)",
}


def cohort_table(cohorts: Sequence[CohortMetrics]) -> Table:
    """Return one row per cohort: AUC, rate flagged at each nominal rate, accuracy of M."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("cohort", no_wrap=True)
    table.add_column("n", justify="right")
    table.add_column("AUC", justify="right")
    rates = [flagged.false_positive_rate for flagged in cohorts[0].flagged]
    for rate in rates:
        table.add_column(f"flagged at FPR {rate:.1%}", justify="right")
    table.add_column("accuracy of M", justify="right")
    for metrics in cohorts:
        table.add_row(
            COHORT_WORDS[metrics.cohort],
            str(metrics.size),
            "" if metrics.auc is None else f"{metrics.auc:.3f}",
            *(format_rate(flagged.flagged) for flagged in metrics.flagged),
            f"{metrics.task_accuracy.value:.1%}",
        )
    return table


def format_rate(rate: RateEstimate) -> str:
    """Return a proportion with its exact 95 % interval, in percent."""
    return f"{100 * rate.value:.1f} [{100 * rate.low:.1f}, {100 * rate.high:.1f}]"
