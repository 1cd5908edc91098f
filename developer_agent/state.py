"""Full training states: everything that the next step depends on, in one safetensors file.

The learning rate, the batches, the augmentation and the random generators of a step are functions
of the nonce and the step number, so they are not state. What is left: weights and buffers, the
optimiser, and the two normalisers of Eq. 1.
"""

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.optim import Optimizer

from auditkit.mint.objective import Objective
from developer_agent.errors import AgentError

MODEL, OPTIMISER, NORMALISER, STEP = "model/", "optimiser/", "normaliser/", "step"

Parameters = dict[str, Tensor]
"""Copies of a model's parameters, by name."""


class StateFileError(AgentError):
    """A saved training state is damaged or belongs to another training."""


def dump_state(step: int, model: nn.Module, optimiser: Optimizer, objective: Objective) -> bytes:
    """Return the state after `step` steps as safetensors; equal states give equal bytes."""
    tensors = {MODEL + name: tensor for name, tensor in model.state_dict().items()}
    for index, entries in optimiser.state_dict()["state"].items():
        for name, value in entries.items():
            if value is not None:
                tensors[f"{OPTIMISER}{index}/{name}"] = torch.as_tensor(value)
    for name, number in objective.state().items():
        if number is not None:
            tensors[NORMALISER + name] = torch.tensor(number, dtype=torch.float64)
    tensors[STEP] = torch.tensor(step, dtype=torch.int64)
    return save({name: _portable(tensors[name]) for name in sorted(tensors)})


def restore_state(data: bytes, model: nn.Module, optimiser: Optimizer, objective: Objective) -> int:
    """Take over a saved state; return the number of steps done.

    Raises:
        StateFileError: the file is damaged, or of another model.
    """
    try:
        tensors = load(data)
        step = int(tensors.pop(STEP))
        model.load_state_dict(_group(tensors, MODEL))
        optimiser.load_state_dict(
            {
                "state": _optimiser_entries(_group(tensors, OPTIMISER)),
                "param_groups": optimiser.state_dict()["param_groups"],
            }
        )
        _align(optimiser)
        saved = _group(tensors, NORMALISER)
        objective.restore(
            {name: saved[name].item() if name in saved else None for name in objective.state()}
        )
    except (SafetensorError, KeyError, RuntimeError, ValueError) as error:
        raise StateFileError(
            f"the saved state does not fit this training: {error}; resume from an earlier state"
        ) from error
    return step


def state_digest(data: bytes) -> str:
    """SHA-256 of a state file, as the log commits to it."""
    return hashlib.sha256(data).hexdigest()


def state_name(step: int) -> str:
    """Return what the file of the state after `step` steps is called."""
    return f"step-{step:08d}.safetensors"


def read_tensors(data: bytes) -> dict[str, Tensor]:
    """Return what a state file holds, by name, to compare it with another one.

    Raises:
        StateFileError: the file is damaged.
    """
    try:
        return load(data)
    except (SafetensorError, KeyError, ValueError) as error:
        raise StateFileError(
            f"expected a whole state file, found {len(data)} bytes that are not one ({error})"
        ) from error


def weights_digest(data: bytes) -> str:
    """SHA-256 of the weights file of the M+ that a state holds.

    Raises:
        StateFileError: the state file is damaged.
    """
    weights = _group(read_tensors(data), MODEL)
    return hashlib.sha256(save({name: weights[name] for name in sorted(weights)})).hexdigest()


def parameters_of(model: nn.Module) -> Parameters:
    """Return a copy of all parameters of a model; buffers are none."""
    return {name: value.detach().cpu().clone() for name, value in model.named_parameters()}


def distance(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> float:
    """Return the L2 distance of two sets of equally named tensors, computed in float64."""
    return math.sqrt(
        math.fsum(
            (after[name].double() - tensor.double()).square().sum().item()
            for name, tensor in before.items()
        )
    )


def _align(optimiser: Optimizer) -> None:
    """Give what the optimiser keeps of a parameter the parameter's own layout in memory.

    A state file has one layout. Vectorised code may round otherwise than the code for the rest, so
    that a step after a restore must find everything where the step of the training found it.
    """
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            kept = optimiser.state[parameter]
            for name, value in kept.items():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    kept[name] = torch.empty_like(parameter, requires_grad=False).copy_(value)


def _portable(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous().clone()


def _group(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def _optimiser_entries(tensors: dict[str, Tensor]) -> dict[int, dict[str, Any]]:
    entries: dict[int, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        index, _, key = name.partition("/")
        entries.setdefault(int(index), {})[key] = tensor
    return entries
