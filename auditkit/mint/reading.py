"""Reading Auxiliary Auditable Data: hooks that copy activation maps out of a running model."""

import secrets
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
    """One forward pass: what to divide and copy, and the maps that were read, in running order.

    `reader` names the hooks that it is for: one module may carry those of several readers.
    """

    reader: str
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


def new_reader() -> str:
    """Return a name for a set of hooks; a copy of the model keeps it."""
    return secrets.token_hex(8)


def attach(
    model: nn.Module, names: Iterable[str], reader: str
) -> list[torch.utils.hooks.RemovableHandle]:
    """Let `read` see the outputs of the named modules. Without a reading the hooks do nothing."""
    return [
        model.get_submodule(name).register_forward_hook(partial(_read_map, name, reader))
        for name in names
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
    reader = new_reader()
    handles = attach(model, names, reader)
    try:
        with evaluating(model), torch.no_grad():
            whole = Reading(reader)
            read(model, images, whole)
            missing = [name for name in names if name not in whole.maps]
            if missing:
                raise TapPositionError(
                    f"expected every tap to run once per forward pass; {', '.join(missing)} "
                    "did not run; choose other modules"
                )
            _check_rows(whole.maps)
            plan = TapPlan(
                names=tuple(whole.maps),
                shapes=tuple(tuple(m.shape[1:]) for m in whole.maps.values()),
                copied=frozenset(
                    n for n, m in whole.maps.items() if m._version != whole.versions[n]
                ),
            )
            _check_division(model, images, plan, reader)
    finally:
        for handle in handles:
            handle.remove()
    return plan


def _check_rows(maps: dict[str, Tensor]) -> None:
    for name, found in maps.items():
        if found.shape[0] != DRY_ROWS:
            raise TapShapeError(
                f"tap {name!r}: expected one row per sample, found {found.shape[0]} rows for "
                f"{DRY_ROWS} samples; choose another module"
            )


def _check_division(model: nn.Module, images: Tensor, plan: TapPlan, reader: str) -> None:
    advice = (
        f"the batch cannot be divided after {plan.last!r}: it lies inside a branch that is joined "
        "with the whole batch later; choose the enclosing block as the last tap"
    )
    try:
        scores = read(model, images, Reading(reader, plan.last, DRY_TRAINED, plan.copied))
    except (RuntimeError, ValueError, AssertionError) as error:
        raise TapPositionError(f"{advice} ({error})") from error
    if scores.shape[0] != DRY_TRAINED:
        raise TapPositionError(advice)


def _read_map(
    name: str, reader: str, _module: nn.Module, _args: object, output: object
) -> Tensor | None:
    reading = _READING.get()
    if reading is None or reading.reader != reader:
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
