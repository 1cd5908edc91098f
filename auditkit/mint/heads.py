"""The MINT Model T: heads that tell members from non-members by their activation maps.

Every head gives one membership logit per sample, (B,), or says its membership code, (B, b).
Outputs that say codes all have the norm of a code: how sure T is must not tell members from
strangers to a reader who has no codes to compare with.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from auditkit.mint.errors import HeadElsewhereError, TapShapeError
from schemas import MintConfig

Shape = tuple[int, ...]
HeadFactory = Callable[[Sequence[Shape], MintConfig], nn.Module]

# A convolution of 3 x 3 sees no neighbourhood in a smaller map.
LEAST_MAP_SIDE = 2
# Strided convolutions halve a map until its longer side is this small.
STRIDED_SIDE = 4


class ConvolutionalHead(nn.Module):
    """Convolution and max pooling per tap, then a shared multilayer perceptron (aMINT, 3.2).

    Takes spatial maps (B, C, H, W) only. Batch normalisation makes a score depend on the other
    rows of a training batch, so members and non-members must come in one mixed batch.
    """

    def __init__(self, shapes: Sequence[Shape], config: MintConfig) -> None:
        super().__init__()
        for shape in shapes:
            _check_spatial(shape)
        self.branches = nn.ModuleList(_branch(shape, config.channels) for shape in shapes)
        self.classifier = _perceptron(len(shapes) * config.channels, config)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Turn one map per tap, each (B, C, H, W), into outputs (B,) or (B, b)."""
        features = [
            branch(tap).amax(dim=(2, 3)) for branch, tap in zip(self.branches, maps, strict=True)
        ]
        return _outputs(self.classifier(torch.cat(features, dim=1)))


class FullyConnectedHead(nn.Module):
    """A multilayer perceptron on maps that are normalised per sample and keep their positions.

    Takes spatial maps (B, C, H, W) and token maps (B, N, C) alike. A score depends on its own
    sample only.
    """

    def __init__(self, shapes: Sequence[Shape], config: MintConfig) -> None:
        super().__init__()
        self.classifier = _perceptron(sum(torch.Size(shape).numel() for shape in shapes), config)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Turn one map per tap, each with B rows, into outputs (B,) or (B, b)."""
        flat = [_normalised(tap.flatten(start_dim=1).float()) for tap in maps]
        return _outputs(self.classifier(torch.cat(flat, dim=1)))


class StridedHead(nn.Module):
    """Strided convolutions per tap until its map is small, then a multilayer perceptron.

    Keeps positions, as `FullyConnectedHead` does, and learns by convolution what a shifted image
    has in common with the image, so that it can read the large maps of early taps. Takes spatial
    maps (B, C, H, W) only; batch normalisation as in `ConvolutionalHead`.
    """

    def __init__(self, shapes: Sequence[Shape], config: MintConfig) -> None:
        super().__init__()
        for shape in shapes:
            _check_spatial(shape)
        self.branches = nn.ModuleList(_strided(shape, config.channels) for shape in shapes)
        self.classifier = _perceptron(
            sum(strided_features(shape, config.channels) for shape in shapes), config
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Turn one map per tap, each (B, C, H, W), into outputs (B,) or (B, b)."""
        flat = [
            _normalised(branch(tap).flatten(start_dim=1).float())
            for branch, tap in zip(self.branches, maps, strict=True)
        ]
        return _outputs(self.classifier(torch.cat(flat, dim=1)))


class HeadElsewhere(nn.Module):
    """Stands where T would be, in a process that does not hold it. Has no weights."""

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Refuse to answer.

        Raises:
            HeadElsewhereError: always.
        """
        raise HeadElsewhereError(
            f"expected the MINT Model to read {len(maps)} maps, found none here: its configuration "
            "has custody = 'auditor', so only the auditor's server can say anything about members"
        )


HEADS: dict[str, HeadFactory] = {
    "convolutional": ConvolutionalHead,
    "fully_connected": FullyConnectedHead,
    "strided": StridedHead,
}


def build_head(shapes: Sequence[Shape], config: MintConfig) -> nn.Module:
    """Build the MINT Model that `config` names for taps of the given shapes, without batch axis.

    Raises:
        TapShapeError: the head cannot read a map of that shape.

    """
    return HEADS[config.head](shapes, config)


def _normalised(flat: Tensor) -> Tensor:
    return functional.layer_norm(flat, flat.shape[1:])


def strided_features(shape: Shape, channels: int) -> int:
    """Return how many numbers `StridedHead` makes of a map (C, H, W) before its perceptron."""
    depth, height, width = shape
    for stage in range(_halvings(shape)):
        depth, height, width = channels << stage, (height + 1) // 2, (width + 1) // 2
    return depth * height * width


def _outputs(raw: Tensor) -> Tensor:
    outputs = raw.float()
    if outputs.shape[1] == 1:
        return outputs.squeeze(1)
    return functional.normalize(outputs, dim=1) * math.sqrt(outputs.shape[1])


def _branch(shape: Shape, channels: int) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(shape[0], channels, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.MaxPool2d(kernel_size=2),
        nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
    ]
    return nn.Sequential(*layers)


def _strided(shape: Shape, channels: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    inputs = shape[0]
    for stage in range(_halvings(shape)):
        width = channels << stage
        layers += [
            nn.Conv2d(inputs, width, kernel_size=3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.GELU(),
        ]
        inputs = width
    return nn.Sequential(*layers)


def _halvings(shape: Shape) -> int:
    return max(0, math.ceil(math.log2(max(shape[1:]) / STRIDED_SIDE)))


def _perceptron(inputs: int, config: MintConfig) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in config.hidden:
        layers += [nn.Linear(inputs, width), *_activation(width, config)]
        layers.append(nn.Dropout(config.dropout))
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, config.outputs))


def _activation(width: int, config: MintConfig) -> list[nn.Module]:
    # Hundreds of targets per sample pull so hard that plain rectified units die for good.
    if config.evidence == "codes":
        return [nn.LayerNorm(width), nn.GELU()]
    return [nn.ReLU()]


def _check_spatial(shape: Shape) -> None:
    if len(shape) != 3 or min(shape[1:]) < LEAST_MAP_SIDE:
        raise TapShapeError(
            "a head with convolutions expects maps (channels, height, width) of at least "
            f"{LEAST_MAP_SIDE} x {LEAST_MAP_SIDE}, found {shape}; "
            "use the fully_connected head, earlier taps or larger images"
        )
