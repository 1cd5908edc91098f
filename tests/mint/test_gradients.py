"""Gradient MINT: one backward pass gives every sample's own gradient, condensed to a vector."""

from collections.abc import Callable

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

from auditkit.mint.errors import (
    FeatureShapeError,
    GradientLayerError,
    GradientMemoryError,
    ModelShapeError,
    NonFiniteFeatureError,
    UnknownTapError,
)
from auditkit.mint.gradients import (
    GradientConfig,
    GradientMemory,
    Projection,
    gradient_features,
    gradient_layers,
    gradient_memory,
    per_sample_gradients,
)
from auditkit.mint.metrics import auc
from auditkit.mint.passive import PassiveConfig, fitting_split, train_passive
from schemas import Normalisation
from tests.mint.builders import NARROW, build, model_config
from tests.mint.memorised import SAMPLES, memorised

SMALL = GradientConfig(dimension=64)
GREY = Normalisation(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
PIXELS = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
LABELS = np.array([0, 1, 2, 3, 1], dtype=np.int64)


def one_by_one(
    model: nn.Module, layers: tuple[str, ...], inputs: Tensor, labels: Tensor
) -> dict[str, Tensor]:
    weights = [model.get_parameter(f"{name}.weight") for name in layers]
    samples = [
        torch.autograd.grad(functional.cross_entropy(model(image), label), weights)
        for image, label in zip(inputs.split(1), labels.split(1), strict=True)
    ]
    return {
        name: torch.stack([sample[index] for sample in samples])
        for index, name in enumerate(layers)
    }


def odd_convolutions() -> nn.Module:
    """Groups, strides, dilation and uneven padding; activations that overwrite their input."""
    return nn.Sequential(
        nn.Conv2d(3, 8, (3, 5), stride=(2, 1), padding=(1, 2)),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=8),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 4, 1, groups=2, bias=False),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(4 * 8 * 16, 4),
    )


def transformer() -> nn.Module:
    return timm.create_model(
        "vit_tiny_patch16_224",
        img_size=16,
        patch_size=8,
        embed_dim=16,
        depth=2,
        num_heads=2,
        num_classes=4,
    )


def residual_network() -> nn.Module:
    # Blocks that start as the identity would have no gradients of their own.
    return build(model_config(side=16, arguments=NARROW | {"zero_init_last": False})).audited


MODELS: dict[str, Callable[[], nn.Module]] = {
    "residual network": residual_network,
    "odd convolutions": odd_convolutions,
    "transformer": transformer,
}


@pytest.mark.parametrize("name", MODELS)
def test_gradients_are_those_of_a_loop_over_samples(name: str) -> None:
    torch.manual_seed(0)
    model = MODELS[name]()
    model.train()
    layers = gradient_layers(model)
    inputs, labels = torch.randn(5, 3, 16, 16), torch.from_numpy(LABELS)
    found = per_sample_gradients(model, layers, inputs, labels)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    expected = one_by_one(model.eval(), layers, inputs, labels)
    assert len(layers) > 3
    for layer in layers:
        assert expected[layer].abs().sum() > 0
        torch.testing.assert_close(found[layer], expected[layer], rtol=1e-3, atol=1e-6)


def test_frozen_weights_have_gradients_too() -> None:
    model = odd_convolutions()
    inputs, labels = torch.randn(5, 3, 16, 16), torch.from_numpy(LABELS)
    expected = per_sample_gradients(model, ("0", "7"), inputs, labels)
    model.requires_grad_(requires_grad=False)
    with torch.no_grad():
        found = per_sample_gradients(model, ("0", "7"), inputs, labels)
    torch.testing.assert_close(found, expected)


