"""Where the MINT Model reads: Entry, Middle and Output setups (aMINT, section 3.2), or names."""

import difflib
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from auditkit.mint.errors import TapPositionError, UnknownTapError
from auditkit.mint.models import evaluating, zero_images
from auditkit.mint.reading import TapPlan, plan_taps
from schemas import ModelConfig, TapConfig

# Transformers and mixers have blocks of one resolution and no stages: their blocks are divided
# into as many stages as a convolutional network has.
STAGES_OF_A_UNIFORM_MODEL = 4

WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
LISTED_NAMES = 20

Stages = list[list[str]]


def resolve_taps(model: nn.Module, taps: TapConfig, config: ModelConfig) -> tuple[str, ...]:
    """Return the names of the tapped modules, in the order in which M runs them.

    Entry: the last two maps of the first stage. Middle: the last map of the two stages in the
    middle. Output: the last two maps of the last stage.

    Raises:
        UnknownTapError: a name does not exist (close names are listed), or the model declares no
            stages so that a setup means nothing.
        TapPositionError: the batch cannot be divided after the last tap.
        TapShapeError: a tap gives no map.

    """
    return find_taps(model, taps, config).names


def find_taps(model: nn.Module, taps: TapConfig, config: ModelConfig) -> TapPlan:
    """Resolve as `resolve_taps`, and return shapes and order of the taps as well."""
    if taps.setup == "named":
        check_names(model, taps.modules)
        return plan_taps(model, tuple(dict.fromkeys(taps.modules)), config)
    stages = _stages(model, config)
    chosen = {
        "entry": lambda: _last_two_maps(stages, 0, model, config),
        "middle": lambda: _middle_maps(stages, model, config),
        "output": lambda: _last_two_maps(stages, len(stages) - 1, model, config),
    }[taps.setup]()
    return _plan_preset(model, chosen, config)


def check_names(model: nn.Module, names: Iterable[str]) -> None:
    """Refuse names of modules that the model does not have.

    Raises:
        UnknownTapError: see above; the names that exist are listed, closest first.

    """
    existing = [name for name, _ in model.named_modules() if name]
    for name in names:
        if name not in existing:
            close = difflib.get_close_matches(name, existing, n=LISTED_NAMES, cutoff=0.4)
            rest = [other for other in existing if other not in close]
            listed = (close + rest)[:LISTED_NAMES]
            raise UnknownTapError(
                f"expected the name of a module of M, found {name!r}; closest first: "
                f"{', '.join(listed)}{' ...' if len(existing) > len(listed) else ''}"
            )


def _stages(model: nn.Module, config: ModelConfig) -> Stages:
    """Return the blocks of every stage, in order; the last name of a stage is its last map."""
    existing = {name for name, _ in model.named_modules()}
    declared = [entry for entry in _feature_info(model) if entry["module"] in existing]
    names = [str(entry["module"]) for entry in declared]
    if len(names) > 1 and len({entry["reduction"] for entry in declared}) == 1:
        return _divided(names)
    if len(names) > 1:
        return [[name] for name in (names[1:] if _is_stem(model, names[0]) else names)]
    blocks = getattr(model, "blocks", None)
    if isinstance(blocks, nn.Sequential | nn.ModuleList) and len(blocks) > 1:
        return _divided([f"blocks.{index}" for index in range(len(blocks))])
    raise UnknownTapError(
        f"{config.architecture!r} declares no stages (`feature_info` or `blocks`), so that entry, "
        "middle and output mean nothing; use setup = 'named' and name the modules to tap"
    )


def _feature_info(model: nn.Module) -> list[dict[str, Any]]:
    info = getattr(model, "feature_info", None) or []
    return list(getattr(info, "info", info))


def _is_stem(model: nn.Module, name: str) -> bool:
    """Tell whether the first declared feature lies before the first stage."""
    return name.startswith("stem") or not _has_weights(model, name)


def _divided(blocks: list[str]) -> Stages:
    count = min(STAGES_OF_A_UNIFORM_MODEL, len(blocks))
    bounds = [round(index * len(blocks) / count) for index in range(count + 1)]
    return [blocks[start:stop] for start, stop in pairwise(bounds)]


def _middle_maps(stages: Stages, model: nn.Module, config: ModelConfig) -> tuple[str, ...]:
    if len(stages) == 1:
        return _last_two_maps(stages, 0, model, config)
    middle = len(stages) // 2
    return stages[middle - 1][-1], stages[middle][-1]


def _last_two_maps(
    stages: Stages, index: int, model: nn.Module, config: ModelConfig
) -> tuple[str, ...]:
    stage = stages[index]
    if len(stage) > 1:
        return stage[-2], stage[-1]
    order = _running_order(model, config)
    if stage[-1] not in order:
        raise TapPositionError(
            f"expected the stage {stage[-1]!r} to run in a forward pass, and it did not; use "
            "setup = 'named' and name the modules to tap"
        )
    return _map_before(model, stage[-1], order), stage[-1]


def _map_before(model: nn.Module, stage: str, order: list[str]) -> str:
    """Return the map before a stage's last one: that of the block, or layer, before the last."""
    weighted = [n for n in order if n.rpartition(".")[0] == stage and _has_weights(model, n)]
    if not weighted:
        return _before_last_layer(model, order, order[: order.index(stage)])
    layers = [name for name in weighted if _is_layer(model, name)]
    if layers:
        return _before_last_layer(model, order, layers)
    if len(weighted) == 1 or isinstance(model.get_submodule(weighted[-1]), nn.Sequential):
        return _map_before(model, weighted[-1], order)
    return weighted[-2]


def _before_last_layer(model: nn.Module, order: list[str], names: list[str]) -> str:
    """Return what finishes just before the last layer with weights among `names`."""
    last = next((name for name in reversed(names) if _is_layer(model, name)), order[0])
    runs = Counter(order)
    before = [n for n in order[: order.index(last)] if runs[n] == 1 and not _is_identity(model, n)]
    return before[-1] if before else last


def _is_identity(model: nn.Module, name: str) -> bool:
    return isinstance(model.get_submodule(name), nn.Identity)


def _is_layer(model: nn.Module, name: str) -> bool:
    return isinstance(model.get_submodule(name), WEIGHTED)


def _has_weights(model: nn.Module, name: str) -> bool:
    return any(isinstance(m, WEIGHTED) for m in model.get_submodule(name).modules())


def _running_order(model: nn.Module, config: ModelConfig) -> list[str]:
    """Return the names of all modules that give a map, in the order in which they finish."""
    order: list[str] = []
    handles = []
    for name, module in model.named_modules():
        if name:
            handles.append(module.register_forward_hook(lambda *_, name=name: order.append(name)))
    try:
        with evaluating(model), torch.no_grad():
            model(zero_images(config, 1))
    finally:
        for handle in handles:
            handle.remove()
    return order


def _plan_preset(model: nn.Module, names: tuple[str, ...], config: ModelConfig) -> TapPlan:
    """Plan the taps of a setup; a last tap inside a branch moves up to the enclosing block."""
    *earlier, last = names
    while True:
        try:
            kept = [name for name in earlier if name != last]
            return plan_taps(model, (*kept, last), config)
        except TapPositionError:
            last = last.rpartition(".")[0]
            if not last:
                raise
