"""Full training states: everything that the next step depends on, in one safetensors file.

The learning rate, the batches, the augmentation and the random generators of a step are functions
of the nonce and the step number, so they are not state. What is left: weights and buffers, the
optimiser, and the two normalisers of Eq. 1.
"""

import hashlib
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.optim import Optimizer

from auditkit.mint.objective import Objective
from developer_agent.errors import AgentError

MODEL, OPTIMISER, NORMALISER, STEP = "model/", "optimiser/", "normaliser/", "step"


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
