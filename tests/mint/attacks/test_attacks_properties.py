"""What must hold of every attack: who is asked about does not depend on how the table is laid out,
a better fit is never less suspicious, memory is found, and nothing is found where there is none."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import binomtest

from auditkit.mint.attacks import (
    ATTACKS,
    AttackInputs,
    choose_rmia_a,
    lira_offline_scores,
    lira_online_scores,
    loss_scores,
    modified_entropy_scores,
    population_scores,
    rmia_offline_scores,
)
from auditkit.mint.metrics import auc
from tests.mint.attacks.attack_worlds import CLASSES, World, draw_world

FITTED = draw_world(seed=1, memory=3.0)
FORGETFUL = draw_world(seed=2, memory=0.0)
SMALL = draw_world(seed=3, memory=1.0, pairs=6, population=15)

# A likelihood ratio of two Gaussians falls again far out; the largest probability may be another
# class's.
MONOTONE = sorted(set(ATTACKS) - {"lira_online", "confidence"})

CONFIDENCE = 0.999


def pair_wins(world: World, name: str) -> tuple[int, int]:
    """Count the pairs (member, other) that the attack puts in order; a coin decides ties.

    Each pair is won with a probability that is the AUC. If membership does not show in the
    scores, who of a pair is the member is itself a fair coin, so the count is exactly binomial.
    """
    scores = ATTACKS[name].scores(world.inputs)
    members, others = scores[: world.members], scores[world.members :]
    coins = np.random.default_rng(0).random(world.members) < 0.5
    wins = np.where(members == others, coins, members > others)
    return int(wins.sum()), len(wins)


@pytest.mark.parametrize("name", ATTACKS)
def test_memory_is_found(name) -> None:
    interval = binomtest(*pair_wins(FITTED, name)).proportion_ci(CONFIDENCE, method="exact")
    assert interval.low > 0.5


@pytest.mark.parametrize("name", ATTACKS)
def test_nothing_is_found_where_nothing_is_remembered(name) -> None:
    interval = binomtest(*pair_wins(FORGETFUL, name)).proportion_ci(CONFIDENCE, method="exact")
    assert interval.low < 0.5 < interval.high


def test_references_make_the_difference() -> None:
    def measured(name: str) -> float:
        scores = ATTACKS[name].scores(FITTED.inputs)
        return auc(scores[: FITTED.members], scores[FITTED.members :])

    assert measured("gap") < measured("loss") < measured("difficulty_calibration")
    assert measured("loss") < measured("lira_offline")
    assert measured("loss") < measured("rmia_offline") <= measured("rmia_online") + 0.01
    # Attack-P has the order of the loss.
    assert measured("attack_p") == pytest.approx(measured("loss"), abs=0.01)


def rearranged(
    inputs: AttackInputs, samples: np.ndarray, references: np.ndarray, classes: np.ndarray
) -> AttackInputs:
    """The same facts in another order; class c becomes the position of c in `classes`."""
    renamed = np.argsort(classes)
    return replace(
        inputs,
        logits=inputs.logits[samples][:, classes],
        labels=renamed[inputs.labels[samples]],
        reference_logits=inputs.reference_logits[references][:, samples][:, :, classes],
        reference_members=inputs.reference_members[references][:, samples],
        population_logits=inputs.population_logits[:, classes],
        population_labels=renamed[inputs.population_labels],
        population_reference_logits=inputs.population_reference_logits[references][:, :, classes],
    )


@pytest.mark.parametrize("name", ATTACKS)
@settings(max_examples=15, deadline=None)
@given(
    samples=st.permutations(range(12)),
    references=st.permutations(range(8)),
    classes=st.permutations(range(CLASSES)),
)
def test_order_does_not_matter(name, samples, references, classes) -> None:
    before = ATTACKS[name].scores(SMALL.inputs)
    order = np.array(samples)
    after = ATTACKS[name].scores(
        rearranged(SMALL.inputs, order, np.array(references), np.array(classes))
    )
    np.testing.assert_allclose(after, before[order], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", MONOTONE)
@settings(max_examples=15, deadline=None)
@given(sample=st.integers(0, 11), gain=st.floats(0.01, 30.0))
def test_a_better_fit_is_never_less_suspicious(name, sample, gain) -> None:
    attack, inputs = ATTACKS[name], SMALL.inputs
    better = inputs.logits.astype(np.float64)
    better[sample, inputs.labels[sample]] += gain
    before, after = attack.scores(inputs), attack.scores(replace(inputs, logits=better))
    assert after[sample] >= before[sample]
    others = np.arange(12) != sample
    np.testing.assert_array_equal(after[others], before[others])


@pytest.mark.parametrize("name", ATTACKS)
def test_a_constant_on_all_logits_says_nothing(name) -> None:
    inputs = SMALL.inputs
    moved = ATTACKS[name].scores(replace(inputs, logits=inputs.logits.astype(np.float64) + 7.0))
    np.testing.assert_allclose(moved, ATTACKS[name].scores(inputs), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ATTACKS)
def test_scores_are_finite_for_overconfident_models(name) -> None:
    inputs = SMALL.inputs
    extreme = replace(
        inputs,
        logits=inputs.logits * np.float32(1e4),
        reference_logits=inputs.reference_logits * np.float32(1e4),
        population_logits=inputs.population_logits * np.float32(1e4),
        population_reference_logits=inputs.population_reference_logits * np.float32(1e4),
    )
    scores = ATTACKS[name].scores(extreme)
    assert scores.dtype == np.float64
    assert scores.shape == (12,)
    assert np.isfinite(scores).all()


def test_confidences_that_round_to_one_keep_their_order() -> None:
    logits = np.zeros((3, 4), np.float32)
    logits[:, 1] = (40.0, 60.0, 80.0)
    labels = np.ones(3, np.int64)
    assert (softmax(logits.astype(np.float64), axis=1)[:, 1] == 1.0).all()
    for name in ("loss", "confidence", "modified_entropy"):
        assert (np.diff(ATTACKS[name].scores(AttackInputs(logits, labels))) > 0).all()


@given(st.integers(0, 10_000))
@settings(max_examples=50, deadline=None)
def test_modified_entropy_is_the_formula_of_the_paper(seed) -> None:
    generator = np.random.default_rng(seed)
    logits, label = generator.normal(scale=4.0, size=5), int(generator.integers(5))
    p = softmax(logits)
    formula = -(1 - p[label]) * np.log(p[label]) - sum(
        p[i] * np.log(1 - p[i]) for i in range(5) if i != label
    )
    score = modified_entropy_scores(logits[None], np.array([label]))
    assert score[0] == pytest.approx(-formula, rel=1e-9)


def test_attack_p_is_a_p_value() -> None:
    inputs = FORGETFUL.inputs
    scores = population_scores(
        inputs.logits, inputs.labels, inputs.population_logits, inputs.population_labels
    )
    losses = -loss_scores(inputs.logits, inputs.labels)
    population = -loss_scores(inputs.population_logits, inputs.population_labels)
    assert scores[0] == pytest.approx((population > losses[0]).mean())


def test_several_queries_tell_more_than_one() -> None:
    generator = np.random.default_rng(5)
    world = draw_world(seed=6, memory=1.0)
    inputs, members = world.inputs, world.members
    noise = [generator.normal(scale=1.5, size=inputs.logits.shape) for _ in range(8)]
    logits = np.stack([inputs.logits + n for n in noise])
    references = np.stack(
        [
            np.stack([one + generator.normal(scale=1.5, size=one.shape) for _ in noise])
            for one in inputs.reference_logits
        ]
    )
    for attack in (lira_online_scores, lira_offline_scores):
        one, many = (
            attack(logits[:q], inputs.labels, references[:, :q], inputs.reference_members)
            for q in (1, 8)
        )
        single = attack(logits[0], inputs.labels, references[:, 0], inputs.reference_members)
        np.testing.assert_array_equal(one, single)
        assert auc(many[:members], many[members:]) > auc(one[:members], one[members:]) + 0.03


def test_each_sample_has_its_own_variance_once_there_are_references_enough() -> None:
    for references, chosen in ((64, "per_sample"), (62, "global")):
        inputs = draw_world(seed=7, memory=1.0, pairs=4, references=references).inputs
        arguments = (
            inputs.logits,
            inputs.labels,
            inputs.reference_logits,
            inputs.reference_members,
        )
        for attack in (lira_online_scores, lira_offline_scores):
            np.testing.assert_array_equal(attack(*arguments), attack(*arguments, chosen))


def test_a_is_chosen_on_references_and_serves_the_tested_samples() -> None:
    tuning, tested = draw_world(seed=8, memory=3.0).inputs, FITTED.inputs
    chosen = choose_rmia_a(
        tuning.labels,
        tuning.reference_logits,
        tuning.reference_members,
        population_labels=tuning.population_labels,
        population_reference_logits=tuning.population_reference_logits,
    )
    found = {}
    for a in (0.0, chosen, 1.0):
        scores = rmia_offline_scores(
            tested.logits,
            tested.labels,
            tested.reference_logits,
            tested.reference_members,
            population_logits=tested.population_logits,
            population_labels=tested.population_labels,
            population_reference_logits=tested.population_reference_logits,
            a=a,
        )
        found[a] = auc(scores[: FITTED.members], scores[FITTED.members :])
    assert 0.0 <= chosen <= 1.0
    assert found[chosen] >= max(found.values()) - 0.01
    assert max(found.values()) > min(found.values()) + 0.01
