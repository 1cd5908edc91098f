"""Margin losses of face identification for the Audited Model M, as one kind of last layer.

ArcFace, CosFace and AdaFace are cross-entropy on scaled cosines between a sample's feature and
one weight vector per class, where training makes the sample's own class harder to reach by a
margin. So a loss is a last layer here: it gives plain scaled cosines in evaluation mode and
cosines with the margin in training mode, and everything after it stays cross-entropy.

    replace_classifier(model, TaskLossConfig(name="arcface"))
    with margin_labels(model, labels):
        loss = functional.cross_entropy(model(inputs), labels)
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from auditkit.mint.errors import ClassifierError, MarginLabelsError
from schemas.training import TaskLossConfig, TaskLossName

# What the papers train with.
PUBLISHED_MARGINS: dict[TaskLossName, float] = {"arcface": 0.5, "cosface": 0.35, "adaface": 0.4}

# AdaFace, section 3.3: how far norms spread before they are clipped, and the share that a new
# batch has in the running statistics (one minus the paper's momentum of 0.99).
NORM_CONCENTRATION = 0.333
NORM_UPDATE = 0.01

# A feature shorter than this has no direction worth a gradient.
LEAST_NORM = 1e-3
# The derivative of the sine has no bound near an angle of zero; half a degree is close enough.
LEAST_SINE = 1e-2


class AngularMargin(nn.Module):
    """ArcFace: cos(theta + m) (Deng et al., 2019, Eq. 3)."""

    def __init__(self, margin: float) -> None:
        super().__init__()
        self.margin = margin

    def forward(self, cosine: Tensor, norm: Tensor) -> Tensor:
        """Turn the own class's cosines (B,) into cosines with the margin (B,)."""
        return shifted_cosine(cosine, torch.full_like(norm, self.margin))


class AdditiveMargin(nn.Module):
    """CosFace: cos(theta) - m (Wang et al., 2018, Eq. 4)."""

    def __init__(self, margin: float) -> None:
        super().__init__()
        self.margin = margin

    def forward(self, cosine: Tensor, _norm: Tensor) -> Tensor:
        """Turn the own class's cosines (B,) into cosines with the margin (B,)."""
        return cosine - self.margin


class AdaptiveMargin(nn.Module):
    """AdaFace: cos(theta + g_angle) - g_add (Kim et al., 2022, section 3.3).

    With q in [-1, 1] the feature's norm against the running mean and deviation of norms,
    g_angle = -m q and g_add = m q + m: long features, which stand for good images, get an additive
    margin, short ones an angular one; q = -1 is ArcFace and q = 0 is CosFace. No gradient passes
    through q. The first batch sets the running statistics; both are buffers, part of the weights.
    """

    mean: Tensor
    deviation: Tensor
    updates: Tensor

    def __init__(self, margin: float) -> None:
        super().__init__()
        self.margin = margin
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("deviation", torch.zeros(()))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def forward(self, cosine: Tensor, norm: Tensor) -> Tensor:
        """Turn the own class's cosines (B,) of features with norms (B,) into ones with the margin.

        Takes the batch's norms into the running statistics first.
        """
        quality = self._quality(norm.detach())
        return shifted_cosine(cosine, -self.margin * quality) - self.margin * (quality + 1.0)

    def _quality(self, norm: Tensor) -> Tensor:
        share = torch.where(self.updates == 0, 1.0, NORM_UPDATE)
        self.mean.lerp_(norm.mean().to(self.mean), share.to(self.mean))
        self.deviation.lerp_(norm.std(correction=0).to(self.deviation), share.to(self.deviation))
        self.updates += 1
        spread = self.deviation.clamp_min(LEAST_NORM) / NORM_CONCENTRATION
        return ((norm - self.mean) / spread).clamp(-1.0, 1.0)


MARGINS: dict[TaskLossName, Callable[[float], nn.Module]] = {
    "arcface": AngularMargin,
    "cosface": AdditiveMargin,
    "adaface": AdaptiveMargin,
}