def test_the_loss_is_the_one_that_trained_the_model() -> None:
    model = odd_convolutions()
    inputs, labels = torch.randn(5, 3, 16, 16), torch.from_numpy(LABELS)

    def doubled(logits: Tensor, targets: Tensor) -> Tensor:
        return 2 * functional.cross_entropy(logits, targets, reduction="none")

    (once,) = per_sample_gradients(model, ["7"], inputs, labels).values()
    (twice,) = per_sample_gradients(model, ["7"], inputs, labels, doubled).values()
    torch.testing.assert_close(twice, 2 * once)
    with pytest.raises(ModelShapeError, match="one loss per sample"):
        per_sample_gradients(model, ["7"], inputs, labels, functional.cross_entropy)


def test_projection_keeps_inner_products_within_its_tolerance() -> None:
    """500 pairs of unit vectors of every angle, one projection each: bias, spread and extremes."""
    sizes, dimension, pairs = {"first": 3_000, "second": 37}, 256, 500
    generator = torch.Generator().manual_seed(0)
    errors = []
    for seed in range(pairs):
        x, other = functional.normalize(torch.randn(2, 3_037, generator=generator))
        x, other = x * (x.abs() > 0.02), other * (other.abs() > 0.01)  # sparse, as gradients are
        angle = seed / pairs
        y = functional.normalize(angle * x + (1 - angle) * other, dim=0)
        x = functional.normalize(x, dim=0)
        projection = Projection(sizes, dimension, seed)
        both = torch.stack((x, y))
        sums = projection("first", both[:, :3_000]) + projection("second", both[:, 3_000:])
        errors.append((sums[0] @ sums[1] - x @ y).item())
    limit = (2 / dimension) ** 0.5
    assert abs(np.mean(errors)) < 4 * limit / pairs**0.5
    assert np.std(errors) < limit
    assert np.abs(errors).max() < 5 * limit


def test_projection_follows_from_its_seed() -> None:
    vectors = torch.randn(2, 100)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = Projection({"a": 100, "b": 7}, 16, 3)("a", vectors)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(Projection({"b": 7, "a": 100}, 16, 3)("a", vectors), first)
    assert not torch.equal(Projection({"a": 100, "b": 7}, 16, 4)("a", vectors), first)


def test_features_are_norms_and_projected_directions() -> None:
    model = residual_network()
    config = GradientConfig(layers=("layer2", "fc"), dimension=4_096, seed=1)
    layers = gradient_layers(model, config.layers)
    assert layers[-1] == "fc"
    assert all(name.startswith("layer2.") for name in layers[:-1])
    found = gradient_features(model, PIXELS, LABELS, GREY, config)
    assert found.shape == (5, len(layers) + 4_096)
    inputs = torch.from_numpy(PIXELS).permute(0, 3, 1, 2) / 255 * 4 - 2
    gradients = one_by_one(model.eval(), layers, inputs, torch.from_numpy(LABELS))
    flat = {name: gradients[name].flatten(start_dim=1) for name in layers}
    for column, name in enumerate(layers):
        norms = flat[name].norm(dim=1).log().numpy(force=True)
        np.testing.assert_allclose(found[:, column], norms, rtol=1e-3, atol=1e-4)
    cosines = sum(functional.normalize(v) @ functional.normalize(v).T for v in flat.values())
    directions = found[:, len(layers) :]
    expected = (cosines / len(layers)).numpy(force=True)
    np.testing.assert_allclose(directions @ directions.T, expected, atol=4 * (2 / 4_096) ** 0.5)


def test_the_batch_size_changes_nothing_but_the_memory() -> None:
    model = residual_network()
    memory = gradient_memory(model, gradient_layers(model), torch.zeros(1, 3, 16, 16))
    tight = GradientConfig(dimension=64, most_bytes=memory.peak(2))
    assert memory.batch(tight.most_bytes) == 2
    roomy = gradient_features(model, PIXELS, LABELS, GREY, SMALL)
    np.testing.assert_allclose(
        gradient_features(model, PIXELS, LABELS, GREY, tight), roomy, rtol=1e-3, atol=1e-4
    )
    np.testing.assert_allclose(
        gradient_features(model, PIXELS[3:4], LABELS[3:4], GREY, SMALL)[0],
        roomy[3],
        rtol=1e-3,
        atol=1e-4,
    )


