"""Gradients of M's loss sample by sample, layer by layer, in one pass over a batch.

The weight gradient of a linear layer is the product of what comes in and of what comes back, and
that of a convolution is the same over the patches it sees (Goodfellow, 2015; Rochette et al.,
2019). So one ordinary backward pass is enough, and only one layer's gradients exist at a time.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from auditkit.mint.errors import GradientLayerError, ModelShapeError
from auditkit.mint.models import evaluating
from auditkit.mint.taps import check_names

# Exactly these: a subclass may pad its input or standardise its weights before it multiplies.
DIFFERENTIABLE = (nn.Linear, nn.Conv2d)

Layer = nn.Linear | nn.Conv2d
TaskLoss = Callable[[Tensor, Tensor], Tensor]  # logits (B, classes), labels (B,) -> losses (B,)
Visit = Callable[[str, Tensor], None]  # a layer's name, its gradients (B, *weight.shape)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of every sample, (B,)."""
    return functional.cross_entropy(logits, labels, reduction="none")


def gradient_layers(model: nn.Module, names: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the linear layers and convolutions among the named modules and inside them.

    Without names, all of M's.

    Raises:
        UnknownTapError: M has no such module; close names are listed.
        GradientLayerError: a named module has none, or a convolution pads in an unknown way.

    """
    check_names(model, names)
    layers = {name: module for name, module in model.named_modules() if _is_usable(module)}
    for chosen in names or ("",):
        if not any(_within(name, chosen) for name in layers):
            raise GradientLayerError(
                f"expected linear layers or convolutions in {chosen or 'M'!r}, found none of "
                "torch's own types; choose other modules"
            )
    return tuple(
        name for name in layers if not names or any(_within(name, chosen) for chosen in names)
    )


def layer_of(model: nn.Module, name: str) -> Layer:
    """Return the linear layer or convolution of that name.

    Raises:
        UnknownTapError: M has no such module; close names are listed.
        GradientLayerError: the module is another one.

    """
    check_names(model, [name])
    layer = model.get_submodule(name)
    if not isinstance(layer, nn.Linear | nn.Conv2d) or not _is_usable(layer):
        raise GradientLayerError(
            f"layer {name!r}: expected torch's own linear layer or convolution padded with a "
            f"number of zeros, found {type(layer).__name__}; name layers as `gradient_layers` does"
        )
    return layer


def visit_gradients(
    model: nn.Module,
    layers: Sequence[str],
    inputs: Tensor,
    labels: Tensor,
    visit: Visit,
    *,
    loss: TaskLoss = cross_entropy,
) -> None:
    """Call `visit` with the per-sample weight gradients of every layer, last layer first.

    M runs in evaluation mode, so that batch normalisation couples no samples. Its parameters'
    own gradients are neither computed nor changed.

    Args:
        model: the trained M.
        layers: names of linear layers and convolutions; see `gradient_layers`.
        inputs: (B, C, H, W), on M's device.
        labels: (B,) classes.
        visit: takes a layer's name and its gradients (B, *weight.shape), which it may change.
        loss: M's task loss, sample by sample.

    Raises:
        GradientLayerError: a layer runs never or twice, mixes the rows of the batch, or does not
            act on the loss.

    """
    waiting = set(layers)
    ran: set[str] = set()

    def take(name: str, arrived: Tensor, returned: Tensor) -> None:
        waiting.discard(name)
        visit(name, _weight_gradients(layer_of(model, name), arrived, returned))

    def watch(name: str, _: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        _check_run(name, output, len(inputs), again=name in ran)
        ran.add(name)
        if not output.requires_grad:
            return  # the images cannot reach it; it is named below
        # The tensor's own hook sees the gradient of this value, even if M changes it in place.
        arrived = arguments[0].detach()
        output.register_hook(partial(take, name, arrived))  # type: ignore[no-untyped-call]

    handles = [layer_of(model, name).register_forward_hook(partial(watch, name)) for name in layers]
    try:
        with evaluating(model), torch.enable_grad():
            # A gradient with respect to the images alone passes every layer on its way, and
            # spares the weights' own.
            images = inputs.detach().requires_grad_()
            logits = model(images)
            losses = loss(logits, labels)
            if losses.shape != labels.shape:
                raise ModelShapeError(
                    f"expected one loss per sample, {tuple(labels.shape)}, found "
                    f"{tuple(losses.shape)}; use a loss without reduction"
                )
            torch.autograd.grad(losses.sum(), images)
    finally:
        for handle in handles:
            handle.remove()
    if waiting:
        raise GradientLayerError(
            f"expected every layer to run and to act on the loss; {', '.join(sorted(waiting))} "
            "did not; choose other layers"
        )


def per_sample_gradients(
    model: nn.Module,
    layers: Sequence[str],
    inputs: Tensor,
    labels: Tensor,
    loss: TaskLoss = cross_entropy,
) -> dict[str, Tensor]:
    """Return the gradients (B, *weight.shape) of every layer at once; for small models.

    Raises:
        GradientLayerError: see `visit_gradients`.

    """
    found: dict[str, Tensor] = {}
    visit_gradients(model, layers, inputs, labels, found.__setitem__, loss=loss)
    return {name: found[name] for name in layers}


def _is_usable(module: nn.Module) -> bool:
    if type(module) not in DIFFERENTIABLE:
        return False
    return not isinstance(module, nn.Conv2d) or (
        module.padding_mode == "zeros" and not isinstance(module.padding, str)
    )


def _within(name: str, chosen: str) -> bool:
    return not chosen or name == chosen or name.startswith(f"{chosen}.")


def _check_run(name: str, output: Tensor, rows: int, *, again: bool) -> None:
    if again:
        raise GradientLayerError(
            f"expected every layer to run once per forward pass; {name!r} runs more than once; "
            "choose a layer that is not shared"
        )
    if output.shape[0] != rows:
        raise GradientLayerError(
            f"layer {name!r}: expected one row per sample, found {output.shape[0]} rows for "
            f"{rows} samples; choose another layer"
        )


def _weight_gradients(layer: Layer, arrived: Tensor, returned: Tensor) -> Tensor:
    rows = len(returned)
    if isinstance(layer, nn.Linear):
        seen = arrived.reshape(rows, -1, layer.in_features)
        return returned.reshape(rows, -1, layer.out_features).transpose(1, 2) @ seen
    patches = functional.unfold(
        arrived,
        kernel_size=layer.kernel_size,
        dilation=layer.dilation,
        padding=cast(tuple[int, ...], layer.padding),  # never a word: see `_is_usable`
        stride=layer.stride,
    )
    seen = patches.reshape(rows * layer.groups, -1, patches.shape[2])
    back = returned.reshape(rows * layer.groups, -1, patches.shape[2])
    return (back @ seen.transpose(1, 2)).reshape(rows, *layer.weight.shape)
