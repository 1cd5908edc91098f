"""An auditor holds a trained M, some of its members and some strangers, and judges the rest."""

import numpy as np
import pytest
import torch
from torch import nn

from auditkit.mint.errors import (
    FeatureShapeError,
    NonFiniteFeatureError,
    NonFiniteLossError,
    NonFiniteScoreError,
    SingleClassError,
    TapPositionError,
    TapShapeError,
    UnknownTapError,
)
from auditkit.mint.metrics import auc
from auditkit.mint.passive import (
    ActivationMaps,
    PassiveConfig,
    PassiveScorer,
    fitting_split,
    outcome_features,
    read_maps,
    read_outcome,
    train_passive,
)
from auditkit.mint.preprocessing import to_inputs
from tests.mint.builders import build
from tests.mint.memorised import SAMPLES, memorised

TAPS = ("layer3", "layer4")
VANILLA = PassiveConfig(epochs=10)
CNN = PassiveConfig(kind="cnn", channels=32, hidden=(32,))
FAR_TOO_FAST = PassiveConfig(learning_rate=3e37, hidden=())
FITTED, TESTED = fitting_split(SAMPLES, 0.5, seed=0)


def maps(which: str, rows: np.ndarray, taps: tuple[str, ...] = TAPS) -> ActivationMaps:
    world = memorised()
    images = getattr(world, which)[rows]
    return read_maps(world.model, taps, images, world.normalisation)


def outcome(which: str, labels: str, rows: np.ndarray) -> np.ndarray:
    world = memorised()
    return read_outcome(
        world.model, getattr(world, which)[rows], getattr(world, labels)[rows], world.normalisation
    )


def vectors(count: int, shift: float = 0.0, seed: int = 0, width: int = 6) -> np.ndarray:
    drawn = np.random.default_rng(seed).normal(shift, 1.0, (count, width))
    return drawn.astype(np.float32)


def held_out_auc(scorer: PassiveScorer) -> float:
    return auc(scorer.scores(maps("members", TESTED)), scorer.scores(maps("others", TESTED)))


@pytest.mark.parametrize("config", [VANILLA, CNN], ids=lambda config: config.kind)
def test_members_that_the_scorer_never_saw_are_found_by_their_maps(config: PassiveConfig) -> None:
    scorer = train_passive(maps("members", FITTED), maps("others", FITTED), config, seed=0)
    assert held_out_auc(scorer) > 0.75


def test_the_outcome_alone_betrays_a_memorised_sample() -> None:
    members = [outcome("members", "member_labels", rows) for rows in (FITTED, TESTED)]
    others = [outcome("others", "other_labels", rows) for rows in (FITTED, TESTED)]
    scorer = train_passive(members[0], others[0], VANILLA, seed=0)
    assert auc(scorer.scores(members[1]), scorer.scores(others[1])) > 0.95


@pytest.mark.parametrize("config", [VANILLA, CNN], ids=lambda config: config.kind)
def test_wrong_declarations_teach_nothing(config: PassiveConfig) -> None:
    """Half of the "members" are strangers and the other way round: nothing is left to learn."""
    world = memorised()
    mixed = np.concatenate((world.members[FITTED], world.others[FITTED]))
    half = len(FITTED) // 2
    swapped = np.r_[0:half, len(FITTED) : len(FITTED) + half]
    rest = np.setdiff1d(np.arange(len(mixed)), swapped)
    kinds = [
        read_maps(world.model, TAPS, mixed[rows], world.normalisation) for rows in (swapped, rest)
    ]
    assert held_out_auc(train_passive(*kinds, config, seed=0)) == pytest.approx(0.5, abs=0.25)
    declared = train_passive(maps("others", FITTED), maps("members", FITTED), config, seed=0)
    assert held_out_auc(declared) < 0.25  # and swapped altogether, it learns the opposite


@pytest.mark.parametrize("config", [VANILLA, CNN], ids=lambda config: config.kind)
def test_same_seed_same_scores_whatever_the_caller_draws(config: PassiveConfig) -> None:
    def scores(seed: int) -> np.ndarray:
        scorer = train_passive(maps("members", FITTED), maps("others", FITTED), config, seed)
        return scorer.scores(maps("members", TESTED))

    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = scores(5)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    np.testing.assert_array_equal(scores(5), first)
    assert not np.array_equal(scores(6), first)
    assert first.dtype == np.float32


