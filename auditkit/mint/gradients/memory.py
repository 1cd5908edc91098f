"""How much memory per-sample gradients take, and how many samples therefore go at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from auditkit.mint.errors import GradientMemoryError
from auditkit.mint.gradients.per_sample import Layer, layer_of, visit_gradients
from auditkit.mint.gradients.projection import TABLE_BYTES

# Larger batches were no faster, on CPU or GPU.
MOST_BATCH = 64

# Per layer: the gradients, and the copy that the projection deals out.
GRADIENT_COPIES = 2

# On the way back: what returns to a layer, what it passes on, and a sum of two branches.
RETURNED_COPIES = 3


@dataclass(frozen=True)
class GradientMemory:
    """Peak memory of `gradient_features`, in bytes, beside the images and the libraries."""

    fixed: int  # M's parameters and the projection's tables
    per_sample: int  # M's activations and the gradients of the layer that takes most

    def peak(self, batch: int) -> int:
        """Return the peak for batches of that many samples."""
        return self.fixed + batch * self.per_sample

    def batch(self, most_bytes: int) -> int:
        """Return the largest number of samples, up to 64, that fits in `most_bytes`.

        Raises:
            GradientMemoryError: not even one does.

        """
        if self.peak(1) > most_bytes:
            raise GradientMemoryError(
                f"expected at least {self.peak(1):,} bytes for the gradients of one sample, found "
                f"a limit of {most_bytes:,}; raise `most_bytes` or choose fewer layers"
            )
        return min(MOST_BATCH, (most_bytes - self.fixed) // self.per_sample)


def gradient_memory(model: nn.Module, layers: Sequence[str], image: Tensor) -> GradientMemory:
    """Work out by one dry run on `image` (1, C, H, W) how much memory the gradients take.

    Raises:
        GradientLayerError: see `visit_gradients`.

    """
    parameters = {parameter.data_ptr() for parameter in model.parameters()}
    watched = {name: layer_of(model, name) for name in layers}
    saved: dict[int, int] = {}
    outputs: dict[str, Tensor] = {}

    def count(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in parameters:
            saved[tensor.data_ptr()] = max(saved.get(tensor.data_ptr(), 0), tensor.nbytes)
        return tensor

    def note(name: str, _module: nn.Module, _arguments: object, output: Tensor) -> None:
        outputs[name] = output.detach()

    handles = [layer.register_forward_hook(partial(note, name)) for name, layer in watched.items()]
    label = torch.zeros(1, dtype=torch.int64, device=image.device)
    try:
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            visit_gradients(model, layers, image, label, lambda *_: None)
    finally:
        for handle in handles:
            handle.remove()
    table_bytes = TABLE_BYTES * sum(layer.weight.numel() for layer in watched.values())
    return GradientMemory(
        fixed=sum(parameter.nbytes for parameter in model.parameters()) + table_bytes,
        per_sample=sum(saved.values())
        + RETURNED_COPIES * max(output.nbytes for output in outputs.values())
        + max(_gradient_bytes(watched[name], output) for name, output in outputs.items()),
    )


def _gradient_bytes(layer: Layer, output: Tensor) -> int:
    """Return what one sample's gradient takes, with the patches that a convolution unfolds."""
    own = GRADIENT_COPIES * layer.weight.nbytes
    if isinstance(layer, nn.Linear):
        return own
    return own + output.shape[2:].numel() * layer.groups * layer.weight[0].nbytes
