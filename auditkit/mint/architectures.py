"""The six architectures of the paper, and a rule that fits any architecture to small images.

The networks were published for images of 224 pixels and more. Most of them divide the sides by 32,
so that the last maps of an image of 28 to 64 pixels would be single pixels, in which T has nothing
left to look at. `model_for` changes as little as it must: it measures the maps that the output
setup would read and removes strides of the stem until they are large enough. Larger images keep
the published strides.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

import torch
from torch import nn

from auditkit.mint.errors import (
    ModelArgumentError,
    ModelShapeError,
    TapPositionError,
    UnknownArchitectureError,
    UnknownTapError,
)
from auditkit.mint.heads import LEAST_MAP_SIDE, Shape
from auditkit.mint.models import UNFIT, outline, zero_images
from auditkit.mint.taps import find_taps
from schemas import ModelConfig, TapConfig
from schemas.training import HeadName, Scalar

Arguments = dict[str, Scalar | tuple[Scalar, ...]]

# A vision transformer of 224 pixels and patches of 16 reads 14 x 14 patches. Smaller images get
# smaller patches until they have as many, but, where that is possible, none smaller than the 4
# pixels that the authors' own transformer reads in images of 28 to 64 pixels.
PUBLISHED_PATCHES_PER_SIDE = 14
LEAST_PATCH_SIDE = 4
# Attention costs the square of the number of patches; finer patches than these are not offered.
MOST_PATCHES = 32 * 32

# What may be taken from a stem, least change first.
STEMS: tuple[Mapping[str, object], ...] = (
    {},
    {"stem_stride": 1},
    {"stem_stride": 1, "stem_pool": False},
)


@dataclass(frozen=True)
class Architecture:
    """One architecture of the paper: the timm model that it is, and the head that reads it."""

    timm_name: str
    head: HeadName = "convolutional"
    arguments: Mapping[str, Scalar] = field(default_factory=lambda: MappingProxyType({}))


# aMINT, section 4. The authors' published code shows which variants are meant: MobileNet is the
# first version (depthwise separable convolutions, no inverted residuals), the transformer is
# narrow (12 blocks, 64 channels, 8 heads of attention). T reads maps by convolutions and the
# tokens of the transformer by a fully connected layer.
PAPER_ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        "MobileNet": Architecture("mobilenetv1_100"),
        "ResNet50": Architecture("resnet50"),
        "ResNet101": Architecture("resnet101"),
        "DenseNet121": Architecture("densenet121"),
        "Xception": Architecture("legacy_xception"),
        "ViT": Architecture(
            "vit_tiny_patch16_224",
            "fully_connected",
            MappingProxyType({"depth": 12, "embed_dim": 64, "num_heads": 8}),
        ),
    }
)


def model_for(
    architecture: str, classes: int, channels: Literal[1, 3], height: int, width: int
) -> ModelConfig:
    """Describe M for images (channels, height, width), adapted to their size where it must be.

    `architecture` is a name of the paper (`PAPER_ARCHITECTURES`, in any case) or of timm. The
    description keeps every map that a tap setup reads at 2 x 2 pixels (or 4 tokens) at least.

    Raises:
        UnknownArchitectureError: neither the paper nor timm has the name; close names are listed.
        CustomModelError: the name is that of a developer's own module.
        ModelShapeError: no change of the stem or of the patches makes the images fit.

    """
    known = _known(architecture)
    config = ModelConfig(
        architecture=known.timm_name,
        arguments=dict(known.arguments),
        classes=classes,
        channels=channels,
        height=height,
        width=width,
    )
    obstacles: list[str] = []
    for candidate in _candidates(config):
        obstacle = _obstacle(candidate)
        if not obstacle:
            return candidate
        obstacles.append(obstacle)
    raise ModelShapeError(
        f"{architecture!r}: expected images that leave maps of {LEAST_MAP_SIDE} x "
        f"{LEAST_MAP_SIDE} or more, found {height} x {width} pixels ({obstacles[0]}); resize the "
        f"images (for transformers to a multiple of {LEAST_PATCH_SIDE}), or describe the model by "
        "hand as a ModelConfig"
    )


def paper_architecture(name: str) -> Architecture:
    """Return what the paper calls `name`, in any case.

    Raises:
        UnknownArchitectureError: the paper has no such architecture; its six are listed.

    """
    for published, architecture in PAPER_ARCHITECTURES.items():
        if published.casefold() == name.casefold():
            return architecture
    raise UnknownArchitectureError(
        f"expected an architecture of the paper, found {name!r}; choose one of "
        f"{', '.join(PAPER_ARCHITECTURES)}"
    )


def _known(name: str) -> Architecture:
    try:
        return paper_architecture(name)
    except UnknownArchitectureError:
        return Architecture(name)


def _candidates(config: ModelConfig) -> Iterator[ModelConfig]:
    patch = _patch_side(outline(config))
    if patch is not None:
        size: Arguments = {"img_size": (config.height, config.width)}
        for side in _patch_sides(config, patch):
            patches: Arguments = {"patch_size": side}
            yield config.model_copy(update={"arguments": config.arguments | size | patches})
        yield config.model_copy(update={"arguments": config.arguments | size})
    for stem in STEMS:
        yield config.model_copy(update=dict(stem))


def _patch_side(model: nn.Module) -> int | None:
    """Return the side of the patches that a transformer or mixer cuts images into, if it does."""
    found = getattr(getattr(model, "patch_embed", None), "patch_size", None)
    return found[0] if isinstance(found, tuple) else found


def _patch_sides(config: ModelConfig, published: int) -> Iterator[int]:
    """Yield sides that divide the image without a rest, best first."""
    shorter = min(config.height, config.width)
    fitting = [
        side
        for side in range(1, published + 1)
        if config.height % side == 0 and config.width % side == 0
    ]
    usual = [side for side in fitting if side >= LEAST_PATCH_SIDE]
    enough = [side for side in usual if shorter // side >= PUBLISHED_PATCHES_PER_SIDE]
    yield from reversed(enough)
    yield from (side for side in usual if side not in enough)
    for side in reversed(fitting):
        patches = (config.height // side) * (config.width // side)
        if side < LEAST_PATCH_SIDE and patches <= MOST_PATCHES:
            yield side


def _obstacle(config: ModelConfig) -> str:
    """Say why M can't be used as described; nothing where it can."""
    try:
        model = outline(config)
        with torch.device("meta"):
            shapes = _output_shapes(model, config)
    except (ModelArgumentError, TapPositionError, *UNFIT) as error:
        return str(error)
    small = [shape for shape in shapes if not _is_large_enough(shape, model)]
    return f"the last maps have the shape {small[0]}" if small else ""


def _output_shapes(model: nn.Module, config: ModelConfig) -> tuple[Shape, ...]:
    try:
        return find_taps(model, TapConfig(setup="output"), config).shapes
    except UnknownTapError:  # no stages: there is no setup whose maps could collapse
        with torch.no_grad():
            model.eval()(zero_images(config, 1))
        return ()


def _is_large_enough(shape: Shape, model: nn.Module) -> bool:
    if len(shape) == 3:
        channels_last = getattr(model, "output_fmt", "NCHW") == "NHWC"
        return min(shape[:2] if channels_last else shape[1:]) >= LEAST_MAP_SIDE
    return len(shape) == 2 and shape[0] >= LEAST_MAP_SIDE**2