class CosineClassifier(nn.Module):
    """The last layer: scaled cosines between unit features and unit class vectors, no bias.

    In evaluation mode these are the logits. In training mode the label's cosine carries the
    margin; `margin_labels` says which label each row has.
    """

    def __init__(self, features: int, classes: int, config: TaskLossConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, features))
        nn.init.normal_(self.weight, std=1.0 / math.sqrt(features))
        self.scale = config.scale
        margin = PUBLISHED_MARGINS[config.name] if config.margin is None else config.margin
        self.margin = MARGINS[config.name](margin)
        self.labels: Tensor | None = None

    def forward(self, features: Tensor) -> Tensor:
        """Turn features (B, F) into logits (B, classes), in float32 or better.

        Raises:
            MarginLabelsError: in training mode, labels are missing or not one per row.

        """
        with torch.autocast(features.device.type, enabled=False):
            exact = features if features.dtype == torch.float64 else features.float()
            cosines = functional.linear(
                functional.normalize(exact, dim=1, eps=LEAST_NORM),
                functional.normalize(self.weight.to(exact), dim=1, eps=LEAST_NORM),
            )
            if self.training:
                cosines = self._with_margin(cosines, exact)
            return self.scale * cosines

    def _with_margin(self, cosines: Tensor, features: Tensor) -> Tensor:
        found = None if self.labels is None else tuple(self.labels.shape)
        if self.labels is None or found != (len(cosines),):
            raise MarginLabelsError(
                f"expected the labels of {len(cosines)} rows to train with a margin, found "
                f"{'none' if found is None else found}; train inside `margin_labels`"
            )
        column = self.labels[:, None]
        own = cosines.gather(1, column).squeeze(1)
        harder = self.margin(own, torch.linalg.vector_norm(features, dim=1))
        return cosines.scatter(1, column, harder[:, None])


def replace_classifier(model: nn.Module, config: TaskLossConfig) -> None:
    """Give a timm model the last layer that its loss needs, in place; `softmax` changes nothing.

    The new weights are drawn from torch's generator; see `models.initialised`.

    Raises:
        ClassifierError: the model's classifier is not one linear layer.

    """
    if config.name == "softmax":
        return
    last, name = _classifier(model)
    layer = CosineClassifier(last.in_features, last.out_features, config).to(last.weight)
    parent, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(parent), attribute, layer)


@contextmanager
def margin_labels(model: nn.Module, labels: Tensor) -> Iterator[None]:
    """Tell the margin the labels (B,) of the rows that reach the last layer, for a while.

    Does nothing to models without a margin, so that one training loop serves all losses.
    """
    layers = [module for module in model.modules() if isinstance(module, CosineClassifier)]
    for layer in layers:
        layer.labels = labels
    try:
        yield
    finally:
        for layer in layers:
            layer.labels = None


def shifted_cosine(cosine: Tensor, angle: Tensor) -> Tensor:
    """Return cos(arccos(cosine) + angle), made monotone and with bounded gradients.

    Where the sum leaves [0, pi], the cosine would turn back and reward the wrong direction. Below
    0 the result stays 1; above pi it goes on falling at the slope of the cosine itself, without a
    step.

    Args:
        cosine: any shape, in [-1, 1].
        angle: radians in [-pi, pi], of the same shape.

    """
    cosine_of_angle = angle.cos()
    sine = (1.0 - cosine.square()).clamp_min(LEAST_SINE**2).sqrt()
    shifted = cosine * cosine_of_angle - sine * angle.sin()
    below_zero = (angle < 0) & (cosine > cosine_of_angle)
    above_pi = (angle > 0) & (cosine < -cosine_of_angle)
    shifted = torch.where(below_zero, 1.0, shifted)
    return torch.where(above_pi, cosine - (1.0 - cosine_of_angle), shifted)


def _classifier(model: nn.Module) -> tuple[nn.Linear, str]:
    """Return the last linear layer and its name in the model."""
    find = getattr(model, "get_classifier", None)
    last = find() if callable(find) else None
    names = [name for name, module in model.named_modules() if module is last]
    if not isinstance(last, nn.Linear) or len(names) != 1:
        found = "no `get_classifier`" if find is None else f"a {type(last).__name__}"
        raise ClassifierError(
            "expected a model whose `get_classifier()` is one linear layer, found "
            f"{found}; use the softmax loss or another architecture"
        )
    return last, names[0]
