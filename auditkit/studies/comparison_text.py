"""A comparison as text and as a picture: what `auditkit evaluate` writes."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from auditkit.reports.plots import Axis, Frame, Line, line_chart
from auditkit.studies.comparison import ALONE, Family, MethodFigures
from auditkit.studies.comparison_run import Comparison
from auditkit.studies.set_rates import SetFalseAlarms, SetPower, SetRates
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
FAMILY_TITLES: dict[Family, str] = {
    "codes": "Keyed codes",
    "active": "Active MINT",
    "passive": "Passive MINT",
    "attack": "Attacks",
}
TOLD_RATES = (0.01, 0.001, 1e-6)
LEAST_ROC_RATE = 1e-4
# Okabe and Ito's colours, which people with any kind of colour vision can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("", "6 3", "2 2")
MEBIBYTE = 2**20
REFUTED_MARK = "*"
REFUTED_NOTE = f"{REFUTED_MARK} more than the announced rate allows (p < 0.001)"


@dataclass(frozen=True)
class SeedsShare:
    """A share over several seeds: their mean, and how far their own exact intervals reach.

    All samples of a seed share one M and one threshold, so an interval over the samples of all
    seeds together would be far too narrow.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Style:
    """How numbers are written."""

    share: Callable[[RateEstimate | SeedsShare], str]
    auc: Callable[[Sequence[float]], str]


def over_seeds(rates: Sequence[RateEstimate]) -> SeedsShare:
    """Return what several seeds say of one share."""
    return SeedsShare(
        value=float(np.mean([rate.value for rate in rates])),
        low=min(rate.low for rate in rates),
        high=max(rate.high for rate in rates),
    )


def full_share(found: RateEstimate | SeedsShare) -> str:
    """Return a share in percent with its interval, both with two decimals."""
    return f"{100 * found.value:.2f} [{100 * found.low:.2f}, {100 * found.high:.2f}]"


def short_share(found: RateEstimate | SeedsShare) -> str:
    """Return a share in percent with its interval, rounded outwards, in at most 17 characters.

    Near 0 % and 100 % there is one decimal more, for there it matters, and only none and all are
    shown as 0 and 100.
    """
    value, low, high = (100 * part for part in (found.value, found.low, found.high))
    decimals = _decimals(value)
    while 0 < value < 100 and round(value, decimals) in {0, 100}:
        decimals += 1
    return (
        f"{_plain(value, decimals)} "
        f"({_plain(_down(low), _decimals(low) - 1)}–{_plain(_up(high), _decimals(high) - 1)})"
    )


def full_auc(values: Sequence[float]) -> str:
    """Return the mean over seeds, with the smallest and the largest."""
    mean = f"{np.mean(values):.3f}"
    return mean if len(values) == 1 else f"{mean} [{min(values):.3f}, {max(values):.3f}]"


def short_auc(values: Sequence[float]) -> str:
    """Return the mean over seeds."""
    return f"{np.mean(values):.3f}"


FULL = Style(full_share, full_auc)
SHORT = Style(short_share, short_auc)


def comparison_tables(found: Comparison, style: Style = FULL) -> tuple[TextTable, ...]:
    """Return what the methods say of told members, of every cohort and of sets, and their cost."""
    methods = _by_method(found.methods)
    rates = sorted(
        {flagged.false_positive_rate for entry in found.methods for flagged in _told(entry)},
        reverse=True,
    )
    return (
        _told_table(methods, style),
        *(_cohort_table(methods, nominal, style) for nominal in rates),
        *_set_tables(found.sets, style),
        _cost_table(methods, style),
    )


