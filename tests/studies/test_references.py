"""Reference models: who is trained on what, and who is kept out."""

import numpy as np
import pytest

from auditkit.evidence.derivation import derive_split
from auditkit.mint.attacks import ATTACKS
from auditkit.studies.errors import ReferencesError
from auditkit.studies.references import (
    References,
    Universe,
    attack_inputs,
    check_external,
    members_of,
    train_reference,
    universe_of,
)
from auditkit.studies.trial import train_trial
from schemas import SplitSizes
from tests.studies.small import ALONE, FRESH, NONCE, SIZES, config, parts

POPULATION = 15
SEED = 3


@pytest.fixture(scope="module")
def universe() -> Universe:
    pool, test = parts()
    return universe_of(pool, test, derive_split(NONCE, SIZES), POPULATION, SEED)


def test_every_sample_is_in_equally_many_references(universe: Universe) -> None:
    parts_of_a_round = len(universe.drawn) // universe.part
    counts = np.zeros(universe.samples.size, dtype=int)
    for reference in range(2 * parts_of_a_round):
        members = members_of(universe, reference, SEED)
        assert len(members) == universe.part == SIZES.told + SIZES.silent
        assert len(np.unique(members)) == len(members)
        counts[members] += 1
    tested = np.concatenate(list(universe.cohorts.values()))
    assert (counts[tested] == 2).all()
    assert (counts[universe.tuning] == 2).all()


def test_a_round_is_shuffled_anew_and_another_seed_shuffles_otherwise(universe: Universe) -> None:
    parts_of_a_round = len(universe.drawn) // universe.part
    first, again, later, other = (
        members_of(universe, 0, SEED),
        members_of(universe, 0, SEED),
        members_of(universe, parts_of_a_round, SEED),
        members_of(universe, 0, SEED + 1),
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, later)
    assert not np.array_equal(first, other)


def test_population_tuning_and_tested_samples_share_nothing(universe: Universe) -> None:
    tested = np.concatenate(list(universe.cohorts.values()))
    assert len(universe.population) == len(universe.tuning) == POPULATION
    assert not set(universe.population) & set(tested)
    assert not set(universe.population) & set(universe.tuning)
    assert not set(universe.tuning) & set(tested)
    assert not set(universe.population) & set(universe.drawn)
    assert len(np.unique(universe.drawn)) == len(universe.drawn)


def test_fresh_samples_follow_the_pool(universe: Universe) -> None:
    _, test = parts()
    np.testing.assert_array_equal(universe.samples.images[universe.cohorts["test"]], test.images)


def test_a_pool_in_the_order_of_its_classes_gives_a_population_of_all_of_them() -> None:
    pool, test = parts()
    order = np.argsort(pool.labels, kind="stable")
    ordered = type(pool)(pool.images[order], pool.labels[order], pool.class_names)
    found = universe_of(ordered, test, derive_split(NONCE, SIZES), 40, SEED)
    assert len(np.unique(ordered.labels[found.population])) > 5


@pytest.mark.parametrize(("references", "least"), [(0, 30), (4, 91)])
def test_an_e_that_is_too_small_is_refused_with_the_number_needed(
    references: int, least: int
) -> None:
    def sizes(external: int) -> SplitSizes:
        return SIZES.model_copy(update={"external": external})

    with pytest.raises(ReferencesError, match=f"at least {least} samples of E.*found {least - 1}"):
        check_external(sizes(least - 1), FRESH, POPULATION, references)
    check_external(sizes(least), FRESH, POPULATION, references)
    pool, test = parts()
    found = universe_of(pool, test, derive_split(NONCE, sizes(least)), POPULATION, SEED)
    assert len(found.population) == len(found.tuning) == POPULATION
    if references:
        assert len(found.drawn) % found.part == 0
        assert set(np.concatenate(list(found.cohorts.values()))) <= set(found.drawn)


def test_attacks_with_references_find_what_they_need(universe: Universe) -> None:
    pool, test = parts()
    training = config(ALONE, external=0, epochs=1)
    count = 2 * (len(universe.drawn) // universe.part)  # LiRA's variance needs two
    members = np.zeros((count, universe.samples.size), dtype=bool)
    logits = []
    for number in range(count):
        members[number, members_of(universe, number, SEED)] = True
        nonce = bytes([number]) * 32
        logits.append(train_reference(training, universe, number, seed=SEED, nonce=nonce))
    trial = train_trial(training, pool, test, SIZES, NONCE)
    found = dict(attack_inputs(trial, universe, References(np.stack(logits), members)))
    assert set(found) == {"told", "silent", "told_only", "calibration", "test"}
    for attack in ATTACKS.values():
        for cohort, inputs in found.items():
            scores = attack.scores(inputs)
            assert scores.shape == (len(universe.cohorts[cohort]),)
            assert np.isfinite(scores).all()


def test_without_references_only_simple_attacks_apply(universe: Universe) -> None:
    pool, test = parts()
    trial = train_trial(config(ALONE, external=0, epochs=1), pool, test, SIZES, NONCE)
    found = dict(attack_inputs(trial, universe, None))["told"]
    applying = {attack.name for attack in ATTACKS.values() if attack.applies_to(found)}
    assert applying == {"gap", "loss", "confidence", "modified_entropy", "attack_p"}
