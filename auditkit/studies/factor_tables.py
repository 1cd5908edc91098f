"""What the factors study shows: levels, effects with intervals, and what the paper says."""

from collections.abc import Mapping, Sequence
from typing import Literal

from auditkit.studies.differences import Direction, Estimate, mean_over_seeds, paired_difference
from auditkit.studies.factor_cells import AttackFigures, AttackName, CellResult
from auditkit.studies.factors import FACTORS, Cell, FactorName, Level, StudySettings, levels
from schemas.base import Count, Schema

PAPER = (
    "DeAlcala, Mancera, Morales, Fierrez, Tolosana, Ortega-Garcia: A Comprehensive Analysis of "
    "Factors Impacting Membership Inference, CVPR Workshops 2024"
)
# All that we could read of it is the abstract, in the authors' repository
# (DanieldeAlcala/Membership-Inference-Test). It names the factors that affect detection
# substantially, and no direction.
NAMED_BY_PAPER: frozenset[FactorName] = frozenset({"exposure", "dropout", "loss"})

FACTOR_TITLES: dict[FactorName, str] = {
    "exposure": "Exposure: shows of a sample, all groups in one training",
    "batch_size": "Batch size",
    "dropout": "Dropout before M's last layer",
    "loss": "Loss of M",
}
ATTACK_TITLES: dict[AttackName, str] = {
    "maps": "passive MINT on maps",
    "outcome": "passive MINT on the outcome",
    "loss": "loss attack",
}
# What our training guidelines take for granted of the last level against the first.
ASSUMED: dict[FactorName, Direction] = {"exposure": "higher", "dropout": "lower"}
AUC, ACCURACY = "AUC", "accuracy"
SIGNIFICANCE = 0.05


class FigureRow(Schema):
    """One figure of one attack at one level, over seeds."""

    attack: AttackName
    figure: str
    estimate: Estimate


class LevelRow(Schema):
    """One level of a factor."""

    name: str
    members: Count
    trained_accuracy: Estimate
    test_accuracy: Estimate
    figures: tuple[FigureRow, ...]

    def estimate(self, attack: AttackName, figure: str) -> Estimate:
        """Return one figure of one attack."""
        return next(
            row.estimate for row in self.figures if (row.attack, row.figure) == (attack, figure)
        )


class Effect(Schema):
    """How one figure of one attack differs from the first level, paired by seed."""

    name: str
    base: str
    attack: AttackName
    figure: str
    difference: Estimate
    direction: Direction


class FactorTable(Schema):
    """One factor: its levels, its effects, and what they say of the paper and the guidelines."""

    factor: FactorName
    levels: tuple[LevelRow, ...]
    effects: tuple[Effect, ...]
    remarks: tuple[str, ...]


class StudyReport(Schema):
    """Everything a study showed."""

    schema_version: Literal[1] = 1
    settings: StudySettings
    data: str
    environment: str
    training_seconds: float
    tables: tuple[FactorTable, ...]


def factor_tables(
    results: Sequence[CellResult], settings: StudySettings, factors: Sequence[FactorName] = FACTORS
) -> tuple[FactorTable, ...]:
    """Summarise finished cells, one table per factor.

    Raises:
        TooFewSeedsError: fewer than two seeds.
        KeyError: a cell that a factor needs is not among the results.

    """
    by_cell = {result.cell: result for result in results}
    return tuple(_table(factor, levels(settings, factor), by_cell) for factor in factors)


def figure_names(result: CellResult) -> tuple[str, ...]:
    """Return the figures that a result has of every attack."""
    first = result.groups[0].attacks[0]
    return (AUC, ACCURACY, *(rate_name(rate.false_positive_rate) for rate in first.flagged))


def rate_name(false_positive_rate: float) -> str:
    """Return what the true positive rate at a fixed false positive rate is called."""
    return f"TPR at {100 * false_positive_rate:g} %"