def test_reading_leaves_the_model_as_it_was() -> None:
    model = build().audited.train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    hooks = len(model.layer2._forward_hooks)
    images = np.zeros((3, 32, 32, 3), dtype=np.uint8)
    read_maps(model, ["layer2"], images, memorised().normalisation).batch(np.arange(3))
    assert model.training
    assert len(model.layer2._forward_hooks) == hooks
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_maps_are_those_of_the_model_held_or_read_again() -> None:
    world = memorised()
    rows = np.array([7, 3, SAMPLES - 1])
    with torch.no_grad():
        model = world.model.eval()
        inputs = to_inputs(world.members[rows], world.normalisation)
        stem = model.maxpool(model.act1(model.bn1(model.conv1(inputs))))
        expected = model.layer2(model.layer1(stem))
    for limit in (0, 2**30):
        found = ActivationMaps(
            world.model, ["layer2"], world.members, world.normalisation, most_held_bytes=limit
        )
        (batch,) = found.batch(rows)
        torch.testing.assert_close(batch, expected, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(
            found.maxima()[rows], expected.amax(dim=(2, 3)).numpy(), rtol=1e-4, atol=1e-4
        )


def test_a_map_that_the_model_changes_in_place_is_read_as_it_was() -> None:
    images = np.full((2, 4, 4, 3), 255, dtype=np.uint8)
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(8, 2))
    nn.init.constant_(model[0].weight, 0.0)
    nn.init.constant_(model[0].bias, -1.0)
    found = read_maps(model, ["0"], images, memorised().normalisation)
    np.testing.assert_array_equal(found.maxima(), -np.ones((2, 2)))


