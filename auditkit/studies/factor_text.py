"""The factors study as text: tables that a terminal and a document can both show."""

from collections.abc import Sequence

from auditkit.studies.differences import Estimate
from auditkit.studies.factor_tables import (
    ACCURACY,
    ATTACK_TITLES,
    AUC,
    FACTOR_TITLES,
    PAPER,
    FactorTable,
    StudyReport,
)
from auditkit.studies.tables import TextTable, markdown_table

HEADING = "What makes members easy or hard to tell"


def text_tables(table: FactorTable) -> tuple[TextTable, ...]:
    """Return a factor's levels, and its effects on the AUC and on the strictest reachable TPR."""
    figures = list(dict.fromkeys(row.figure for row in table.levels[0].figures))
    rates = [figure for figure in figures if figure not in {AUC, ACCURACY}]
    shown = [AUC, *rates[-1:]]
    return (_levels(table, figures), *(_effects(table, figure) for figure in shown))


def markdown(report: StudyReport) -> str:
    """Return the whole report as one document."""
    lines = [f"# {HEADING}", *(f"\n{paragraph}" for paragraph in _preface(report))]
    for table in report.tables:
        lines += ["", f"## {FACTOR_TITLES[table.factor]}"]
        for text in text_tables(table):
            lines += ["", f"**{text.title}**", "", *markdown_table(text)]
        lines += ["", *(f"- {remark}" for remark in table.remarks)]
    return "\n".join(lines) + "\n"


def _preface(report: StudyReport) -> tuple[str, ...]:
    settings, sizes = report.settings, report.settings.sizes
    ran = (
        f"`auditkit study factors --scale {settings.scale}` on {report.data}; "
        f"{report.environment}. {settings.seeds} seeds, {report.training_seconds:.0f} s training."
    )
    protocol = (
        f"{settings.architecture} trained alone. D = {sizes.told}, of which half fits the passive "
        f"MINT Models and half is judged; E = {sizes.external} strangers to fit on, "
        f"C = {sizes.calibration} for thresholds, {settings.test} fresh samples as strangers."
    )
    reading = (
        "Means over seeds, in percent but for the AUC. Differences are paired by seed, with "
        "Student's 95 % intervals; one interval in twenty excludes 0 by chance. Accuracy is "
        "balanced, at the attack's own threshold; the thresholds of the TPR come from C."
    )
    return ran, protocol, reading, f"Compared with: {PAPER}."


def _levels(table: FactorTable, figures: Sequence[str]) -> TextTable:
    header = ("level", "n", "M on D", "M on fresh", "attack", *figures)
    rows = []
    for row in table.levels:
        of_level: tuple[str, ...] = (
            row.name,
            str(row.members),
            _percent(row.trained_accuracy),
            _percent(row.test_accuracy),
        )
        for attack, title in ATTACK_TITLES.items():
            numbers = (_number(row.estimate(attack, figure), figure) for figure in figures)
            rows.append((*of_level, title, *numbers))
            of_level = ("",) * len(of_level)
    return TextTable("Levels", header, tuple(rows))


def _effects(table: FactorTable, figure: str) -> TextTable:
    found = [effect for effect in table.effects if effect.figure == figure]
    base = found[0].base
    rows = []
    for name in dict.fromkeys(effect.name for effect in found):
        by_attack = {effect.attack: effect for effect in found if effect.name == name}
        cells = (
            f"{_difference(by_attack[attack].difference, figure)} {by_attack[attack].direction}"
            for attack in ATTACK_TITLES
        )
        rows.append((f"{name} against {base}", *cells))
    return TextTable(
        f"Effect on the {figure}{'' if figure == AUC else ', in points'}",
        ("level", *ATTACK_TITLES.values()),
        tuple(rows),
    )


def _difference(difference: Estimate, figure: str) -> str:
    if figure == AUC:
        return f"{difference.mean:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"
    mean, low, high = (100 * v for v in (difference.mean, difference.low, difference.high))
    return f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]"


def _number(estimate: Estimate, figure: str) -> str:
    return f"{estimate.mean:.3f}" if figure == AUC else _percent(estimate)


def _percent(estimate: Estimate) -> str:
    return f"{100 * estimate.mean:.1f}"
