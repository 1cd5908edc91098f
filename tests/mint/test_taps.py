"""Choosing taps: the setups of the paper on its architectures, and names on any other module."""

import pytest
import torch
from torch import Tensor, nn

from auditkit.mint.enhanced import EnhancedAuditedModel
from auditkit.mint.errors import (
    CustomModelError,
    ModelShapeError,
    TapPositionError,
    TapShapeError,
    UnknownTapError,
)
from auditkit.mint.models import build_audited_model
from auditkit.mint.taps import resolve_taps
from schemas import MintConfig, TapConfig
from tests.mint.builders import build, model_config

NARROW_VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "num_heads": 2}

ONE_BLOCK = {"layers": (1, 1, 1, 1), "channels": (8, 8, 8, 8)}
TWO_BLOCKS = {"layers": (2, 2, 2, 2), "channels": (8, 8, 8, 8)}
DENSE = {"block_config": (2, 2, 2, 2)}

SETUPS = [
    ("resnet18", TWO_BLOCKS, "entry", ("layer1.0", "layer1")),
    ("resnet18", ONE_BLOCK, "entry", ("layer1.0.act1", "layer1")),
    ("resnet18", ONE_BLOCK, "middle", ("layer2", "layer3")),
    ("resnet18", ONE_BLOCK, "output", ("layer4.0.act1", "layer4")),
    ("mobilenetv2_050", {}, "entry", ("blocks.0.0.bn1", "blocks.0")),
    ("mobilenetv2_050", {}, "middle", ("blocks.1", "blocks.2")),
    ("densenet121", DENSE, "entry", ("features.denseblock1.denselayer1", "features.denseblock1")),
    ("densenet121", DENSE, "middle", ("features.denseblock2", "features.denseblock3")),
    ("legacy_xception", {}, "middle", ("block3.rep.0", "block12")),
    ("vit_tiny_patch16_224", NARROW_VIT, "entry", ("blocks.1", "blocks.2")),
    ("vit_tiny_patch16_224", NARROW_VIT, "middle", ("blocks.5", "blocks.8")),
    ("vit_tiny_patch16_224", NARROW_VIT, "output", ("blocks.10", "blocks.11")),
]


@pytest.mark.parametrize(("architecture", "arguments", "setup", "expected"), SETUPS)
def test_setups(
    architecture: str, arguments: dict[str, object], setup: str, expected: tuple[str, ...]
) -> None:
    side = 64 if architecture in {"legacy_xception", "densenet121"} else 32
    config = model_config(architecture, side, arguments=arguments)
    model = build_audited_model(config, 0)
    assert resolve_taps(model, TapConfig.model_validate({"setup": setup}), config) == expected


def test_taps_come_in_running_order() -> None:
    built = build(taps=TapConfig(setup="named", modules=("layer3", "layer1", "layer2")))
    assert built.taps.names == ("layer1", "layer2", "layer3")
    assert built.aad_shapes == {"layer1": (8, 8, 8), "layer2": (8, 4, 4), "layer3": (16, 2, 2)}


def test_unknown_name_lists_close_ones_first() -> None:
    with pytest.raises(UnknownTapError, match=r"'layer5'; closest first: layer\d,"):
        build(taps=TapConfig(setup="named", modules=("layer5",)))


@pytest.mark.parametrize("name", ["layer1.0.bn2", "layer2.0.downsample"])
def test_last_tap_inside_a_residual_branch_is_refused(name: str) -> None:
    with pytest.raises(TapPositionError, match="choose the enclosing block"):
        build(taps=TapConfig(setup="named", modules=(name,)))


def test_earlier_taps_may_lie_inside_a_branch() -> None:
    names = ("layer1.0.bn2", "layer2")
    assert build(taps=TapConfig(setup="named", modules=names)).taps.names == names


class Plain(nn.Module):
    """A developer's own network, with an activation that is used twice and changes in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.shared = nn.ReLU(inplace=True)
        self.unused = nn.Linear(2, 2)
        self.last = nn.Linear(4, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.shared(self.first(inputs))
        hidden = self.shared(self.second(hidden))
        scores: Tensor = self.last(hidden.mean(dim=(2, 3)))
        return scores


def enhance(*modules: str, module: nn.Module | None = None) -> EnhancedAuditedModel:
    taps = TapConfig(setup="named", modules=modules) if modules else TapConfig()
    mint = MintConfig(head="fully_connected", hidden=(8,))
    config = model_config("custom:plain", 8)
    return EnhancedAuditedModel.build((config, taps, mint), 0, model=module or Plain())


def test_own_module_with_named_taps() -> None:
    assert enhance("second", "first").aad_shapes == {"first": (4, 8, 8), "second": (4, 8, 8)}


def test_one_module_may_be_enhanced_twice() -> None:
    module = Plain()
    first, second = enhance("first", module=module), enhance("first", "second", module=module)
    images = torch.zeros(2, 3, 8, 8)
    assert first.eval()(images)[1].shape == second.eval()(images)[1].shape == (2,)


def test_own_module_needs_names_and_a_custom_architecture() -> None:
    with pytest.raises(UnknownTapError, match="use setup = 'named'"):
        enhance()
    with pytest.raises(CustomModelError, match="custom:<name>"):
        EnhancedAuditedModel.build((model_config(), TapConfig(), MintConfig()), 0, model=Plain())
    with pytest.raises(ModelShapeError, match=r"expected class scores of shape \(2, 4\)"):
        enhance("0", module=nn.Sequential(nn.Flatten(), nn.Linear(192, 5)))


def test_taps_that_run_twice_or_never_are_refused() -> None:
    with pytest.raises(TapPositionError, match="more than once"):
        enhance("shared")
    with pytest.raises(TapPositionError, match="unused did not run"):
        enhance("unused", "first")


def test_maps_are_read_before_anything_changes_them_in_place() -> None:
    enhanced = enhance("first", "second")
    assert enhanced.taps.copied == {"first", "second"}
    inputs = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    seen: list[Tensor] = []
    enhanced.mint.register_forward_pre_hook(lambda _, args: seen.extend(args[0]))
    enhanced.eval().joint(inputs, 2)
    assert all((tap < 0).any() for tap in seen)
    torch.testing.assert_close(seen[0], enhanced.audited.first(inputs))


def test_map_without_a_row_per_sample_is_refused() -> None:
    class Windows(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            return inputs.reshape(-1, 3, 4, 8)

    class Model(Plain):
        def __init__(self) -> None:
            super().__init__()
            self.windows = Windows()

        def forward(self, inputs: Tensor) -> Tensor:
            return super().forward(self.windows(inputs).reshape(inputs.shape))

    with pytest.raises(TapShapeError, match="found 6 rows for 3 samples"):
        enhance("windows", "second", module=Model())


def test_output_that_is_no_map_is_refused() -> None:
    class Pair(nn.Module):
        def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
            return inputs, inputs

    class Model(Plain):
        def __init__(self) -> None:
            super().__init__()
            self.pair = Pair()

        def forward(self, inputs: Tensor) -> Tensor:
            return super().forward(self.pair(inputs)[0])

    with pytest.raises(TapShapeError, match="found tuple"):
        enhance("pair", module=Model())
