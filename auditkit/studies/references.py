"""Reference models: M trained again, alone, on other samples, for the attacks that need them.

The tested cohorts and as many other samples as are needed to fill up make the *universe*. It is
cut into equal parts as large as D, again and again at random, and one reference is trained on each
part. So every sample is IN the same number of references, members and strangers alike.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from auditkit.data.pools import Pool
from auditkit.evidence.derivation import Indices, Split
from auditkit.mint.attacks import (
    AttackInputs,
    MissingReferenceError,
    TooFewReferencesError,
    choose_rmia_a,
)
from auditkit.studies.errors import ReferencesError
from auditkit.studies.trial import Trial, TrialProgress, train_trial
from schemas import CohortName, SplitSizes, TrainingConfig

TESTED: tuple[CohortName, ...] = ("told", "silent", "told_only", "calibration", "test")
NONE = np.empty(0, dtype=np.int64)
# What attacks raise that need more references, or one without (or with) a certain sample.
LACKS_REFERENCES = (MissingReferenceError, TooFewReferencesError)


@dataclass(frozen=True)
class Universe:
    """Samples of the pool and of the test set in one, and which of them are what."""

    samples: Pool
    """The pool, followed by the test set."""
    cohorts: dict[CohortName, Indices]
    tuning: Indices
    population: Indices
    drawn: Indices
    """What references are trained on: a whole number of parts as large as D."""
    part: int
    """Samples in one part."""


@dataclass(frozen=True)
class References:
    """What all references say about every sample of the universe's pool."""

    logits: NDArray[np.float32]
    """(R, N, classes)."""
    members: NDArray[np.bool_]
    """(R, N), true where a reference was trained on the sample."""


def check_external(sizes: SplitSizes, fresh: int, population_size: int, references: int) -> None:
    """Refuse an E that is too small for the attacks, before anything is trained.

    Args:
        sizes: of the cohorts.
        fresh: samples of the test set.
        population_size: samples that attacks compare with.
        references: reference models.

    Raises:
        ReferencesError: see above.
    """
    tested = sizes.told + sizes.silent + sizes.told_only + sizes.calibration + fresh
    part = sizes.told + sizes.silent
    needed = 2 * population_size
    if references:
        needed += max(0, _parts(tested + population_size, part) * part - tested - population_size)
    if sizes.external < needed:
        raise ReferencesError(
            f"expected at least {needed} samples of E: a population of {population_size}, as many "
            f"to choose parameters on, and others so that references can be trained on parts of "
            f"{part} beside {tested} tested samples; found {sizes.external}. Enlarge "
            "sizes.external, or lower the population"
        )


def universe_of(pool: Pool, test: Pool, split: Split, population_size: int, seed: int) -> Universe:
    """Lay out the samples for the references of one split, whose E `check_external` has passed.

    The population are samples of E that no reference is trained on. As many others of E serve to
    choose the parameter of offline RMIA.
    """
    shifted = np.arange(test.size) + pool.size
    cohorts: dict[CohortName, Indices] = {
        "told": split.told,
        "silent": split.silent,
        "told_only": split.told_only,
        "calibration": split.calibration,
        "test": shifted,
    }
    part = len(split.trained)
    tested = np.concatenate([cohorts[name] for name in TESTED])
    # A pool may be in the order of its classes, and a cohort's rows keep the pool's order.
    external = np.random.default_rng(seed).permutation(split.external)
    population, tuning, rest = np.split(external, [population_size, 2 * population_size])
    drawn = np.concatenate([tested, tuning, rest])
    parts = _parts(len(tested) + len(tuning), part)
    return Universe(
        samples=Pool(
            np.concatenate([pool.images, test.images]),
            np.concatenate([pool.labels, test.labels]),
            pool.class_names,
        ),
        cohorts=cohorts,
        tuning=tuning,
        population=population,
        drawn=drawn[: parts * part],
        part=part,
    )


def _parts(samples: int, part: int) -> int:
    # Two at least, so that every reference has samples that it was not trained on.
    return max(2, -(-samples // part))


def members_of(universe: Universe, reference: int, seed: int) -> Indices:
    """Return the samples that one reference is trained on, in rising order."""
    parts = len(universe.drawn) // universe.part
    order = np.random.default_rng([seed, reference // parts]).permutation(universe.drawn)
    start = (reference % parts) * universe.part
    return np.sort(order[start : start + universe.part])


def train_reference(
    config: TrainingConfig,
    universe: Universe,
    reference: int,
    *,
    seed: int,
    nonce: bytes,
    on_epoch: Callable[[TrialProgress], None] = lambda _progress: None,
) -> NDArray[np.float32]:
    """Train one reference and return its logits on every sample of the universe's pool.

    Raises:
        MintError: see `train_trial`.
    """
    told = members_of(universe, reference, seed)
    size = universe.samples.size
    trial = train_trial(
        config,
        universe.samples,
        universe.samples,
        SplitSizes(told=len(told), silent=0, told_only=0, external=0, calibration=size - len(told)),
        nonce,
        split=Split(told, NONE, NONE, NONE, NONE),
        on_epoch=on_epoch,
    )
    return trial.ask(universe.samples.images).logits


def attack_inputs(
    trial: Trial, universe: Universe, references: References | None
) -> Iterator[tuple[CohortName, AttackInputs]]:
    """Yield what the attacks of the literature read of each cohort.

    Where there are enough references, the parameter of offline RMIA is chosen on samples of E that
    are neither tested nor the population.

    Raises:
        AttackError: the references do not suit.
    """
    population = universe.population
    labels = universe.samples.labels
    population_logits = trial.ask(universe.samples.images[population]).logits
    a = None if references is None else _rmia_a(universe, references)
    for name, rows in universe.cohorts.items():
        if not len(rows):
            continue
        yield (
            name,
            AttackInputs(
                logits=trial.ask(universe.samples.images[rows]).logits,
                labels=labels[rows],
                reference_logits=None if references is None else references.logits[:, rows],
                reference_members=None if references is None else references.members[:, rows],
                population_logits=population_logits,
                population_labels=labels[population],
                population_reference_logits=(
                    None if references is None else references.logits[:, population]
                ),
                a=a,
            ),
        )


def _rmia_a(universe: Universe, references: References) -> float | None:
    tuning, population, labels = universe.tuning, universe.population, universe.samples.labels
    try:
        return choose_rmia_a(
            labels[tuning],
            references.logits[:, tuning],
            references.members[:, tuning],
            population_labels=labels[population],
            population_reference_logits=references.logits[:, population],
        )
    except LACKS_REFERENCES:
        return None  # then there is no offline RMIA
