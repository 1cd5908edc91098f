"""Running a comparison part by part, each in a process of its own, and keeping what is done.

A part is one training and what is measured on it. Its process makes the peak memory that is
reported its own. A part that has finished is not run again; its file is bound to the settings by
a digest, so that changed settings never meet old results.
"""

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from auditkit.data.pools import Pool, open_pool
from auditkit.evidence import canonical
from auditkit.evidence.derivation import derive_split
from auditkit.studies.comparison import (
    ALONE,
    ComparisonSettings,
    MethodFigures,
    Variant,
    attack_methods,
    joint_methods,
    measure,
    passive_methods,
    train_alone,
    train_variant,
)
from auditkit.studies.errors import CellFileError, UnknownMethodError
from auditkit.studies.references import (
    References,
    Universe,
    attack_inputs,
    members_of,
    train_reference,
    universe_of,
)
from schemas.base import Schema, Sha256

DIGEST_CHARACTERS = 12  # in file names; the whole digest is in the file


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
    figures: tuple[MethodFigures, ...]


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


def run(settings: ComparisonSettings, base: Path, folder: Path) -> Iterator[PartDone]:
    """Run every part that `folder` does not hold yet, one after the other.

    Args:
        settings: what to compare.
        base: folder that the paths of the data are relative to.
        folder: where results are kept.

    Raises:
        StudyError, MintError, DataError: see the messages; finished parts are kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = plan(settings)
    context = multiprocessing.get_context("spawn")
    for count, part in enumerate(parts, start=1):
        kept = path_of(settings, part, folder).exists()
        if not kept:
            with ProcessPoolExecutor(1, mp_context=context) as process:
                process.submit(run_part, settings, base, folder, part).result()
        yield PartDone(part, kept, count, len(parts))


def run_part(settings: ComparisonSettings, base: Path, folder: Path, part: Part) -> None:
    """Run one part in this process, and keep its result."""
    pool, test = open_pool(settings.pool, base), open_pool(settings.test, base)
    path = path_of(settings, part, folder)
    partial = path.with_suffix(".partial")
    if part.kind == "reference":
        logits = _reference(settings, pool, test, part)
        with partial.open("wb") as file:
            np.save(file, logits)
    else:
        figures = tuple(_MEASURES[part.kind](settings, pool, test, part, folder))
        result = PartResult(digest=_digest(settings, part), figures=figures)
        partial.write_bytes(canonical.to_bytes(result))
    partial.replace(path)


def results(settings: ComparisonSettings, folder: Path) -> tuple[MethodFigures, ...]:
    """Return the figures of all parts that are done, in order.

    Raises:
        CellFileError: a kept result is damaged.
    """
    found: list[MethodFigures] = []
    for part in plan(settings):
        path = path_of(settings, part, folder)
        if part.kind != "reference" and path.exists():
            found += _read(path, _digest(settings, part)).figures
    return tuple(found)


def path_of(settings: ComparisonSettings, part: Part, folder: Path) -> Path:
    """Return where a part's result is kept."""
    suffix = "npy" if part.kind == "reference" else "json"
    return folder / f"{part.title}_{_digest(settings, part)[:DIGEST_CHARACTERS]}.{suffix}"


def _digest(settings: ComparisonSettings, part: Part) -> str:
    # What a part depends on, and no more: another variant or seed leaves it as it is.
    own: dict[str, object] = {"variants": (), "seeds": (part.seed,)}
    if part.kind == "variant":
        own |= {"variants": (_variant(settings, part),), "references": 0}
    elif part.kind == "reference":
        own |= {"references": 0}
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
) -> Iterator[MethodFigures]:
    variant = _variant(settings, part)
    trial = train_variant(settings, variant, pool, test, seed=part.seed)
    return measure(joint_methods(trial, variant), trial, variant.name, part.seed)


def _alone(
    settings: ComparisonSettings, pool: Pool, test: Pool, part: Part, folder: Path
) -> Iterator[MethodFigures]:
    trial = train_alone(settings, pool, test, seed=part.seed)
    passive = passive_methods(trial, settings.passive, settings.gradients, part.seed)
    yield from measure(passive, trial, ALONE, part.seed)
    universe = universe_of(pool, test, trial.split, settings.population)
    references = _references(settings, universe, part.seed, folder)
    attacks = attack_methods(dict(attack_inputs(trial, universe, references)))
    yield from measure(attacks, trial, ALONE, part.seed)


_MEASURES: dict[str, Callable[..., Iterator[MethodFigures]]] = {"variant": _joint, "alone": _alone}


def _universe(settings: ComparisonSettings, pool: Pool, test: Pool, seed: int) -> Universe:
    split = derive_split(settings.nonce(seed), settings.sizes)
    return universe_of(pool, test, split, settings.population)


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
        logits.append(np.load(path_of(settings, part, folder), allow_pickle=False))
    return References(np.stack(logits), members)


def _read(path: Path, digest: str) -> PartResult:
    try:
        result = PartResult.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise CellFileError(
            f"{path} is not a result of this comparison ({type(error).__name__}); remove it, and "
            "the part is run again"
        ) from error
    if result.digest != digest:
        raise CellFileError(f"{path} belongs to other settings; remove it")
    return result
