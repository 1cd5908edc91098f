"""Running a comparison part by part, each in a process of its own, and keeping what is done.

A part is one training and what is measured on it. Its process makes the peak memory that is
reported its own. A part that has finished is not run again; its file is bound to the settings by
a digest, so that changed settings never meet old results.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from auditkit.data.fit import check_pool
from auditkit.data.pools import Pool, open_pool
from auditkit.evidence import canonical
from auditkit.evidence.derivation import derive_split
from auditkit.mint.passive import PassiveConfig
from auditkit.mint.power import FALSE_ALARM_RATE
from auditkit.studies.comparison import (
    ALONE,
    ComparisonSettings,
    MethodFigures,
    Scored,
    Variant,
    attack_methods,
    joint_methods,
    measure,
    passive_methods,
    set_rates,
    train_alone,
    train_variant,
    undeclared_scores,
)
from auditkit.studies.errors import CellFileError, StudyDataError, UnknownMethodError
from auditkit.studies.kept import damaged, file_name, keep, read_kept, run_apart
from auditkit.studies.references import (
    References,
    Universe,
    attack_inputs,
    check_external,
    members_of,
    train_reference,
    universe_of,
)
from auditkit.studies.set_rates import SetRates
from schemas.base import Schema, Sha256

Measured = tuple[tuple[MethodFigures, ...], tuple[SetRates, ...]]


@dataclass(frozen=True)
class Part:
    """One training of a comparison."""

    kind: Literal["reference", "variant", "alone"]
    name: str
    seed: int
    number: int = 0
    """Of a reference."""

    @property
    def title(self) -> str:
        """A name for files and progress."""
        return f"{self.name}-seed{self.seed}"


class PartResult(Schema):
    """What one part showed."""

    digest: Sha256
    methods: tuple[MethodFigures, ...]
    sets: tuple[SetRates, ...]


class Comparison(Schema):
    """Everything that a comparison showed."""

    schema_version: Annotated[int, Field(ge=1, le=1)] = 1
    settings: ComparisonSettings
    environment: str
    methods: tuple[MethodFigures, ...]
    sets: tuple[SetRates, ...]


@dataclass(frozen=True)
class PartDone:
    """One finished part of a running comparison."""

    part: Part
    kept: bool  # from an earlier run
    done: int
    total: int


def plan(settings: ComparisonSettings) -> tuple[Part, ...]:
    """Return all parts in the order in which they must run: references before M alone."""
    parts: list[Part] = []
    for seed in settings.seeds:
        parts += [
            Part("reference", f"reference{number}", seed, number)
            for number in range(settings.references)
        ]
        parts += [Part("variant", variant.name, seed) for variant in settings.variants]
        parts.append(Part("alone", ALONE, seed))
    return tuple(parts)


def run(
    settings: ComparisonSettings,
    base: Path,
    folder: Path,
    on_start: Callable[[Part], None] = lambda _part: None,
) -> Iterator[PartDone]:
    """Run every part that `folder` does not hold yet, one after the other.

    Args:
        settings: what to compare.
        base: folder that the paths of the data are relative to.
        folder: where results are kept.
        on_start: told about each part that is not kept, before it is run.

    Raises:
        StudyDataError, PoolShapeError, ReferencesError: the data do not suit the settings; nothing
            was trained.
        PartKilledError: a part's process was killed.
        StudyError, MintError, DataError: see the messages; finished parts are kept.
    """
    parts = plan(settings)
    missing = [part for part in parts if not path_of(settings, part, folder).exists()]
    # Read once for all parts: looking for near-duplicates takes as long as some trainings.
    data = _opened(settings, base) if missing else None
    folder.mkdir(parents=True, exist_ok=True)
    for count, part in enumerate(parts, start=1):
        if data is not None and part in missing:
            on_start(part)
            run_apart(part.title, run_part, settings, *data, folder, part)
        yield PartDone(part, part not in missing, count, len(parts))


def _opened(settings: ComparisonSettings, base: Path) -> tuple[Pool, Pool]:
    pool, test = open_pool(settings.pool, base), open_pool(settings.test, base)
    check_data(settings, pool, test)
    return pool, test


def check_data(settings: ComparisonSettings, pool: Pool, test: Pool) -> None:
    """Refuse data that do not suit the settings, before anything is trained.

    Raises:
        StudyDataError: the pool has not as many samples as the cohorts.
        PoolShapeError: the samples do not suit the model.
        ReferencesError: E is too small.
    """
    sizes, model = settings.sizes, settings.training.model
    if pool.size != sizes.pool:
        raise StudyDataError(
            f"expected a pool of {sizes.pool} samples, as many as the cohorts in [sizes] have "
            f"together, found {pool.size}; set pool.selection.limit to {sizes.pool}, or change the "
            "sizes"
        )
    check_pool("pool", pool, model)
    check_pool("test set", test, model)
    check_external(sizes, test.size, settings.population, settings.references)


def run_part(
    settings: ComparisonSettings, pool: Pool, test: Pool, folder: Path, part: Part
) -> None:
    """Run one part in this process, and keep its result."""
    path = path_of(settings, part, folder)
    if part.kind == "reference":
        logits = _reference(settings, pool, test, part)
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            np.save(file, logits)
        partial.replace(path)
    else:
        methods, sets = _MEASURES[part.kind](settings, pool, test, part, folder)
        keep(path, PartResult(digest=_digest(settings, part), methods=methods, sets=sets))


def results(settings: ComparisonSettings, folder: Path, environment: str) -> Comparison:
    """Return what all parts that are done have shown, in order.

    Raises:
        CellFileError: a kept result is damaged.
    """
    paths = (
        (part, path)
        for part in plan(settings)
        if part.kind != "reference" and (path := path_of(settings, part, folder)).exists()
    )
    found = [read_kept(path, PartResult, _digest(settings, part)) for part, path in paths]
    return Comparison(
        settings=settings,
        environment=environment,
        methods=tuple(entry for result in found for entry in result.methods),
        sets=tuple(entry for result in found for entry in result.sets),
    )


def path_of(settings: ComparisonSettings, part: Part, folder: Path) -> Path:
    """Return where a part's result is kept."""
    suffix = "npy" if part.kind == "reference" else "json"
    return folder / file_name(part.title, _digest(settings, part), suffix)


