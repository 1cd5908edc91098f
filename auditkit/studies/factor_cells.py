"""Training, measuring and keeping the cells of the factors study."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from auditkit.data.pools import Pool
from auditkit.evidence import canonical
from auditkit.evidence.derivation import Indices, Split, StepPlan, derive_split
from auditkit.mint.attacks import loss_scores
from auditkit.mint.metrics import auc, flagged_rates, share
from auditkit.mint.passive import (
    PassiveConfig,
    fitting_split,
    outcome_features,
    read_maps,
    train_passive,
)
from auditkit.studies.errors import CellFileError
from auditkit.studies.exposure import exposed_steps, exposure_groups
from auditkit.studies.factors import (
    EVERY_MEMBER,
    FACTORS,
    Cell,
    FactorName,
    StudySettings,
    group_names,
    plan,
    training_config,
)
from auditkit.studies.trial import Trial, train_trial
from schemas import CohortName, FlaggedRate, TrainingConfig
from schemas.base import Count, FiniteFloat, Fraction, Schema, Sha256

AttackName = Literal["maps", "outcome", "loss"]
Scores = NDArray[np.float64]
Features = NDArray[np.float32]

ATTACKS: tuple[AttackName, ...] = ("maps", "outcome", "loss")
COHORTS: tuple[CohortName, ...] = ("told", "external", "calibration", "test")
# Half of D fits the passive MINT Models; what is reported is the other half.
FITTED_SHARE = 0.5
CELLS_FOLDER = "cells"
DIGEST_CHARACTERS = 12  # in file names; the whole digest is in the file


class AttackFigures(Schema):
    """One attack on one group of held-out members against fresh samples."""

    attack: AttackName
    auc: Fraction
    accuracy: Fraction = Field(
        description="balanced, at the attack's own threshold: a logit of 0 for passive MINT, the "
        "mean loss of the fitted members for the loss attack (Yeom et al., 2018)"
    )
    flagged: tuple[FlaggedRate, ...] = Field(description="TPR at thresholds from C")


class GroupFigures(Schema):
    """All attacks on one group of held-out members."""

    group: str
    members: Count
    attacks: tuple[AttackFigures, ...]


class CellResult(Schema):
    """What one training showed."""

    schema_version: Literal[1] = 1
    digest: Sha256 = Field(description="of the settings, the cell and the data")
    cell: Cell
    trained_accuracy: Fraction = Field(description="of M on D")
    test_accuracy: Fraction = Field(description="of M on fresh samples")
    seconds: FiniteFloat = Field(description="of the training alone")
    groups: tuple[GroupFigures, ...]

    def figures(self, group: str, attack: AttackName) -> AttackFigures:
        """Return the figures of one attack on one group of members."""
        found = next(entry for entry in self.groups if entry.group == group)
        return next(entry for entry in found.attacks if entry.attack == attack)


@dataclass(frozen=True)
class CellDone:
    """One finished cell of a running study."""

    result: CellResult
    kept: bool  # from an earlier run
    done: int
    total: int


@dataclass(frozen=True)
class _Scored:
    """One attack's scores of every cohort, and the score from which it says member."""

    cohorts: Mapping[CohortName, Scores]
    threshold: float


def run_cells(
    settings: StudySettings,
    pool: Pool,
    test: Pool,
    folder: Path,
    factors: Sequence[FactorName] = FACTORS,
) -> Iterator[CellDone]:
    """Run every cell that `folder` does not hold yet, and yield them all in a fixed order.

    A result is kept as soon as it is there, under a name that covers settings, cell and data: a
    study that was stopped goes on, and changed settings never meet old results.

    Raises:
        CellFileError: a kept result is damaged.
        NonFiniteLossError, MintError: see `measure_cell`.

    """
    cells = plan(settings, factors)
    data = data_digest(pool, test)
    for number, cell in enumerate(cells, start=1):
        digest = _cell_digest(cell, settings, data)
        path = folder / CELLS_FOLDER / f"{cell.title}_{digest[:DIGEST_CHARACTERS]}.json"
        kept = _read(path, digest)
        result = kept or measure_cell(cell, settings, pool, test, digest)
        if kept is None:
            _write(path, result)
        yield CellDone(result, kept is not None, number, len(cells))