def test_tokens_and_vectors_have_maxima_too() -> None:
    class Tokens(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.flatten(start_dim=2).transpose(1, 2)

    images = np.arange(2 * 2 * 2 * 3, dtype=np.uint8).reshape(2, 2, 2, 3)
    normalisation = memorised().normalisation
    model = nn.Sequential(Tokens(), nn.Flatten())
    inputs = to_inputs(images, normalisation)
    found = read_maps(model, ["0", "1"], images, normalisation).maxima()
    expected = torch.cat([inputs.amax(dim=(2, 3)), model(inputs)], dim=1)
    np.testing.assert_array_equal(found, expected.numpy())
    assert read_maps(model, ["0", "1"], images[:0], normalisation).maxima().shape == (0, 15)


def test_unequal_numbers_and_single_rows_do_no_harm() -> None:
    scorer = train_passive(vectors(65, 2.0), vectors(650), PassiveConfig(epochs=3), seed=0)
    fresh, strangers = vectors(300, 2.0, seed=1), vectors(300, seed=1)
    assert auc(scorer.scores(fresh), scorer.scores(strangers)) > 0.95
    balanced = ((scorer.scores(fresh) > 0).mean() + (scorer.scores(strangers) < 0).mean()) / 2
    assert balanced > 0.9
    assert train_passive(vectors(1), vectors(1), VANILLA, 0).scores(vectors(0)).shape == (0,)


def test_outcome_features_say_what_they_say() -> None:
    logits = np.array([[2.0, 0.0, -2.0], [0.0, 1000.0, 0.0]], dtype=np.float32)
    found = outcome_features(logits, np.array([0, 0]))
    log_probabilities = logits[0] - np.log(np.exp(logits[0]).sum())
    assert found.shape == (2, 4 + 3 + 3 + 3)
    probability = np.exp(log_probabilities[0])
    np.testing.assert_allclose(found[0, 0], -log_probabilities[0], rtol=1e-5)
    np.testing.assert_allclose(found[0, 1], np.log(probability / (1 - probability)), rtol=1e-5)
    np.testing.assert_array_equal(found[:, 3], [1, 0])
    np.testing.assert_allclose(found[0, 4:7], log_probabilities, rtol=1e-5)
    np.testing.assert_array_equal(found[:, -3:], [[1, 0, 0], [1, 0, 0]])
    assert np.isfinite(found).all()
    identities = outcome_features(np.zeros((2, 20_000), np.float32), np.array([0, 19_999]))
    assert identities.shape == (2, 14)  # ten thousands of classes are not listed


@pytest.mark.parametrize(("count", "share"), [(1, 0.5), (10, 0.0), (10, 1.0), (0, 0.5)])
def test_nothing_to_fit_or_nothing_to_test_is_refused(count: int, share: float) -> None:
    with pytest.raises(SingleClassError, match="bring more samples"):
        fitting_split(count, share, 0)


def test_the_two_parts_share_no_sample() -> None:
    fitted, tested = fitting_split(11, 0.3, 4)
    assert len(fitted) == 3
    assert sorted([*fitted, *tested]) == list(range(11))


@pytest.mark.parametrize(("members", "others"), [(0, 5), (5, 0)])
def test_one_kind_alone_is_refused(members: int, others: int) -> None:
    with pytest.raises(SingleClassError, match=f"found {members} and {others}"):
        train_passive(vectors(members), vectors(others), VANILLA, 0)


def test_damaged_features_are_refused() -> None:
    damaged = vectors(5)
    damaged[3, 2] = np.nan
    with pytest.raises(NonFiniteFeatureError, match="1 of 5 samples"):
        train_passive(vectors(5), damaged, VANILLA, 0)
    scorer = train_passive(vectors(5), vectors(5), VANILLA, 0)
    with pytest.raises(NonFiniteFeatureError):
        scorer.scores(damaged)
    with pytest.raises(NonFiniteFeatureError, match="M has diverged"):
        outcome_features(damaged, np.zeros(5, dtype=np.int64))
    broken = build().audited
    nn.init.constant_(broken.layer2[0].conv1.weight, torch.nan)
    images = np.zeros((3, 32, 32, 3), dtype=np.uint8)
    with pytest.raises(NonFiniteFeatureError, match="layer2"):
        read_maps(broken, ["layer2"], images, memorised().normalisation)


def test_features_of_another_shape_are_refused() -> None:
    with pytest.raises(FeatureShapeError, match="equal features"):
        train_passive(vectors(5), vectors(5, width=7), VANILLA, 0)
    with pytest.raises(FeatureShapeError, match="as the scorer was fitted on"):
        train_passive(vectors(5), vectors(5), VANILLA, 0).scores(vectors(5, width=7))
    with pytest.raises(FeatureShapeError, match=r"\(samples, features\)"):
        train_passive(np.zeros((5, 2, 2), np.float32), vectors(5), VANILLA, 0)
    with pytest.raises(FeatureShapeError, match="read_maps"):
        train_passive(vectors(5), vectors(5), CNN, 0)
    with pytest.raises(FeatureShapeError, match="one label per sample"):
        outcome_features(vectors(5), np.zeros(4, dtype=np.int64))
    with pytest.raises(FeatureShapeError, match="labels from 0 to 5"):
        outcome_features(vectors(5), np.full(5, 6))


def test_a_diverging_fit_is_named() -> None:
    with pytest.raises(NonFiniteLossError, match="learning rate"):
        train_passive(vectors(5, width=50), vectors(5, width=50), FAR_TOO_FAST, 0)
    once = FAR_TOO_FAST.model_copy(update={"epochs": 1})
    with pytest.raises(NonFiniteScoreError, match="learning rate"):
        train_passive(vectors(5, width=50), vectors(5, width=50), once, 0).scores(
            vectors(5, width=50)
        )


def test_the_cnn_needs_spatial_maps() -> None:
    rows = np.arange(4)
    with pytest.raises(TapShapeError, match="kind = 'vanilla'"):
        train_passive(
            maps("members", rows, ("layer4", "fc")), maps("others", rows, ("layer4", "fc")), CNN, 0
        )


def test_taps_that_do_not_exist_or_do_not_run_are_named() -> None:
    world = memorised()
    with pytest.raises(UnknownTapError, match="layer4"):
        maps("members", TESTED, ("layer44",))
    model = nn.Sequential(nn.Flatten(), nn.Linear(768, 2))
    model[1].spare = nn.Linear(2, 2)
    with pytest.raises(TapPositionError, match="did not run"):
        read_maps(model, ["1.spare"], world.members, world.normalisation)
    twice = nn.Linear(768, 768)
    with pytest.raises(TapPositionError, match="more than once"):
        read_maps(
            nn.Sequential(nn.Flatten(), twice, twice), ["1"], world.members, world.normalisation
        )
    with pytest.raises(TapShapeError, match="one row per sample"):
        read_maps(
            nn.Sequential(nn.Flatten(0, 1), nn.Linear(16, 2)),
            ["1"],
            world.members,
            world.normalisation,
        )
