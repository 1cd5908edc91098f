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
from auditkit.mint.attacks import AttackInputs, choose_rmia_a
from auditkit.studies.errors import ReferencesError
from auditkit.studies.trial import Trial, TrialProgress, train_trial
from schemas import CohortName, SplitSizes, TrainingConfig

TESTED: tuple[CohortName, ...] = ("told", "silent", "told_only", "calibration", "test")
NONE = np.empty(0, dtype=np.int64)


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


def universe_of(pool: Pool, test: Pool, split: Split, population_size: int) -> Universe:
    """Lay out the samples for the references of one split.

    The population are samples of E that no reference is trained on. As many others of E serve to
    choose the parameter of offline RMIA.

    Raises:
        ReferencesError: E is too small to fill the universe up and to leave a population.
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
    population, tuning, rest = np.split(split.external, [population_size, 2 * population_size])
    drawn = np.concatenate([tested, tuning, rest])
    # Two parts at least, so that every reference has samples that it was not trained on.
    parts = max(2, -(-(len(tested) + len(tuning)) // part))
    if len(tuning) < population_size or len(drawn) < parts * part:
        raise ReferencesError(
            f"expected at least {population_size + parts * part - len(tested)} samples of E, as a "
            f"population and to train references beside {len(tested)} tested samples, found "
            f"{len(split.external)}; enlarge E, or test fewer samples"
        )
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

    Where there are references, the parameter of offline RMIA is chosen on samples of E that are
    neither tested nor the population.

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


def _rmia_a(universe: Universe, references: References) -> float:
    tuning, population, labels = universe.tuning, universe.population, universe.samples.labels
    return choose_rmia_a(
        labels[tuning],
        references.logits[:, tuning],
        references.members[:, tuning],
        population_labels=labels[population],
        population_reference_logits=references.logits[:, population],
    )
