"""Each thing that an attack can't work with is refused by name, with what to do about it."""

from dataclasses import replace

import numpy as np
import pytest

from auditkit.mint.attacks import (
    ATTACKS,
    AttackInputs,
    AttackParameterError,
    AttackShapeError,
    EmptySamplesError,
    IdenticalReferencesError,
    LabelRangeError,
    MissingInputError,
    MissingReferenceError,
    NonFiniteLogitsError,
    TooFewReferencesError,
    choose_rmia_a,
    lira_offline_scores,
    lira_online_scores,
    rmia_offline_scores,
    scores_of_losses,
)
from tests.mint.attacks.attack_worlds import draw_world

INPUTS = draw_world(seed=11, memory=1.0, pairs=5, population=9).inputs
NEED_REFERENCES = sorted(n for n, a in ATTACKS.items() if "reference_logits" in a.needs)
NEED_IN = sorted(n for n, a in ATTACKS.items() if a.needs_in_references)
NEED_POPULATION = sorted(n for n, a in ATTACKS.items() if "population_logits" in a.needs)


def changed(array: np.ndarray, index: object, value: float) -> np.ndarray:
    copy = array.copy()
    copy[index] = value
    return copy


def test_the_registry_says_what_each_attack_needs() -> None:
    assert ATTACKS["loss"].needs == ("logits", "labels")
    assert ATTACKS["attack_p"].needs[2:] == ("population_logits", "population_labels")
    assert ATTACKS["lira_online"].needs[2:] == ("reference_logits", "reference_members")
    assert ATTACKS["rmia_offline"].needs[-1] == "a"
    assert NEED_IN == ["lira_online", "rmia_online"]
    assert all(attack.applies_to(INPUTS) for attack in ATTACKS.values())


def test_attacks_without_their_inputs_are_left_out_or_refused() -> None:
    bare = AttackInputs(INPUTS.logits, INPUTS.labels)
    assert [name for name, attack in ATTACKS.items() if attack.applies_to(bare)] == [
        "gap",
        "loss",
        "confidence",
        "modified_entropy",
    ]
    with pytest.raises(MissingInputError, match="reference_logits, reference_members"):
        ATTACKS["lira_offline"].scores(bare)
    only_out = replace(INPUTS, reference_members=np.zeros_like(INPUTS.reference_members))
    left = {name for name, attack in ATTACKS.items() if attack.applies_to(only_out)}
    assert left == set(ATTACKS) - set(NEED_IN)


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"logits": INPUTS.logits[:-1]}, AttackShapeError, "10"),
        ({"logits": INPUTS.logits[:, 0]}, AttackShapeError, "dimensions"),
        ({"logits": INPUTS.logits[:, :1]}, AttackShapeError, "two classes"),
        ({"logits": INPUTS.logits.astype(np.int64)}, AttackShapeError, "int64"),
        ({"labels": INPUTS.labels.astype(float)}, AttackShapeError, "whole-number"),
        ({"labels": INPUTS.labels[:, None]}, AttackShapeError, "whole-number"),
        ({"labels": INPUTS.labels - 6}, LabelRangeError, "0 to 5"),
        ({"labels": INPUTS.labels + 6}, LabelRangeError, "0 to 5"),
        ({"logits": changed(INPUTS.logits, (3, 2), np.nan)}, NonFiniteLogitsError, "diverged"),
        ({"logits": changed(INPUTS.logits, (0, 0), np.inf)}, NonFiniteLogitsError, "diverged"),
    ],
)
def test_tables_of_the_model_that_do_not_fit(name, change, error, message) -> None:
    with pytest.raises(error, match=message):
        ATTACKS[name].scores(replace(INPUTS, **change))


@pytest.mark.parametrize("name", NEED_REFERENCES)
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"reference_logits": INPUTS.reference_logits[0]}, AttackShapeError, "reference"),
        ({"reference_logits": INPUTS.reference_logits[:, :-1]}, AttackShapeError, "10"),
        ({"reference_logits": INPUTS.reference_logits[:-1]}, AttackShapeError, "trained on"),
        ({"reference_members": INPUTS.reference_members.T}, AttackShapeError, "trained on"),
        ({"reference_members": INPUTS.reference_members * 1}, AttackShapeError, "truth values"),
        (
            {"reference_logits": changed(INPUTS.reference_logits, (2, 3, 1), np.nan)},
            NonFiniteLogitsError,
            "finite",
        ),
        (
            {
                "reference_logits": INPUTS.reference_logits[:0],
                "reference_members": INPUTS.reference_members[:0],
            },
            TooFewReferencesError,
            "none",
        ),
        (
            {"reference_members": changed(INPUTS.reference_members, (slice(None), 4), 1)},
            MissingReferenceError,
            "OUT .* sample 4",
        ),
    ],
)
def test_tables_of_references_that_do_not_fit(name, change, error, message) -> None:
    with pytest.raises(error, match=message):
        ATTACKS[name].scores(replace(INPUTS, **change))


