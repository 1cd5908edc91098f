"""How far two executions of the same steps may lie apart when their machines differ.

Machines of another class round differently, and the difference grows from step to step. How much of
it is honest is not known beforehand, so it is measured: the auditor executes the same segment with
another number of threads and as a lesser processor, and takes a multiple of the largest distance.
Everything in a state is compared, kind by kind: a forger who leaves the weights alone could hide a
sample in the optimiser's moments, from where it reaches the weights later.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from auditkit.mint.scores import CohortScores
from developer_agent.replay_execution import CpuCapability
from developer_agent.state import OPTIMISER, distance
from schemas import Environment

TOLERANCE_FACTOR = 3.0
"""Times the measured noise. Two honest machines may differ more than the variants of one do; one
swapped sample lies further out over segments of at most five steps (benchmarks/results)."""

ROUNDING = 2.0**-23
"""Of a float32 number, relative: noise is never taken for less than one rounding of everything."""

CAPABILITIES: tuple[CpuCapability, ...] = ("default", "avx2", "avx512")
"""From the least to the most, as torch names them in lower case."""

CLASS_FIELDS = ("torch", "timm", "cpu_capability", "threads", "device")
"""What makes two machines of one class: they then execute the same instructions on the same
numbers. Kernel, Python and the rest may differ."""


@dataclass(frozen=True)
class Variant:
    """An honest execution that rounds differently."""

    threads: int
    cpu_capability: CpuCapability | None = None


@dataclass(frozen=True)
class Deviation:
    """How far a state lies off, in the kind of numbers in which it lies furthest off."""

    kind: str
    distance: float
    tolerance: float

    @property
    def tolerated(self) -> bool:
        """Whether honest noise explains it."""
        return self.distance <= self.tolerance

    @property
    def ratio(self) -> float:
        """How many tolerances away it lies."""
        if self.tolerance:
            return self.distance / self.tolerance
        return math.inf if self.distance else 0.0


def class_differences(first: Environment, second: Environment) -> tuple[str, ...]:
    """Return in what two environments are of different machine classes; nothing if they are not."""
    return tuple(
        f"{name} {getattr(first, name)!r} and {getattr(second, name)!r}"
        for name in CLASS_FIELDS
        if getattr(first, name) != getattr(second, name)
    )


def honest_variants(environment: Environment) -> tuple[Variant, ...]:
    """Return the executions by which a machine shows how much honest ones differ."""
    found = environment.cpu_capability.lower()
    lesser = CAPABILITIES[: CAPABILITIES.index(found)] if found in CAPABILITIES else ()
    threads = environment.threads
    return (Variant(2 if threads == 1 else 1), *(Variant(threads, one) for one in lesser))


def state_parts(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Sort what a state file holds by kind: weights, running means, first moments and so on."""
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        prefix, _, rest = name.partition("/")
        # `optimiser/<parameter>/<kind>`, `model/<module>.<kind>`, `normaliser/<kind>`
        kind = rest.rpartition("/" if name.startswith(OPTIMISER) else ".")[2]
        parts.setdefault(f"{prefix}/{kind}", {})[name] = tensor
    return parts


def score_parts(scores: CohortScores) -> dict[str, dict[str, Tensor]]:
    """Sort scores by kind. Whether a top class is right is left out: it may be a tie."""
    arrays = {"scores": scores.scores, "task_losses": scores.task_losses, "own": scores.own}
    return {
        name: {name: torch.from_numpy(np.ascontiguousarray(values))}
        for name, values in arrays.items()
        if values is not None
    }


def deviation(
    expected: Mapping[str, Mapping[str, Tensor]],
    found: Mapping[str, Mapping[str, Tensor]],
    honest: Iterable[Mapping[str, Mapping[str, Tensor]]],
) -> Deviation:
    """Return how far something lies from what was expected, where it lies furthest off.

    Args:
        expected: what the auditor's own execution gave, by kind.
        found: what the developer committed to, by kind.
        honest: what the auditor's variants gave, by kind.
    """
    variants = list(honest)
    if shapes(expected) != shapes(found):
        return Deviation("shape", math.inf, 0.0)
    deviations = []
    for kind, tensors in expected.items():
        numbers = all(tensor.is_floating_point() for tensor in tensors.values())
        noise = max((distance(tensors, other[kind]) for other in variants), default=0.0)
        zero = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
        least = ROUNDING * distance(zero, tensors) if numbers else 0.0
        tolerance = TOLERANCE_FACTOR * max(noise, least) if numbers else 0.0
        off = distance(tensors, found[kind])
        deviations.append(Deviation(kind, off if math.isfinite(off) else math.inf, tolerance))
    return max(deviations, key=lambda one: one.ratio)


def shapes(parts: Mapping[str, Mapping[str, Tensor]]) -> dict[str, dict[str, tuple[object, ...]]]:
    """Return names, shapes and types of everything that is compared."""
    return {
        kind: {name: (tensor.dtype, *tensor.shape) for name, tensor in sorted(tensors.items())}
        for kind, tensors in sorted(parts.items())
    }