def measure_cell(
    cell: Cell, settings: StudySettings, pool: Pool, test: Pool, digest: str
) -> CellResult:
    """Train M as the cell says and measure every attack on held-out members.

    Raises:
        NonFiniteLossError: the training has diverged.
        MintError: the model cannot be built, or its maps cannot be read.

    """
    config = training_config(cell, settings, pool)
    split = derive_split(cell.nonce, settings.sizes)
    trial = train_trial(
        config, pool, test, settings.sizes, cell.nonce, plans=_exposed(cell, config, split)
    )
    logits = {name: trial.ask(trial.images(name)).logits for name in COHORTS}
    fitted, held_out = fitting_split(settings.sizes.told, FITTED_SHARE, cell.seed)
    scored: dict[AttackName, _Scored] = {
        "maps": _passive(_maps(trial), fitted, settings.passive, cell.seed),
        "outcome": _passive(_outcomes(trial, logits), fitted, settings.passive, cell.seed),
        "loss": _loss_attack(trial, logits, fitted),
    }
    return CellResult(
        digest=digest,
        cell=cell,
        trained_accuracy=_accuracy(logits["told"], trial.labels("told")),
        test_accuracy=_accuracy(logits["test"], trial.labels("test")),
        seconds=trial.seconds,
        groups=tuple(
            GroupFigures(
                group=name,
                members=len(rows),
                attacks=tuple(_figures(attack, found, rows) for attack, found in scored.items()),
            )
            for name, rows in _groups(cell, trial, held_out).items()
        ),
    )


def data_digest(pool: Pool, test: Pool) -> str:
    """Return a SHA-256 over every pixel and label, in hex."""
    digest = hashlib.sha256()
    for part in (pool, test):
        digest.update(repr((part.images.shape, part.class_names)).encode())
        digest.update(np.ascontiguousarray(part.images).data)
        digest.update(np.ascontiguousarray(part.labels).data)
    return digest.hexdigest()


def _exposed(cell: Cell, trained: TrainingConfig, split: Split) -> tuple[StepPlan, ...] | None:
    if not cell.exposures:
        return None
    return exposed_steps(cell.nonce, split, cell.exposures, trained.epochs, trained.batch_size)


def _groups(cell: Cell, trial: Trial, held_out: Indices) -> dict[str, Indices]:
    """Return the rows of D to be judged: all that are held out, and those of each exposure."""
    rows = {EVERY_MEMBER: held_out}
    if cell.exposures:
        tested = trial.split.told[held_out]
        groups = exposure_groups(cell.nonce, trial.split, len(cell.exposures))
        for name, group in zip(group_names(cell.exposures), groups, strict=True):
            rows[name] = held_out[np.isin(tested, group)]
    return rows


def _maps(trial: Trial) -> dict[CohortName, Features]:
    model = trial.model
    return {
        name: read_maps(
            model.audited, model.taps.names, trial.images(name), trial.normalisation
        ).maxima()
        for name in COHORTS
    }


def _outcomes(trial: Trial, logits: Mapping[CohortName, Features]) -> dict[CohortName, Features]:
    return {name: outcome_features(logits[name], trial.labels(name)) for name in COHORTS}


def _passive(
    features: Mapping[CohortName, Features], fitted: Indices, config: PassiveConfig, seed: int
) -> _Scored:
    scorer = train_passive(features["told"][fitted], features["external"], config, seed)
    return _Scored({name: _double(scorer.scores(features[name])) for name in COHORTS}, 0.0)


def _loss_attack(trial: Trial, logits: Mapping[CohortName, Features], fitted: Indices) -> _Scored:
    scores = {name: loss_scores(logits[name], trial.labels(name)) for name in COHORTS}
    return _Scored(scores, float(scores["told"][fitted].mean()))


def _figures(attack: AttackName, scored: _Scored, rows: Indices) -> AttackFigures:
    members, others = scored.cohorts["told"][rows], scored.cohorts["test"]
    true = share(members >= scored.threshold).value
    false = share(others >= scored.threshold).value
    return AttackFigures(
        attack=attack,
        auc=auc(members, others),
        accuracy=(true + 1.0 - false) / 2.0,
        flagged=flagged_rates(members, scored.cohorts["calibration"]),
    )


def _accuracy(logits: Features, labels: Indices) -> float:
    return float((logits.argmax(axis=1) == labels).mean())


def _double(values: Features) -> Scores:
    return values.astype(np.float64)


def _cell_digest(cell: Cell, settings: StudySettings, data: str) -> str:
    document = {"settings": settings.as_json(), "cell": cell.as_json(), "data": data}
    return canonical.sha256_hex(canonical.to_bytes(document))


def _read(path: Path, digest: str) -> CellResult | None:
    if not path.is_file():
        return None
    try:
        result = CellResult.from_bytes(path.read_bytes())
    except ValidationError as error:
        raise CellFileError(
            f"{path}: expected a finished cell of this study, found none "
            f"({error.error_count()} problems); delete it, and it is run again"
        ) from error
    if result.digest != digest:
        raise CellFileError(
            f"{path}: expected the cell {digest}, found {result.digest}; delete it, and it is run "
            "again"
        )
    return result


def _write(path: Path, result: CellResult) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    unfinished.write_text(result.model_dump_json(indent=2) + "\n", encoding="utf-8")
    unfinished.replace(path)