def markdown(found: Comparison) -> str:
    """Return the whole comparison as one document."""
    settings, sizes, training = found.settings, found.settings.sizes, found.settings.training
    protocol = (
        f"M: {training.model.architecture}, {training.epochs} epochs, augmentation "
        f"{training.augmentation}. D = {sizes.told} told and {sizes.silent} silent, "
        f"{sizes.told_only} told only, E = {sizes.external}, C = {sizes.calibration}. "
        f"{len(settings.seeds)} seeds; each draws cohorts, weights and batches anew. Thresholds "
        "come from C alone, except for own codes, whose rates are provable and need none. "
        "Shares in percent: the mean over seeds, with the lowest and the highest end of the seeds' "
        "exact (Clopper-Pearson) 95 % intervals; the AUC is against fresh samples, with the "
        "smallest and largest of the seeds. "
        "Nothing here is evidence: no auditor watched."
    )
    lines = ["# Membership: every method on the same split", "", found.environment, "", protocol]
    for table in comparison_tables(found):
        lines += ["", f"**{table.title}**", "", *markdown_table(table)]
        lines += ["", table.note] if table.note else []
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
    families = list(FAMILY_TITLES)
    first: dict[str, int] = {}
    for index, entry in enumerate(results):
        first.setdefault(entry.method, index)

    def place(entry: MethodFigures) -> tuple[int, int, int]:
        return families.index(entry.family), first[entry.method], entry.seed

    ordered = sorted(results, key=place)
    return [list(group) for _, group in groupby(ordered, key=lambda entry: entry.method)]


def _families(methods: Sequence[Sequence[MethodFigures]]) -> tuple[str, ...]:
    return tuple(FAMILY_TITLES[entries[0].family] for entries in methods)


def _told_table(methods: Sequence[Sequence[MethodFigures]], style: Style) -> TextTable:
    rows = tuple(
        (
            entries[0].title,
            _auc(entries, "told", style),
            _auc(entries, "silent", style),
            *(_share(entries, "told", nominal, style) for nominal in TOLD_RATES),
        )
        for entries in methods
    )
    rates = (f"TPR at {_percent(nominal)}" for nominal in TOLD_RATES)
    header = ("method", "AUC told", "AUC silent", *rates)
    return TextTable("Told members that are found", header, rows, _families(methods))


def _cost_table(methods: Sequence[Sequence[MethodFigures]], style: Style) -> TextTable:
    rows = tuple(
        (
            entries[0].title,
            "alone" if entries[0].audited_model == ALONE else "jointly",
            style.share(over_seeds([entry.audited_accuracy for entry in entries])),
            f"{np.mean([entry.training_seconds for entry in entries]):.0f}",
            f"{np.mean([entry.scoring_seconds for entry in entries]):.1f}",
            f"{max(entry.peak_bytes for entry in entries) / MEBIBYTE:.0f}",
        )
        for entries in methods
    )
    header = ("method", "M trained", "accuracy of M", "training s", "scoring s", "peak MiB")
    return TextTable("The Audited Model, and what it cost", header, rows, _families(methods))


def _cohort_table(
    methods: Sequence[Sequence[MethodFigures]], nominal: float, style: Style
) -> TextTable:
    shown = (*MEMBERS, *STRANGERS)
    reaching = [
        entries
        for entries in methods
        if any(flagged.false_positive_rate == nominal for flagged in _told(entries[0]))
    ]
    rows = tuple(
        (entries[0].title, *(_share(entries, cohort, nominal, style) for cohort in shown))
        for entries in reaching
    )
    header = ("method", *(COHORT_TITLES[cohort] for cohort in shown))
    title = f"Called member at a false-positive rate of {_percent(nominal)}"
    return TextTable(title, header, rows, _families(reaching))


def _set_tables(sets: Sequence[SetRates], style: Style) -> tuple[TextTable, ...]:
    titles = {
        "undeclared": "Undeclared-data test: sets of n that raise the alarm, announced rate",
        "declared": "Sets of n own codes that are found, provable false-positive rate",
    }
    tables = []
    for evidence, title in titles.items():
        found = [entry for entry in sets if entry.evidence == evidence]
        if found:
            tables.append(_set_table(f"{title} {_percent(found[0].rate)}", found, style))
    return tuple(tables)