@pytest.mark.parametrize("name", NEED_IN)
def test_online_attacks_need_references_that_saw_the_sample(name) -> None:
    unseen = changed(INPUTS.reference_members, (slice(None), 7), 0)
    with pytest.raises(MissingReferenceError, match=r"IN .* sample 7"):
        ATTACKS[name].scores(replace(INPUTS, reference_members=unseen))


@pytest.mark.parametrize("name", NEED_POPULATION)
def test_an_empty_population_says_nothing(name) -> None:
    empty = replace(
        INPUTS,
        population_logits=INPUTS.population_logits[:0],
        population_labels=INPUTS.population_labels[:0],
        population_reference_logits=INPUTS.population_reference_logits[:, :0],
    )
    with pytest.raises(EmptySamplesError):
        ATTACKS[name].scores(empty)


@pytest.mark.parametrize("name", ["rmia_online", "rmia_offline"])
def test_the_population_is_seen_by_the_same_references(name) -> None:
    fewer = replace(INPUTS, population_reference_logits=INPUTS.population_reference_logits[:-1])
    with pytest.raises(AttackShapeError, match="same 8 references"):
        ATTACKS[name].scores(fewer)


def lira(attack, references, members, variance="automatic"):
    labels = INPUTS.labels
    return attack(INPUTS.logits, labels, references, members, variance)


def test_variances_need_two_references_of_a_kind() -> None:
    nobody = np.zeros((1, 10), np.bool_)
    for variance in ("automatic", "global", "per_sample"):
        with pytest.raises(TooFewReferencesError, match="2 OUT"):
            lira(lira_offline_scores, INPUTS.reference_logits[:1], nobody, variance)
    # One sample has a single OUT reference: enough where the variance is shared.
    single = changed(np.zeros((3, 10), np.bool_), (slice(0, 2), 0), 1)
    shared = lira(lira_offline_scores, INPUTS.reference_logits[:3], single, "global")
    assert np.isfinite(shared).all()
    with pytest.raises(TooFewReferencesError, match="global variance"):
        lira(lira_offline_scores, INPUTS.reference_logits[:3], single, "per_sample")


@pytest.mark.parametrize("variance", ["global", "per_sample"])
def test_copies_of_one_model_are_no_references(variance) -> None:
    copies = np.repeat(INPUTS.reference_logits[:1], 8, axis=0)
    for attack in (lira_online_scores, lira_offline_scores):
        with pytest.raises(IdenticalReferencesError, match="copies"):
            lira(attack, copies, INPUTS.reference_members, variance)


def test_references_are_asked_the_same_queries() -> None:
    queries = np.stack([INPUTS.logits] * 3)
    references = np.stack([INPUTS.reference_logits] * 2, axis=1)
    with pytest.raises(AttackShapeError, match="3 queries"):
        lira_offline_scores(queries, INPUTS.labels, references, INPUTS.reference_members)


@pytest.mark.parametrize(
    "option", [{"a": -0.1}, {"a": 1.1}, {"a": np.nan}, {"gamma": 0.0}, {"gamma": np.inf}]
)
def test_parameters_of_rmia_out_of_range(option) -> None:
    given = {name: getattr(INPUTS, name) for name in ATTACKS["rmia_offline"].needs}
    with pytest.raises(AttackParameterError):
        rmia_offline_scores(**(given | option))


def choose(references, members, population=INPUTS.population_reference_logits, **options):
    return choose_rmia_a(
        INPUTS.labels,
        references,
        members,
        population_labels=INPUTS.population_labels,
        population_reference_logits=population,
        **options,
    )


def test_choosing_a_needs_references_that_differ_in_their_training() -> None:
    references, members = INPUTS.reference_logits, INPUTS.reference_members
    assert choose(references, members, candidates=(0.3,)) == 0.3
    # Two references: only samples that the other one has not seen can be used.
    apart = np.zeros((2, 10), np.bool_)
    apart[0, :3], apart[1, 3:6] = True, True
    population = INPUTS.population_reference_logits[:2]
    assert 0.0 <= choose(references[:2], apart, population) <= 1.0
    with pytest.raises(AttackParameterError, match="candidate"):
        choose(references, members, candidates=())
    with pytest.raises(AttackParameterError, match="from 0 to 1"):
        choose(references, members, candidates=(2.0,))
    with pytest.raises(AttackShapeError, match="same 8 references"):
        choose(references, members, INPUTS.population_reference_logits[:3])
    with pytest.raises(TooFewReferencesError, match="at least two"):
        choose(references, np.zeros_like(members))
    with pytest.raises(TooFewReferencesError, match="at least two"):
        choose(references[:1], members[:1], INPUTS.population_reference_logits[:1])


def test_losses_that_are_no_numbers() -> None:
    with pytest.raises(NonFiniteLogitsError):
        scores_of_losses([0.1, np.nan])


@pytest.mark.parametrize("name", ATTACKS)
def test_nobody_is_asked_about(name) -> None:
    nobody = replace(
        INPUTS,
        logits=INPUTS.logits[:0],
        labels=INPUTS.labels[:0],
        reference_logits=INPUTS.reference_logits[:, :0],
        reference_members=INPUTS.reference_members[:, :0],
    )
    with pytest.raises(EmptySamplesError, match="at least one"):
        ATTACKS[name].scores(nobody)
