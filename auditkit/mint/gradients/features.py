"""Gradient features: the norm of every layer's gradient and a projection of its direction."""

from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from auditkit.mint.errors import FeatureShapeError, NonFiniteFeatureError
from auditkit.mint.gradients.memory import gradient_memory
from auditkit.mint.gradients.per_sample import (
    TaskLoss,
    cross_entropy,
    gradient_layers,
    visit_gradients,
)
from auditkit.mint.gradients.projection import Projection
from auditkit.mint.models import device_of
from auditkit.mint.preprocessing import to_inputs
from schemas import Normalisation
from schemas.base import Count, Schema

# Fitted on a few thousand samples, a MINT Model overfits longer directions.
DIMENSION = 64
MOST_BYTES = 4 * 2**30

# A gradient that has vanished has no direction, and its norm no logarithm.
LEAST_NORM = 1e-12


class GradientConfig(Schema):
    """Which gradients are taken and how far they are condensed."""

    layers: tuple[str, ...] = Field(
        default=(), description="modules of M with the layers inside them; () takes all of M"
    )
    dimension: Annotated[int, Field(ge=1)] = Field(
        default=DIMENSION, description="length of the projected direction"
    )
    seed: Count = Field(default=0, description="of the projection; the same for all samples")
    most_bytes: Annotated[int, Field(ge=1)] = Field(
        default=MOST_BYTES, description="memory that sets the number of samples per batch"
    )


def gradient_features(
    model: nn.Module,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    normalisation: Normalisation,
    config: GradientConfig | None = None,
    *,
    loss: TaskLoss = cross_entropy,
) -> NDArray[np.float32]:
    """Describe every sample by the gradient of its loss with respect to M's weights (gMINT).

    Each layer's gradient is divided by its norm, so that no layer outweighs the others. The
    features are the logarithms of the norms and one random projection of all the directions.

    The gradients of a whole ResNet50 are 102 MB per sample. Here a layer's gradients exist only
    while the backward pass is at that layer (at most 9.4 MB per sample, and a copy), the
    projection is a table of five bytes per weight, and the batch is as large as `most_bytes`
    allows. For ResNet50 with all its 54 layers the computed peak is 0.2 GiB and 26 MiB per sample
    of 64 x 64 pixels, so 1.8 GiB at 64 samples (measured on CPU: 2.7 GiB of resident memory, of
    which the libraries and M took 0.9); at 224 x 224 pixels, 110 MiB per sample and 7.1 GiB.

    Args:
        model: the trained M.
        images: (N, H, W, C) pixels, not augmented.
        labels: (N,) classes.
        normalisation: pixel scaling of M's training.
        config: layers, projection, memory.
        loss: M's task loss, sample by sample.

    Returns:
        (N, layers + dimension), for `auditkit.mint.passive.train_passive`.

    Raises:
        UnknownTapError, GradientLayerError: a layer does not exist or has no such gradients.
        GradientMemoryError: `most_bytes` is too little for one sample.
        FeatureShapeError: there is not one label per image.
        NonFiniteFeatureError: a gradient is infinite or not a number.

    """
    config = config or GradientConfig()
    if labels.shape != (len(images),):
        raise FeatureShapeError(
            f"expected one label per image, {(len(images),)}, found {labels.shape}"
        )
    layers = gradient_layers(model, config.layers)
    device = device_of(model)
    blank = to_inputs(np.zeros((1, *images.shape[1:]), dtype=np.uint8), normalisation).to(device)
    batch = gradient_memory(model, layers, blank).batch(config.most_bytes)
    sizes = {name: model.get_parameter(f"{name}.weight").numel() for name in layers}
    projection = Projection(sizes, config.dimension, config.seed, device)
    features = np.empty((len(images), len(layers) + config.dimension), dtype=np.float32)
    for start in range(0, len(images), batch):
        rows = slice(start, start + batch)
        inputs = to_inputs(images[rows], normalisation).to(device)
        targets = torch.from_numpy(np.ascontiguousarray(labels[rows])).to(device)
        features[rows] = _condense(model, layers, inputs, targets, projection, loss=loss)
    if not np.isfinite(features).all():
        raise NonFiniteFeatureError("expected finite gradients, found others; M has diverged")
    return features


def _condense(
    model: nn.Module,
    layers: tuple[str, ...],
    inputs: Tensor,
    labels: Tensor,
    projection: Projection,
    *,
    loss: TaskLoss,
) -> NDArray[np.float32]:
    norms: dict[str, Tensor] = {}
    direction = torch.zeros(len(inputs), projection.dimension, device=inputs.device)

    def visit(name: str, gradients: Tensor) -> None:
        vectors = gradients.flatten(start_dim=1)
        norms[name] = vectors.norm(dim=1).clamp_min(LEAST_NORM)
        direction.add_(projection(name, vectors) / norms[name][:, None])

    visit_gradients(model, layers, inputs, labels, visit, loss=loss)
    columns = [norms[name].log()[:, None] for name in layers]
    found: NDArray[np.float32] = (
        torch.cat([*columns, direction / len(layers) ** 0.5], dim=1).cpu().numpy()
    )
    return found
