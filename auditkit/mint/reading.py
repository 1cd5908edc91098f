"""Reading Auxiliary Auditable Data: hooks that copy activation maps out of a running model."""

from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from auditkit.mint.errors import TapPositionError, TapShapeError
from auditkit.mint.models import evaluating, zero_images
from schemas import ModelConfig

# Two of three rows go on past the last tap. With one row, a residual sum of a divided and an
# undivided batch would broadcast, and the mistake would go unseen.
DRY_ROWS = 3
DRY_TRAINED = 2


@dataclass
class Reading:
    """One forward pass: what to divide and copy, and the maps that were read, in running order."""

    last: str | None = None
    trained: int | None = None
    copied: frozenset[str] = frozenset()
    maps: dict[str, Tensor] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)


# Each thread has its own reading, so that one model can answer several queries at a time.
_READING: ContextVar[Reading | None] = ContextVar("reading", default=None)


@dataclass(frozen=True)
class TapPlan:
    """What a dry run found: taps in running order, their shapes, which ones must be copied."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]  # of one sample, without the batch dimension
    copied: frozenset[str]  # maps that M changes in place after they are read

    @property
    def last(self) -> str:
        """The tap after which the external samples leave M."""
        return self.names[-1]


def attach(model: nn.Module, names: Iterable[str]) -> list[torch.utils.hooks.RemovableHandle]:
    """Let `read` see the outputs of the named modules. Without a reading the hooks do nothing."""
    return [
        model.get_submodule(name).register_forward_hook(partial(_read_map, name)) for name in names
    ]


def read(model: nn.Module, inputs: Tensor, reading: Reading) -> Tensor:
    """Run `model` on `inputs` (B, C, H, W), fill `reading.maps`, and return the model's output."""
    token = _READING.set(reading)
    try:
        output: Tensor = model(inputs)
        return output
    finally:
        _READING.reset(token)


def plan_taps(model: nn.Module, names: tuple[str, ...], config: ModelConfig) -> TapPlan:
    """Find by two dry runs the order of the taps and whether the batch can be divided at the last.

    Raises:
        TapPositionError: a tap does not run exactly once, or lies in a branch whose result is
            joined with rows of the undivided batch.
        TapShapeError: a tap's output is not one tensor with a row per sample.

    """
    images = zero_images(config, DRY_ROWS)
    handles = attach(model, names)
    try:
        with evaluating(model), torch.no_grad():
            whole = Reading()
            read(model, images, whole)
            missing = [name for name in names if name not in whole.maps]
            if missing:
                raise TapPositionError(
                    f"expected every tap to run once per forward pass; {', '.join(missing)} "
                    "did not run; choose other modules"
                )
            plan = TapPlan(
                names=tuple(whole.maps),
                shapes=tuple(tuple(m.shape[1:]) for m in whole.maps.values()),
                copied=frozenset(
                    n for n, m in whole.maps.items() if m._version != whole.versions[n]
                ),
            )
            _check_division(model, images, plan, config)
    finally:
        for handle in handles:
            handle.remove()
    return plan


def _check_division(model: nn.Module, images: Tensor, plan: TapPlan, config: ModelConfig) -> None:
    advice = (
        f"the batch cannot be divided after {plan.last!r}: it lies inside a branch that is joined "
        "with the whole batch later; choose the enclosing block as the last tap"
    )
    try:
        scores = read(model, images, Reading(plan.last, DRY_TRAINED, plan.copied))
    except (RuntimeError, ValueError, AssertionError) as error:
        raise TapPositionError(f"{advice} ({error})") from error
    if tuple(scores.shape) != (DRY_TRAINED, config.classes):
        raise TapPositionError(advice)


def _read_map(name: str, _module: nn.Module, _args: object, output: object) -> Tensor | None:
    reading = _READING.get()
    if reading is None:
        return None
    if not isinstance(output, Tensor) or output.ndim < 2:
        found = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise TapShapeError(
            f"tap {name!r}: expected one tensor with a row per sample, found {found}; "
            "choose another module"
        )
    if name in reading.maps:
        raise TapPositionError(
            f"expected every tap to run once per forward pass; {name!r} runs more than once; "
            "choose a module that is not shared"
        )
    reading.maps[name] = output
    if not output.is_inference():
        reading.versions[name] = output._version
    onward = output.clone() if name in reading.copied else output
    if name == reading.last and reading.trained is not None:
        return onward[: reading.trained]
    return onward
