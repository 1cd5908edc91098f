"""A comparison as text and as a picture: what `auditkit evaluate` writes."""

from collections.abc import Sequence
from itertools import groupby

import numpy as np

from auditkit.mint.metrics import rate
from auditkit.reports.plots import Axis, Frame, Line, line_chart
from auditkit.studies.comparison import ALONE, ComparisonSettings, MethodFigures
from auditkit.studies.tables import TextTable, markdown_table
from schemas import CohortName, FlaggedRate, RateEstimate

MEMBERS: tuple[CohortName, ...] = ("told", "silent", "told_only")
STRANGERS: tuple[CohortName, ...] = ("external", "test")
COHORT_TITLES: dict[CohortName, str] = {
    "told": "told",
    "silent": "silent",
    "told_only": "told only",
    "external": "E",
    "calibration": "C",
    "test": "fresh",
}
LEAST_ROC_RATE = 1e-4
# Okabe and Ito's colours, which people with any kind of colour vision can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("", "6 3", "2 2")
MEBIBYTE = 2**20


def comparison_tables(results: Sequence[MethodFigures]) -> tuple[TextTable, ...]:
    """Return what every method says of told members, and of every cohort at each rate."""
    methods = _by_method(results)
    rates = sorted(
        {flagged.false_positive_rate for entry in results for flagged in _told(entry)},
        reverse=True,
    )
    cohorts = [_cohort_table(methods, nominal) for nominal in rates]
    return (_summary(methods), *cohorts)


def markdown(settings: ComparisonSettings, results: Sequence[MethodFigures], ran: str) -> str:
    """Return the whole comparison as one document."""
    sizes, training = settings.sizes, settings.training
    lines = [
        "# Membership: every method on the same split",
        "",
        ran,
        "",
        f"M: {training.model.architecture}, {training.epochs} epochs, augmentation "
        f"{training.augmentation}. D = {sizes.told} told and {sizes.silent} silent, "
        f"{sizes.told_only} told only, E = {sizes.external}, C = {sizes.calibration}. "
        f"{len(settings.seeds)} seeds; each draws cohorts, weights and batches anew. Thresholds "
        "come from C alone, except for own codes, whose rates are provable and need none. "
        "Shares in percent with exact (Clopper-Pearson) 95 % intervals over all seeds' samples; "
        "the AUC is against fresh samples, with the smallest and largest of the seeds.",
    ]
    for table in comparison_tables(results):
        lines += ["", f"**{table.title}**", "", *markdown_table(table)]
    return "\n".join(lines) + "\n"


def roc_chart(results: Sequence[MethodFigures]) -> str:
    """Return the log-log ROC of told members against fresh samples, first seed, as SVG."""
    first = [entry for entry in results if entry.seed == results[0].seed]
    axes = [
        Axis(label, LEAST_ROC_RATE, 1.0, "log")
        for label in ("false-positive rate", "true-positive rate")
    ]
    lines = []
    for index, entry in enumerate(first):
        points = np.asarray(entry.roc, dtype=np.float64)
        colour, dash = COLOURS[index % len(COLOURS)], DASHES[index // len(COLOURS) % len(DASHES)]
        lines.append(Line(entry.title, points[:, 0], points[:, 1], colour, dash))
    frame = Frame(
        "methods-roc",
        "ROC of every method",
        "True-positive rate of told members against the false-positive rate of fresh samples, "
        "both logarithmic.",
        width=760.0,
        height=520.0,
    )
    return line_chart(frame, axes[0], axes[1], lines)


def _by_method(results: Sequence[MethodFigures]) -> list[list[MethodFigures]]:
    order = {entry.method: index for index, entry in reversed(list(enumerate(results)))}
    ordered = sorted(results, key=lambda entry: (order[entry.method], entry.seed))
    return [list(group) for _, group in groupby(ordered, key=lambda entry: entry.method)]


def _summary(methods: Sequence[Sequence[MethodFigures]]) -> TextTable:
    header = (
        "method",
        "M trained",
        "audited accuracy",
        "AUC told",
        "AUC silent",
        "TPR at 1 %",
        "TPR at 0.1 %",
        "TPR at 10^-6",
        "training s",
        "scoring s",
        "peak MiB",
    )
    rows = []
    for entries in methods:
        first = entries[0]
        rows.append(
            (
                first.title,
                "alone" if first.audited_model == ALONE else "jointly",
                _percent(_pooled([entry.audited_accuracy for entry in entries])),
                _auc(entries, "told"),
                _auc(entries, "silent"),
                *(_share(entries, "told", nominal) for nominal in (0.01, 0.001, 1e-6)),
                f"{np.mean([entry.training_seconds for entry in entries]):.0f}",
                f"{np.mean([entry.scoring_seconds for entry in entries]):.1f}",
                f"{max(entry.peak_bytes for entry in entries) / MEBIBYTE:.0f}",
            )
        )
    return TextTable("Told members", header, tuple(rows))


def _cohort_table(methods: Sequence[Sequence[MethodFigures]], nominal: float) -> TextTable:
    shown = (*MEMBERS, *STRANGERS)
    rows = tuple(
        (entries[0].title, *(_share(entries, cohort, nominal) for cohort in shown))
        for entries in methods
        if any(flagged.false_positive_rate == nominal for flagged in _told(entries[0]))
    )
    header = ("method", *(COHORT_TITLES[cohort] for cohort in shown))
    return TextTable(f"Called member at a false-positive rate of {nominal:g}", header, rows)


def _told(entry: MethodFigures) -> tuple[FlaggedRate, ...]:
    found = entry.cohort("told")
    return () if found is None else found.flagged


def _share(entries: Sequence[MethodFigures], cohort: CohortName, nominal: float) -> str:
    found = [
        flagged.flagged
        for entry in entries
        if (figures := entry.cohort(cohort)) is not None
        for flagged in figures.flagged
        if flagged.false_positive_rate == nominal
    ]
    return _percent(_pooled(found)) if found else ""


def _auc(entries: Sequence[MethodFigures], cohort: CohortName) -> str:
    found = [
        figures.auc
        for entry in entries
        if (figures := entry.cohort(cohort)) is not None and figures.auc is not None
    ]
    if not found:
        return ""
    mean = f"{np.mean(found):.3f}"
    return mean if len(found) == 1 else f"{mean} [{min(found):.3f}, {max(found):.3f}]"


def _pooled(rates: Sequence[RateEstimate]) -> RateEstimate:
    return rate(sum(r.successes for r in rates), sum(r.trials for r in rates))


def _percent(found: RateEstimate) -> str:
    return f"{100 * found.value:.2f} [{100 * found.low:.2f}, {100 * found.high:.2f}]"