def test_a_whole_resnet50_fits_in_a_small_part_of_24_gib() -> None:
    model = timm.create_model("resnet50", num_classes=1000)
    layers = gradient_layers(model)
    memory = gradient_memory(model, layers, torch.zeros(1, 3, 64, 64))
    weights = sum(parameter.nbytes for parameter in model.parameters())
    assert len(layers) == 54
    assert memory.fixed == weights + 5 * sum(
        model.get_parameter(f"{name}.weight").numel() for name in layers
    )
    assert memory.per_sample < weights  # a sample's gradients never exist all at once
    assert memory.peak(64) < 24 * 2**30 / 10
    assert memory.batch(4 * 2**30) == 64


def test_memorised_samples_are_found_by_their_gradients() -> None:
    world = memorised()
    kinds = [
        gradient_features(world.model, images, labels, world.normalisation, SMALL)
        for images, labels in (
            (world.members, world.member_labels),
            (world.others, world.other_labels),
        )
    ]
    fitted, tested = fitting_split(SAMPLES, 0.5, seed=0)
    config = PassiveConfig(epochs=10)
    scorer = train_passive(kinds[0][fitted], kinds[1][fitted], config, seed=0)
    assert auc(scorer.scores(kinds[0][tested]), scorer.scores(kinds[1][tested])) > 0.95


def test_layers_that_have_no_such_gradients_are_refused() -> None:
    model = odd_convolutions()
    with pytest.raises(UnknownTapError, match="closest first"):
        gradient_layers(model, ["77"])
    with pytest.raises(GradientLayerError, match="found none"):
        gradient_layers(model, ["1"])
    inputs, labels = torch.randn(5, 3, 16, 16), torch.from_numpy(LABELS)
    with pytest.raises(GradientLayerError, match="found BatchNorm2d"):
        per_sample_gradients(model, ["3"], inputs, labels)
    circular = nn.Conv2d(3, 3, 3, padding=1, padding_mode="circular")
    worded = nn.Conv2d(3, 3, 3, padding="same")
    assert gradient_layers(nn.Sequential(circular, worded, nn.Linear(2, 2))) == ("2",)


def test_layers_that_do_not_act_once_on_every_sample_are_refused() -> None:
    inputs, labels = torch.randn(5, 3, 16, 16), torch.from_numpy(LABELS)
    shared = nn.Linear(768, 768)
    with pytest.raises(GradientLayerError, match="more than once"):
        per_sample_gradients(nn.Sequential(nn.Flatten(), shared, shared), ["1"], inputs, labels)
    mixing = nn.Sequential(nn.Flatten(0, 1), nn.Flatten(), nn.Linear(256, 4))
    with pytest.raises(GradientLayerError, match="15 rows for 5"):
        per_sample_gradients(mixing, ["2"], inputs, labels)

    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.ignored = nn.Linear(768, 4), nn.Linear(768, 4)
            self.never, self.constant = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, images: Tensor) -> Tensor:
            flat = images.flatten(start_dim=1)
            self.ignored(flat)
            return self.used(flat) + self.constant(torch.ones(len(images), 4)).detach()

    layers = ("used", "ignored", "never", "constant")
    with pytest.raises(GradientLayerError, match="constant, ignored, never did not"):
        per_sample_gradients(Idle(), layers, inputs, labels)


def test_too_little_memory_and_damaged_input_are_named() -> None:
    model = residual_network()
    with pytest.raises(GradientMemoryError, match="raise `most_bytes`"):
        gradient_features(model, PIXELS, LABELS, GREY, GradientConfig(most_bytes=1_000))
    with pytest.raises(GradientMemoryError):
        GradientMemory(fixed=10, per_sample=5).batch(14)
    with pytest.raises(FeatureShapeError, match="one label per image"):
        gradient_features(model, PIXELS, LABELS[:4], GREY, SMALL)
    nn.init.constant_(model.fc.bias, torch.nan)
    with pytest.raises(NonFiniteFeatureError, match="diverged"):
        gradient_features(model, PIXELS, LABELS, GREY, SMALL)