def _digest(settings: ComparisonSettings, part: Part) -> str:
    # What a part depends on, and no more: another variant or seed leaves it as it is.
    own: dict[str, object] = {"variants": (), "seeds": (part.seed,)}
    if part.kind != "alone":
        own |= {"references": 0, "gradients": None}
    if part.kind == "variant":
        own |= {"variants": (_variant(settings, part),), "population": 1}
    if part.kind == "reference":
        own |= {"passive": PassiveConfig(), "false_alarm_rate": FALSE_ALARM_RATE}
    bound = settings.model_copy(update=own)
    return canonical.sha256_hex(canonical.to_bytes(bound) + part.title.encode())


def _variant(settings: ComparisonSettings, part: Part) -> Variant:
    found = next((v for v in settings.variants if v.name == part.name), None)
    if found is None:
        names = ", ".join(variant.name for variant in settings.variants)
        raise UnknownMethodError(f"expected one of {names}, found {part.name!r}")
    return found


def _joint(
    settings: ComparisonSettings, pool: Pool, test: Pool, part: Part, _folder: Path
) -> Measured:
    variant = _variant(settings, part)
    trial = train_variant(settings, variant, pool, test, seed=part.seed)
    found = list(measure(joint_methods(trial, variant), trial, variant.name, part.seed))
    scored = [scored for scored, _ in found]
    scored += undeclared_scores(trial, settings.passive, part.seed)
    return tuple(figures for _, figures in found), _sets(settings, part, scored)


def _alone(
    settings: ComparisonSettings, pool: Pool, test: Pool, part: Part, folder: Path
) -> Measured:
    trial = train_alone(settings, pool, test, seed=part.seed)
    passive = passive_methods(trial, settings.passive, settings.gradients, part.seed)
    found = list(measure(passive, trial, ALONE, part.seed))
    universe = universe_of(pool, test, trial.split, settings.population, part.seed)
    references = _references(settings, universe, part.seed, folder)
    attacks = attack_methods(dict(attack_inputs(trial, universe, references)))
    found += measure(attacks, trial, ALONE, part.seed)
    scored = (scored for scored, _ in found)
    return tuple(figures for _, figures in found), _sets(settings, part, scored)


def _sets(
    settings: ComparisonSettings, part: Part, scored: Iterable[Scored]
) -> tuple[SetRates, ...]:
    return tuple(
        rates
        for method in scored
        for rates in set_rates(method, part.name, part.seed, settings.false_alarm_rate)
    )


_MEASURES: dict[str, Callable[..., Measured]] = {"variant": _joint, "alone": _alone}


def _universe(settings: ComparisonSettings, pool: Pool, test: Pool, seed: int) -> Universe:
    split = derive_split(settings.nonce(seed), settings.sizes)
    return universe_of(pool, test, split, settings.population, seed)


def _reference(
    settings: ComparisonSettings, pool: Pool, test: Pool, part: Part
) -> NDArray[np.float32]:
    universe = _universe(settings, pool, test, part.seed)
    # A nonce of its own: references share nothing with M but the recipe.
    nonce = settings.nonce(part.seed, part.name)
    return train_reference(settings.alone(), universe, part.number, seed=part.seed, nonce=nonce)


def _references(
    settings: ComparisonSettings, universe: Universe, seed: int, folder: Path
) -> References | None:
    if settings.references == 0:
        return None
    members = np.zeros((settings.references, universe.samples.size), dtype=np.bool_)
    logits = []
    for number in range(settings.references):
        members[number, members_of(universe, number, seed)] = True
        part = Part("reference", f"reference{number}", seed, number)
        logits.append(_read_logits(path_of(settings, part, folder), universe.samples.size))
    return References(np.stack(logits), members)


def _read_logits(path: Path, samples: int) -> NDArray[np.float32]:
    try:
        logits: NDArray[np.float32] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise CellFileError(damaged(path, error)) from error
    if logits.ndim != 2 or len(logits) != samples:
        raise CellFileError(f"{path} holds logits of other samples; remove it")
    return logits
