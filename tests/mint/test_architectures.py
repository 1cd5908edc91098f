"""The paper's six architectures on images of any size, and what a user is told when it can't be."""

from functools import cache

import pytest
import timm
import torch
from torch import nn

from auditkit.mint.architectures import PAPER_ARCHITECTURES, model_for, paper_architecture
from auditkit.mint.enhanced import EnhancedAuditedModel
from auditkit.mint.errors import (
    CustomModelError,
    ModelShapeError,
    TapShapeError,
    UnknownArchitectureError,
)
from auditkit.mint.heads import build_head
from auditkit.mint.models import build_audited_model, outline
from auditkit.mint.objective import MEMBER, NON_MEMBER, Objective
from auditkit.mint.taps import find_taps
from schemas import MintConfig, ModelConfig, TapConfig
from schemas.training import HeadName, TapSetup

CLASSES = 5
SETUPS: tuple[TapSetup, ...] = ("entry", "middle", "output")
SMALL_IMAGES = [(1, 28), (3, 32), (3, 64)]
LARGE_IMAGES = [112, 250]
TRANSFORMERS = {"ViT"}
HEADS: tuple[HeadName, ...] = ("convolutional", "fully_connected")

# Fewer channels, the same blocks and strides: what a step does to the maps stays the same.
SLIM: dict[str, dict[str, object]] = {
    "ResNet50": {"channels": (8, 8, 16, 16)},
    "ResNet101": {"channels": (8, 8, 16, 16)},
    "DenseNet121": {"growth_rate": 8},
}

architectures = pytest.mark.parametrize("architecture", PAPER_ARCHITECTURES)
small_images = pytest.mark.parametrize(("channels", "side"), SMALL_IMAGES)
setups = pytest.mark.parametrize("setup", SETUPS)


@cache
def described(architecture: str, channels: int, side: int) -> ModelConfig:
    return model_for(architecture, CLASSES, 1 if channels == 1 else 3, side, side)


def suited(architecture: str) -> tuple[HeadName, ...]:
    return HEADS[1:] if architecture in TRANSFORMERS else HEADS


@cache
def built(architecture: str, channels: int, side: int) -> tuple[nn.Module, ModelConfig]:
    config = described(architecture, channels, side)
    slim = config.model_copy(update={"arguments": config.arguments | SLIM.get(architecture, {})})
    return build_audited_model(slim, 3), slim


@setups
@small_images
@architectures
def test_small_images_keep_their_maps_and_one_joint_step_moves_both_models(
    architecture: str, channels: int, side: int, setup: TapSetup
) -> None:
    module, config = built(architecture, channels, side)
    taps = find_taps(module, TapConfig(setup=setup), config)
    for shape in taps.shapes:
        if architecture in TRANSFORMERS:
            assert shape[0] == (side // 4) ** 2 + 1
        else:
            assert min(shape[1:]) >= 2
    random = torch.Generator().manual_seed(1)
    images = torch.randn(4, channels, side, side, generator=random)
    labels, membership = torch.tensor([0, 1]), torch.tensor([MEMBER] * 2 + [NON_MEMBER] * 2)
    for head in suited(architecture):
        mint = build_head(taps.shapes, MintConfig(head=head, channels=4, hidden=(4,)))
        enhanced = EnhancedAuditedModel(module, mint, taps).train()
        optimiser = torch.optim.SGD(enhanced.parameters(), lr=0.1)
        moved = (next(module.parameters()), list(mint.parameters())[-1])
        before = [parameter.detach().clone() for parameter in moved]
        logits, scores = enhanced.joint(images, 2)
        assert (logits.shape, scores.shape) == ((2, CLASSES), (4,))
        losses = Objective(1.0, 1.0)(logits, labels, scores, membership)
        losses.total.backward()
        optimiser.step()
        for parameter, old in zip(moved, before, strict=True):
            assert not torch.equal(parameter, old)


@architectures
def test_large_images_keep_the_published_strides(architecture: str) -> None:
    for side in LARGE_IMAGES:
        config = described(architecture, 3, side)
        assert (config.stem_stride, config.stem_pool) == (None, True)


def test_transformers_get_as_many_patches_as_they_were_published_with() -> None:
    sides = {
        side: described("ViT", 3, side).arguments["patch_size"]
        for side in (28, 30, 32, 64, 112, 224, 250)
    }
    assert sides == {28: 4, 30: 5, 32: 4, 64: 4, 112: 8, 224: 16, 250: 10}
    wide = model_for("ViT", CLASSES, 3, 64, 96)
    assert wide.arguments["img_size"] == (64, 96)
    with torch.device("meta"):
        shapes = find_taps(outline(wide), TapConfig(), wide).shapes
    assert shapes == ((16 * 24 + 1, 64),) * 2


def test_stems_change_as_little_as_they_must() -> None:
    assert described("ResNet50", 3, 64).stem_stride is None
    assert (described("ResNet50", 3, 32).stem_stride, described("ResNet50", 3, 32).stem_pool) == (
        1,
        True,
    )
    assert not described("DenseNet121", 1, 28).stem_pool


@pytest.mark.parametrize("name", ["resnet18", "swin_tiny_patch4_window7_224", "pvt_v2_b0"])
def test_any_other_timm_model_is_fitted_by_the_same_rule(name: str) -> None:
    config = described(name, 3, 32)
    with torch.device("meta"):
        model = outline(config)
        shapes = [find_taps(model, TapConfig(setup=setup), config).shapes for setup in SETUPS]
    assert all(min(sorted(shape)[:2]) >= 2 for pair in shapes for shape in pair)


def test_names_of_the_paper_are_found_in_any_case() -> None:
    assert model_for("xception", 2, 3, 64, 64).architecture == "legacy_xception"
    assert all(timm.is_model(known.timm_name) for known in PAPER_ARCHITECTURES.values())


def test_unknown_names_list_what_there_is() -> None:
    with pytest.raises(UnknownArchitectureError, match=r"choose one of MobileNet, ResNet50,"):
        paper_architecture("VGG")
    with pytest.raises(UnknownArchitectureError, match=r"did you mean .*resnet50"):
        model_for("resnet_50", CLASSES, 3, 32, 32)
    with pytest.raises(CustomModelError, match="pass it as `model`"):
        model_for("custom:mine", CLASSES, 3, 32, 32)


def test_images_that_leave_nothing_to_read_are_refused() -> None:
    with pytest.raises(ModelShapeError, match=r"maps of 2 x 2 or more, found 8 x 8 pixels"):
        model_for("ResNet50", CLASSES, 3, 8, 8)


def test_looking_at_an_architecture_draws_no_random_numbers() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    model_for("MobileNet", CLASSES, 3, 32, 32)
    assert torch.equal(torch.rand(1), expected)


@setups
def test_tokens_carry_no_spatial_map_for_convolutions(setup: TapSetup) -> None:
    parts = (described("ViT", 3, 32), TapConfig(setup=setup), MintConfig(head="convolutional"))
    with pytest.raises(TapShapeError, match=r"found \(65, 64\); use the fully_connected head"):
        EnhancedAuditedModel.build(parts, 0)
    assert paper_architecture("ViT").head == "fully_connected"