def _table(
    factor: FactorName, found: tuple[Level, ...], by_cell: Mapping[Cell, CellResult]
) -> FactorTable:
    base, *others = found
    names = figure_names(by_cell[base.cells[0]])
    pairs = [(attack, name) for attack in ATTACK_TITLES for name in names]
    effects = tuple(
        _effect(level, base, attack, name, by_cell) for level in others for attack, name in pairs
    )
    return FactorTable(
        factor=factor,
        levels=tuple(_row(level, pairs, by_cell) for level in found),
        effects=effects,
        remarks=(_on_paper(factor, effects), *_on_guideline(factor, found[-1].name, effects)),
    )


def _row(
    level: Level, pairs: Sequence[tuple[AttackName, str]], by_cell: Mapping[Cell, CellResult]
) -> LevelRow:
    results = [by_cell[cell] for cell in level.cells]
    members = next(group.members for group in results[0].groups if group.group == level.group)
    return LevelRow(
        name=level.name,
        members=members,
        trained_accuracy=mean_over_seeds([result.trained_accuracy for result in results]),
        test_accuracy=mean_over_seeds([result.test_accuracy for result in results]),
        figures=tuple(
            FigureRow(
                attack=attack,
                figure=name,
                estimate=mean_over_seeds(_values(level, attack, name, by_cell)),
            )
            for attack, name in pairs
        ),
    )


def _effect(
    level: Level, base: Level, attack: AttackName, figure: str, by_cell: Mapping[Cell, CellResult]
) -> Effect:
    difference = paired_difference(
        _values(level, attack, figure, by_cell), _values(base, attack, figure, by_cell)
    )
    return Effect(
        name=level.name,
        base=base.name,
        attack=attack,
        figure=figure,
        difference=difference,
        direction=difference.direction,
    )


def _values(
    level: Level, attack: AttackName, figure: str, by_cell: Mapping[Cell, CellResult]
) -> list[float]:
    return [_value(by_cell[cell].figures(level.group, attack), figure) for cell in level.cells]


def _value(figures: AttackFigures, name: str) -> float:
    if name == AUC:
        return figures.auc
    if name == ACCURACY:
        return figures.accuracy
    rates = {rate_name(rate.false_positive_rate): rate.flagged.value for rate in figures.flagged}
    return rates[name]


def _on_paper(factor: FactorName, effects: Sequence[Effect]) -> str:
    tested = [effect for effect in effects if effect.figure == AUC]
    strongest = min(tested, key=lambda effect: effect.difference.p_value)
    p_value = min(1.0, strongest.difference.p_value * len(tested))
    shown = p_value <= SIGNIFICANCE
    found = (
        f"the strongest of {len(tested)} effects on the AUC is {strongest.name} against "
        f"{strongest.base}, {ATTACK_TITLES[strongest.attack]}, p = {p_value:.2g} after Bonferroni"
    )
    if factor in NAMED_BY_PAPER:
        named = "the paper's abstract names it among what substantially affects detection"
        return (
            f"Agrees: {named}, without a direction; {found}."
            if shown
            else f"NOT BORNE OUT: {named}; here {found}."
        )
    unnamed = "the paper's abstract does not name it among what substantially affects detection"
    return f"DISAGREES: {unnamed}; {found}." if shown else f"No disagreement: {unnamed}; {found}."


def _on_guideline(factor: FactorName, last: str, effects: Sequence[Effect]) -> tuple[str, ...]:
    if factor not in ASSUMED:
        return ()
    found = [effect for effect in effects if effect.figure == AUC and effect.name == last]
    words = "; ".join(
        f"{ATTACK_TITLES[effect.attack]}: {_verdict(effect.direction, ASSUMED[factor])}"
        for effect in found
    )
    taken = f"The guidelines take the AUC to be {ASSUMED[factor]} at {last} than at {found[0].base}"
    return (f"{taken}. {words}.",)


def _verdict(direction: Direction, assumed: Direction) -> str:
    if direction == assumed:
        return "borne out"
    return "not shown" if direction == "not shown" else "CONTRADICTED"
