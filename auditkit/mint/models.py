"""Building the Audited Model M from its description, the same bits on every machine."""

import difflib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any, TypeVar

import timm
import torch
from torch import Tensor, nn

from auditkit.mint.errors import (
    CustomModelError,
    ModelArgumentError,
    ModelShapeError,
    ModelSizeError,
    UnknownArchitectureError,
)
from auditkit.mint.task_losses import replace_classifier
from schemas import ModelConfig
from schemas.training import CUSTOM_PREFIX

# Set by us, or able to read files, the network or pickles: never taken from a description.
RESERVED_ARGUMENTS = frozenset(
    {
        "cache_dir",
        "checkpoint_path",
        "exportable",
        "features_only",
        "in_chans",
        "no_jit",
        "num_classes",
        "pretrained",
        "pretrained_cfg",
        "pretrained_cfg_overlay",
        "pretrained_strict",
        "scriptable",
    }
)

# 4 GB of float32 weights: more than the common image models have, less than stops a server that
# rebuilds a model from a description that somebody else wrote.
MOST_PARAMETERS = 1_000_000_000

# How foreign model code complains about arguments and image sizes that do not suit it.
UNFIT = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)

# torch has one generator and one thread count for the whole process. A server that builds two
# models at a time would give each some of the other's random numbers.
_BUILDING = Lock()

Module = TypeVar("Module", bound=nn.Module)


def build_audited_model(config: ModelConfig, seed: int) -> nn.Module:
    """Build M from a timm architecture with initial weights that follow from `seed` alone.

    Raises:
        UnknownArchitectureError: no architecture has that name; close names are listed.
        ModelArgumentError: an argument is reserved or refused by the architecture.
        ModelSizeError: the model is too large.
        CustomModelError: the configuration names the user's own module, which only they can build.
        ModelShapeError: the model does not take such images, or gives no row of class scores.

    """
    _check_description(config)
    model = initialised(lambda: _create(config), seed)
    check_model(model, config)
    return model


def outline(config: ModelConfig) -> nn.Module:
    """Build M on torch's meta device: every module and shape, no weights and no computation.

    Raises:
        UnknownArchitectureError, ModelArgumentError, CustomModelError: see `build_audited_model`.

    """
    _check_description(config)
    with _BUILDING, torch.random.fork_rng(devices=[]), torch.device("meta"):
        return _create(config)


def initialised(build: Callable[[], Module], seed: int) -> Module:
    """Run `build` so that the random numbers it draws depend on `seed` alone.

    The caller's random state and thread count are left as they were. One model is built at a time.

    Raises:
        ModelSizeError: the model is too large; found out before any memory is taken.

    """
    with _BUILDING, torch.random.fork_rng(devices=[]), thread_count(1):
        with torch.device("meta"):
            _check_size(build())
        torch.manual_seed(seed)
        return build()


def _check_size(model: nn.Module) -> None:
    count = sum(parameter.numel() for parameter in model.parameters())
    if count > MOST_PARAMETERS:
        raise ModelSizeError(
            f"expected at most {MOST_PARAMETERS:,} parameters, found {count:,}; choose a smaller "
            "model, a smaller head or earlier taps"
        )


def check_model(model: nn.Module, config: ModelConfig) -> None:
    """Refuse a model that does not turn (B, C, H, W) images into (B, classes) scores.

    Raises:
        ModelShapeError: see above.

    """
    images = zero_images(config, 2)
    with evaluating(model), torch.no_grad():
        try:
            scores = model(images)
        except UNFIT as error:
            raise ModelShapeError(
                f"{config.architecture!r} refuses images of shape {tuple(images.shape)}: {error}; "
                "choose another image size, or pass the size through `arguments`"
            ) from error
    found = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
    if found != (2, config.classes):
        raise ModelShapeError(
            f"{config.architecture!r}: expected class scores of shape (2, {config.classes}) for "
            f"two images, found {found}"
        )


def device_of(model: nn.Module) -> torch.device:
    """Return the device of M's parameters; the processor's where it has none."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def zero_images(config: ModelConfig, count: int) -> Tensor:
    """Return `count` all-zero inputs (count, C, H, W) for a dry run."""
    return torch.zeros(count, config.channels, config.height, config.width)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put `model` in evaluation mode for a while, then restore the mode of every submodule."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _check_description(config: ModelConfig) -> None:
    name = config.architecture
    if name.startswith(CUSTOM_PREFIX):
        raise CustomModelError(
            f"{name!r} is the developer's own module: expected the module itself, found none; "
            "pass it as `model`"
        )
    if not timm.is_model(name):
        raise UnknownArchitectureError(_unknown_architecture(name))
    reserved = sorted(RESERVED_ARGUMENTS & set(config.arguments))
    if reserved:
        raise ModelArgumentError(
            f"arguments of {name!r}: expected none that are set by the toolkit, "
            f"found {', '.join(reserved)}; remove them"
        )


def _create(config: ModelConfig) -> nn.Module:
    arguments: dict[str, Any] = dict(config.arguments)
    try:
        model: nn.Module = timm.create_model(
            config.architecture,
            pretrained=False,
            in_chans=config.channels,
            num_classes=config.classes,
            **arguments,
        )
    except UNFIT as error:
        raise ModelArgumentError(
            f"{config.architecture!r} refuses its arguments {config.arguments}: {error}"
        ) from error
    _adapt_stem(model, config)
    replace_classifier(model, config.task_loss)
    return model


def _adapt_stem(model: nn.Module, config: ModelConfig) -> None:
    """Keep more of a small image: a smaller first stride, no pooling after the stem."""
    if config.stem_stride is not None:
        first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
        if first is None:
            raise ModelArgumentError(
                f"{config.architecture!r} has no convolution whose stride `stem_stride` could set; "
                "remove it"
            )
        first.stride = (config.stem_stride, config.stem_stride)
    if not config.stem_pool:
        _remove_stem_pool(model, config.architecture)


def _remove_stem_pool(model: nn.Module, architecture: str) -> None:
    pool_types = (nn.MaxPool2d, nn.AvgPool2d)
    for name, module in model.named_modules():
        if isinstance(module, pool_types):
            parent, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(parent), attribute, nn.Identity())
            return
    raise ModelArgumentError(
        f"{architecture!r} has no pooling layer that `stem_pool = false` could remove; remove it"
    )


def _unknown_architecture(name: str) -> str:
    close = difflib.get_close_matches(name, timm.list_models(), n=5, cutoff=0.5)
    hint = f"did you mean {', '.join(close)}?" if close else "see timm.list_models()"
    return f"expected a timm architecture, found {name!r}; {hint}"


@contextmanager
def thread_count(count: int) -> Iterator[None]:
    """Compute with so many threads until the end of the block: sums depend on their number."""
    threads = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
