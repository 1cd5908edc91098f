"""Training with T in other hands: the same outcome as with both models in one process."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from auditkit.evidence.canonical import sha256_hex
from auditkit.mint import split_training, steps
from auditkit.mint.enhanced import EnhancedAuditedModel
from auditkit.mint.errors import (
    HeadElsewhereError,
    HeldStateError,
    MapsFileError,
    NonFiniteLossError,
    PartsError,
)
from auditkit.mint.evaluation import score_cohort
from auditkit.mint.objective import NO_CODE
from auditkit.mint.split_training import HeldMint, HeldStep, pack_maps, unpack_maps
from schemas import (
    MintConfig,
    ModelConfig,
    Normalisation,
    OptimiserConfig,
    TapConfig,
    TrainingConfig,
)

SEED = 5
STEPS = 4
ROWS = steps.RowCounts(told=6, silent=2, told_only=2, external=6)
MEMBERS = ROWS.members
LENGTH = 32
NORMALISATION = Normalisation(mean=(0.5,) * 3, std=(0.25,) * 3)
NARROW = {"layers": (1, 1, 1, 1), "channels": (8, 8, 16, 16)}
ADAM = OptimiserConfig(name="adam", learning_rate=0.003, l2=1e-4)
SGD = OptimiserConfig(name="sgd", learning_rate=0.05, momentum=0.9)


def make_config(optimiser: OptimiserConfig = SGD, **mint: Any) -> TrainingConfig:
    return TrainingConfig(
        name="split",
        model=ModelConfig(
            architecture="resnet18", arguments=NARROW, classes=3, channels=3, height=32, width=32
        ),
        taps=TapConfig(setup="entry"),
        mint=MintConfig(channels=8, hidden=(16,), code_length=LENGTH, custody="auditor", **mint),
        optimiser=optimiser,
        epochs=1,
        batch_size=8,
        external_batch_size=6,
        threads=1,
    )


def make_codes(config: TrainingConfig) -> np.ndarray | None:
    if config.mint.evidence == "membership":
        return None
    return np.random.default_rng(3).normal(size=(MEMBERS, LENGTH)).astype(np.float32)


def own_rows(config: TrainingConfig) -> np.ndarray | None:
    if config.mint.evidence == "membership":
        return None
    return np.concatenate((np.arange(MEMBERS), np.full(ROWS.external, NO_CODE)))


def make_batches(config: TrainingConfig, steps_taken: int = STEPS) -> list[steps.Batch]:
    generator = np.random.default_rng(1)
    return [
        steps.new_batch(
            generator.integers(0, 256, (16, 32, 32, 3), dtype=np.uint8),
            generator.integers(0, 3, 16),
            ROWS,
            words=generator.integers(0, 2**32, 16, dtype=np.uint32),
            config=config,
            normalisation=NORMALISATION,
            own_codes=own_rows(config),
        )
        for _ in range(steps_taken)
    ]


def train_together(
    config: TrainingConfig, steps_taken: int = STEPS
) -> tuple[EnhancedAuditedModel, list[steps.Losses]]:
    model = EnhancedAuditedModel.build(config, SEED).to(memory_format=torch.channels_last)
    optimiser = steps.new_optimiser(model, config.optimiser)
    objective = steps.new_objective(config.mint, make_codes(config))
    found = []
    model.train()
    for number, batch in enumerate(make_batches(config, steps_taken)):
        torch.manual_seed(number)
        losses = steps.joint_losses(model, objective, batch, config)
        optimiser.zero_grad()
        losses.total.backward()
        optimiser.step()
        found.append(losses)
    return model, found


class Link:
    """The way between the two, with everything packed as on the wire."""

    def __init__(self, config: TrainingConfig, held: HeldMint, shapes: Sequence[Any]) -> None:
        self.config, self.held, self.shapes = config, held, shapes
        self.number = 0

    def exchange(self, maps: Sequence[Tensor]) -> HeldStep:
        precision = self.config.mint.wire_precision
        rows = len(maps[0])
        there = unpack_maps(pack_maps(maps, precision), self.shapes, rows, precision)
        told = split_training.targets(ROWS, own_rows(self.config))
        rate = self.config.optimiser.learning_rate
        held = self.held.step(there, told, learning_rate=rate, seed=self.number)
        self.number += 1
        back = unpack_maps(pack_maps(held.gradients, precision), self.shapes, rows, precision)
        return replace(held, gradients=back)


def train_apart(
    config: TrainingConfig, restart_after: int | None = None, steps_taken: int = STEPS
) -> tuple[EnhancedAuditedModel, HeldMint, list[steps.Losses]]:
    model = EnhancedAuditedModel.build(config, SEED, head=False)
    model.to(memory_format=torch.channels_last)
    shapes = list(model.aad_shapes.values())
    link = Link(config, HeldMint(config, shapes, SEED, make_codes(config)), shapes)
    optimiser = steps.new_optimiser(model, config.optimiser)
    objective = steps.new_objective(config.mint.model_copy(update={"mint_weight": 0.0}))
    found = []
    model.train()
    for number, batch in enumerate(make_batches(config, steps_taken)):
        if number == restart_after:
            state = link.held.state(number)
            link.held = HeldMint(config, shapes, SEED + 1, make_codes(config))
            assert link.held.restore(state) == number
            assert link.held.state(number) == state
        torch.manual_seed(number)
        losses = split_training.split_losses(model, objective, batch, config, link.exchange)
        optimiser.zero_grad()
        losses.total.backward()
        optimiser.step()
        found.append(losses)
    return model, link.held, found


@pytest.mark.parametrize("optimiser", [SGD, ADAM], ids=["sgd", "adam"])
@pytest.mark.parametrize("evidence", ["membership", "codes"])
@pytest.mark.parametrize("head", ["convolutional", "fully_connected", "strided"])
def test_in_float32_the_weights_are_those_of_joint_training_bit_for_bit(
    head: str, evidence: str, optimiser: OptimiserConfig
) -> None:
    config = make_config(optimiser, head=head, evidence=evidence, wire_precision="float32")
    together, expected = train_together(config)
    model, held, found = train_apart(config)
    assert split_training.compose(model.weights(), held.weights()) == together.weights()
    for one, other in zip(found, expected, strict=True):
        assert (one.task, one.mint, one.mint_accuracy) == (
            other.task,
            other.mint,
            other.mint_accuracy,
        )
        assert one.total.item() == pytest.approx(other.total.item(), rel=1e-6)


@pytest.mark.parametrize("head", ["convolutional", "fully_connected"])
def test_training_in_bfloat16_comes_to_the_same_too(head: str) -> None:
    config = make_config(head=head, wire_precision="float32").model_copy(
        update={"precision": "bfloat16"}
    )
    together, _ = train_together(config)
    model, held, _ = train_apart(config)
    assert split_training.compose(model.weights(), held.weights()) == together.weights()


@pytest.mark.parametrize("evidence", ["membership", "codes"])
@pytest.mark.parametrize("head", ["convolutional", "fully_connected", "strided"])
def test_in_half_precision_one_step_is_off_by_rounding_alone(head: str, evidence: str) -> None:
    # Later steps multiply what is off: a unit that was just below zero is then above.
    config = make_config(evidence=evidence, head=head)
    start = EnhancedAuditedModel.build(config, SEED)
    together, _ = train_together(config, steps_taken=1)
    model, held, _ = train_apart(config, steps_taken=1)
    apart = load(split_training.compose(model.weights(), held.weights()))
    moved, off = 0.0, 0.0
    for name, weights in together.named_parameters():
        moved += float((weights - start.state_dict()[name]).square().sum())
        off += float((weights - apart[name]).square().sum())
    # Half precision rounds to 2^-11 of a value: once on the maps' way, once on the gradients'.
    assert 0 < off < (2 * 2**-11) ** 2 * moved


def test_a_restart_from_a_kept_state_changes_nothing() -> None:
    config = make_config(ADAM, evidence="codes", wire_precision="float32")
    model, held, _ = train_apart(config)
    again, other, _ = train_apart(config, restart_after=2)
    assert (again.weights(), other.state(STEPS)) == (model.weights(), held.state(STEPS))


def test_a_frozen_t_keeps_its_weights_and_still_moves_m() -> None:
    config = make_config(frozen=True, head="fully_connected", wire_precision="float32")
    model, held, _ = train_apart(config)
    shapes = list(model.aad_shapes.values())
    assert held.weights() == HeldMint(config, shapes, SEED).weights()
    together, _ = train_together(config)
    assert split_training.compose(model.weights(), held.weights()) == together.weights()


def test_dropout_of_t_follows_its_own_seed_and_leaves_the_generator_alone() -> None:
    config = make_config(dropout=0.5, head="fully_connected", wire_precision="float32")
    model = EnhancedAuditedModel.build(config, SEED, head=False)
    shapes = list(model.aad_shapes.values())
    maps = [torch.randn(14, *shape) for shape in shapes]
    told = split_training.targets(ROWS, None)
    before = torch.get_rng_state()
    losses = [
        HeldMint(config, shapes, SEED).step(maps, told, learning_rate=0.1, seed=seed).loss
        for seed in (1, 1, 2)
    ]
    assert torch.equal(torch.get_rng_state(), before)
    assert losses[0] == losses[1] != losses[2]


def test_what_t_is_told_is_what_a_batch_says() -> None:
    for evidence in ("membership", "codes"):
        config = make_config(evidence=evidence)
        batch = make_batches(config)[0]
        told = split_training.targets(ROWS, own_rows(config))
        assert torch.equal(told.membership, batch.membership)
        if batch.own_codes is None:
            assert told.own_codes is None
        else:
            assert told.own_codes is not None
            assert torch.equal(told.own_codes, batch.own_codes)


def test_half_precision_neither_loses_small_gradients_nor_overflows() -> None:
    tiny = torch.tensor([[1e-12, -3e-13, 0.0]])
    huge = torch.tensor([[1e6, -7e5, 1.0]])
    nothing = torch.zeros(1, 3)
    found = unpack_maps(pack_maps([tiny, huge, nothing], "float16"), [(3,)] * 3, 1, "float16")
    for values, expected in zip(found, (tiny, huge, nothing), strict=True):
        # Eleven bits, relative to the largest value of the map.
        assert (values - expected).abs().max() <= expected.abs().max() * 2**-11


def test_scores_are_those_of_the_model_that_is_put_together() -> None:
    config = make_config(evidence="codes", wire_precision="float32")
    model, held, _ = train_apart(config)
    images = np.random.default_rng(9).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(5) % 3
    answers = split_training.audited_answers(model, images, labels, NORMALISATION)
    codes = make_codes(config)
    assert codes is not None
    blind, own = held.scores(answers.maps, codes[:5])
    whole = EnhancedAuditedModel.build(config, 0)
    whole.load_weights(split_training.compose(model.weights(), held.weights()))
    expected = score_cohort(whole, images, labels, NORMALISATION, members=codes, own=codes[:5])
    assert np.allclose(blind, expected.scores, rtol=1e-4)
    assert own is not None
    assert expected.own is not None
    assert np.allclose(own, expected.own, rtol=1e-4, atol=1e-4)
    assert np.allclose(answers.task_losses, expected.task_losses, rtol=1e-4)
    assert np.array_equal(answers.correct, expected.correct)


def test_without_t_nothing_can_be_said_about_members() -> None:
    model = EnhancedAuditedModel.build(make_config(), SEED, head=False)
    model.eval()
    assert all(name.startswith("audited.") for name in load(model.weights()))
    with pytest.raises(HeadElsewhereError, match="only the auditor's server"):
        model(torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize(
    ("size", "most", "expected"),
    [(10, None, 10), (10, 20, 10), (10, 3, 3), (1000, 500, 500), (0, 5, 0), (999, 500, 500)],
)
def test_evaluated_rows_are_spread_over_the_cohort(
    size: int, most: int | None, expected: int
) -> None:
    assert len(range(size)[split_training.evaluated_rows(size, most)]) == expected


def bad_maps() -> dict[str, bytes]:
    good = [torch.ones(2, 3)]
    return {
        "nothing": b"",
        "cut": pack_maps(good, "float16")[:-1],
        "pickle": b"\x80\x04" + bytes(50),
        "rows": pack_maps([torch.ones(3, 3)], "float16"),
        "shape": pack_maps([torch.ones(2, 4)], "float16"),
        "precision": pack_maps(good, "float32"),
        "no scale": save({"map/000": torch.ones(2, 3).half()}),
        "infinite scale": save(
            {"map/000": torch.ones(2, 3).half(), "scale/000": torch.tensor(float("inf"))}
        ),
        "not a number": save(
            {"map/000": torch.full((2, 3), float("nan")).half(), "scale/000": torch.tensor(1.0)}
        ),
        "one more": pack_maps([*good, *good], "float16"),
    }


@pytest.mark.parametrize("name", sorted(bad_maps()))
def test_other_maps_are_refused(name: str) -> None:
    with pytest.raises(MapsFileError):
        unpack_maps(bad_maps()[name], [(3,)], 2, "float16")


def test_a_training_that_has_diverged_is_not_sent() -> None:
    with pytest.raises(MapsFileError, match="diverged"):
        pack_maps([torch.tensor([[float("nan")]])], "float16")


def test_the_holder_notices_a_training_that_diverges() -> None:
    config = make_config(head="fully_connected")
    model = EnhancedAuditedModel.build(config, SEED, head=False)
    shapes = list(model.aad_shapes.values())
    held = HeldMint(config, shapes, SEED)
    state = load(held.state(0))
    broken = {
        name: torch.full_like(value, float("nan")) if value.is_floating_point() else value
        for name, value in state.items()
    }
    held.restore(save(broken))
    maps = [torch.ones(14, *shape) for shape in shapes]
    with pytest.raises(NonFiniteLossError):
        held.step(maps, split_training.targets(ROWS, None), learning_rate=0.1, seed=1)


def test_states_of_another_t_are_refused() -> None:
    config, wider = make_config(), make_config(head="strided")
    shapes = list(EnhancedAuditedModel.build(config, SEED, head=False).aad_shapes.values())
    held = HeldMint(config, shapes, SEED)
    for data in (b"", held.state(1)[:-1], HeldMint(wider, shapes, SEED).state(1)):
        with pytest.raises(HeldStateError):
            held.restore(data)


def test_parts_are_told_apart_and_nothing_else_gets_in() -> None:
    config = make_config()
    whole = EnhancedAuditedModel.build(config, SEED)
    audited = EnhancedAuditedModel.build(config, SEED, head=False).weights()
    mint = HeldMint(config, list(whole.aad_shapes.values()), SEED).weights()
    assert sha256_hex(split_training.compose(audited, mint)) == sha256_hex(whole.weights())
    for parts in ((mint, audited), (whole.weights(), mint), (audited[:-1], mint), (audited, b"")):
        with pytest.raises(PartsError):
            split_training.compose(*parts)