def _set_table(title: str, sets: Sequence[SetRates], style: Style) -> TextTable:
    sizes = sorted({power.size for entry in sets for power in entry.power})
    rows, groups = [], []
    by_method = dict.fromkeys((entry.title, entry.audited_model) for entry in sets)
    for name, audited in by_method:
        entries = [entry for entry in sets if (entry.title, entry.audited_model) == (name, audited)]
        for kind, cells in _set_rows(entries, sizes, style):
            rows.append((kind, *cells))
            groups.append(f"{name}; M {'alone' if audited == ALONE else f'with {audited}'}")
    header = ("sets", *(f"n = {size}" for size in sizes))
    note = (
        "Resampled sets are drawn from the cohort again and again, and tell about this cohort; "
        "disjoint sets use every sample once, and tell about fresh samples as well. "
        f"{REFUTED_NOTE}."
    )
    return TextTable(title, header, tuple(rows), tuple(groups), note)


def _set_rows(
    entries: Sequence[SetRates], sizes: Sequence[int], style: Style
) -> list[tuple[str, list[str]]]:
    inserted = COHORT_TITLES[entries[0].inserted]
    powers = [power for entry in entries for power in entry.power]
    alarms = [alarm for entry in entries for alarm in entry.false_alarms]
    return [
        (f"{inserted}, resampled", [_power(powers, n, "resampled", style) for n in sizes]),
        (f"{inserted}, disjoint", [_power(powers, n, "disjoint", style) for n in sizes]),
        *(
            (
                f"{COHORT_TITLES[cohort]}: false alarms",
                [
                    _alarms([a for a in alarms if (a.cohort, a.size) == (cohort, n)], style)
                    for n in sizes
                ],
            )
            for cohort in dict.fromkeys(alarm.cohort for alarm in alarms)
        ),
    ]


def _power(powers: Sequence[SetPower], size: int, kind: str, style: Style) -> str:
    found = [getattr(power, kind) for power in powers if power.size == size]
    return style.share(over_seeds(found)) if found else ""


def _alarms(alarms: Sequence[SetFalseAlarms], style: Style) -> str:
    if not alarms:
        return ""
    mark = REFUTED_MARK if any(alarm.refuted for alarm in alarms) else ""
    return style.share(over_seeds([alarm.flagged for alarm in alarms])) + mark


def _told(entry: MethodFigures) -> tuple[FlaggedRate, ...]:
    found = entry.cohort("told")
    return () if found is None else found.flagged


def _share(
    entries: Sequence[MethodFigures], cohort: CohortName, nominal: float, style: Style
) -> str:
    found = [
        flagged.flagged
        for entry in entries
        if (figures := entry.cohort(cohort)) is not None
        for flagged in figures.flagged
        if flagged.false_positive_rate == nominal
    ]
    return style.share(over_seeds(found)) if found else ""


def _auc(entries: Sequence[MethodFigures], cohort: CohortName, style: Style) -> str:
    found = [
        figures.auc
        for entry in entries
        if (figures := entry.cohort(cohort)) is not None and figures.auc is not None
    ]
    return style.auc(found) if found else ""


def _percent(share: float) -> str:
    exponent = math.floor(math.log10(share))
    return f"{100 * share:g} %" if exponent >= -4 else f"10^{exponent}"


def _decimals(percent: float) -> int:
    return 1 if 1 <= percent <= 99 else 2


def _plain(percent: float, decimals: int) -> str:
    text = f"{percent:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _down(percent: float) -> float:
    scale = 10.0 ** (_decimals(percent) - 1)
    return math.floor(percent * scale) / scale


def _up(percent: float) -> float:
    scale = 10.0 ** (_decimals(percent) - 1)
    return math.ceil(percent * scale) / scale
