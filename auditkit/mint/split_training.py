"""Joint training in two places: M with the developer, T with the auditor (split learning).

Each step M runs up to the end, the activations that T reads go to T's holder, and the gradient of
T's loss with respect to them comes back and enters M's graph where T would have been. With float32
on the wire the outcome is that of `steps.joint_losses`, in which both are in one process.

No head begins with a stage that shrinks a map and learns nothing, so the maps travel as they are.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional
from torch.optim import Optimizer

from auditkit.mint.codes import own_scores
from auditkit.mint.enhanced import EnhancedAuditedModel, build_mint_model
from auditkit.mint.errors import HeldStateError, MapsFileError, PartsError
from auditkit.mint.evaluation import scores_of
from auditkit.mint.heads import Shape
from auditkit.mint.models import device_of, evaluating
from auditkit.mint.objective import MEMBER, NO_CODE, NON_MEMBER, Losses, MintTerm, Objective
from auditkit.mint.preprocessing import to_inputs
from auditkit.mint.steps import Batch, RowCounts, new_optimiser, precision, set_learning_rate
from auditkit.mint.task_losses import margin_labels
from schemas import Normalisation, TrainingConfig
from schemas.training import WirePrecision

MAP, SCALE = "map/", "scale/"
LOSSES, CORRECT = "task_losses", "correct"
AUDITED_PART, MINT_PART = "audited.", "mint."
NUMBER_BYTES: dict[WirePrecision, int] = {"float16": 2, "float32": 4}
MOST_PART_BYTES = 8 * 2**20  # of one part of a cohort: some seconds on a slow link
OPTIMISER, NORMALISER, STEP = "optimiser/", "normaliser", "step"


@dataclass(frozen=True)
class HeldStep:
    """What T's holder says about one step; `gradients` are ready to be added to M's own."""

    loss: float
    accuracy: float
    normaliser: float
    gradients: tuple[Tensor, ...]
    """One per map, of its shape: of lambda2 * loss / normaliser."""


@dataclass(frozen=True)
class Targets:
    """What T is told about the rows that it sees."""

    membership: Tensor
    own_codes: Tensor | None


Exchange = Callable[[Sequence[Tensor]], HeldStep]
"""Takes one map per tap, in running order, of the rows that T sees."""


# -- on the way ---------------------------------------------------------------------------------


def pack_maps(
    maps: Sequence[Tensor], wire_precision: WirePrecision, **columns: NDArray[Any]
) -> bytes:
    """Return maps as safetensors; equal maps give equal bytes.

    In half precision each map is divided by the power of two above its largest value, which rounds
    nothing, so that neither small gradients vanish nor large activations overflow.

    Args:
        maps: each with one row per sample.
        wire_precision: of the values.
        columns: more tensors to go with the maps, under these names.

    Raises:
        MapsFileError: a value is infinite or not a number: the training has diverged.
    """
    tensors = {name: torch.from_numpy(column) for name, column in columns.items()}
    for index, values in enumerate(maps):
        whole = values.detach().cpu().float().contiguous()
        if not torch.isfinite(whole).all():
            raise MapsFileError(
                f"expected finite values in map {index}, found others: the training has diverged; "
                "lower the learning rate or the MINT weight, and start again"
            )
        if wire_precision == "float16":
            scale = _power_above(whole)
            tensors[f"{SCALE}{index:03d}"] = scale
            whole = (whole / scale).half()
        tensors[f"{MAP}{index:03d}"] = whole
    return save({name: tensors[name] for name in sorted(tensors)})


def unpack_maps(
    data: bytes, shapes: Sequence[Shape], rows: int, wire_precision: WirePrecision
) -> tuple[Tensor, ...]:
    """Read what `pack_maps` wrote, as float32.

    Args:
        data: from the other side.
        shapes: of one row of each map.
        rows: how many rows each map must have.
        wire_precision: that was agreed.

    Raises:
        MapsFileError: it is no such file, or of other maps.
    """
    tensors = _load_maps(data)
    maps = []
    for index, shape in enumerate(shapes):
        found = tensors.pop(f"{MAP}{index:03d}", None)
        kind = getattr(torch, wire_precision)
        if found is None or found.dtype != kind or found.shape != (rows, *shape):
            raise MapsFileError(
                f"map {index}: expected {wire_precision} of shape {(rows, *shape)}, found "
                f"{'nothing' if found is None else f'{found.dtype} of {tuple(found.shape)}'}"
            )
        values = found.float()
        if wire_precision == "float16":
            values = values * _scale(tensors.pop(f"{SCALE}{index:03d}", None), index)
        if not torch.isfinite(values).all():
            raise MapsFileError(f"expected finite values in map {index}, found others")
        maps.append(values)
    if tensors:
        raise MapsFileError(f"expected {len(shapes)} maps, found also {sorted(tensors)[:5]}")
    return tuple(maps)


def unpack_scored(
    data: bytes, shapes: Sequence[Shape], rows: int, wire_precision: WirePrecision
) -> tuple[tuple[Tensor, ...], NDArray[np.float32], NDArray[np.bool_]]:
    """Read the maps of a part of a cohort, and what M says of it: losses and correctness, (rows,).

    Raises:
        MapsFileError: it is no such file, or of another part.
    """
    tensors = _load_maps(data)
    columns = []
    for name, kind in ((LOSSES, torch.float32), (CORRECT, torch.bool)):
        column = tensors.pop(name, None)
        if column is None or column.dtype != kind or column.shape != (rows,):
            raise MapsFileError(f"expected {rows} {name} of type {kind}, found others")
        if kind.is_floating_point and not torch.isfinite(column).all():
            raise MapsFileError(f"expected finite {name}, found others")
        columns.append(column.numpy())
    maps = unpack_maps(save(tensors), shapes, rows, wire_precision)
    return maps, columns[0], columns[1]


def _load_maps(data: bytes) -> dict[str, Tensor]:
    try:
        return load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise MapsFileError(
            f"expected a whole safetensors file, found {len(data)} bytes that are not one ({error})"
        ) from error


def _power_above(values: Tensor) -> Tensor:
    largest = values.abs().max() if values.numel() else torch.zeros(())
    _, exponent = torch.frexp(largest)
    return torch.ldexp(torch.ones(()), exponent)


def _scale(scale: Tensor | None, index: int) -> Tensor:
    if scale is None or scale.shape != () or scale.dtype != torch.float32:
        raise MapsFileError(f"map {index}: expected one float32 scale, found none")
    return scale


# -- with the developer -------------------------------------------------------------------------


def split_losses(
    model: EnhancedAuditedModel,
    objective: Objective,
    batch: Batch,
    config: TrainingConfig,
    exchange: Exchange,
) -> Losses:
    """Run a mixed batch through M and evaluate Eq. 1 with T's holder; as `steps.joint_losses`.

    Args:
        model: M, without T.
        objective: of M alone, with a MINT weight of 0.
        batch: the step's.
        config: the training's.
        exchange: asks T's holder about the rows that T sees.

    Raises:
        NonFiniteLossError, MapsFileError: the training has diverged.
    """
    device = batch.inputs.device.type
    with precision(config, device), margin_labels(model.audited, batch.labels):
        task_logits, maps = model.activations(batch.inputs, batch.rows.trained, batch.hidden)
    task = objective(task_logits, batch.labels, task_logits.new_zeros(0), batch.membership)
    held = exchange(maps)
    term = task.total.new_tensor(config.mint.mint_weight * held.loss / held.normaliser)
    gradients = tuple(
        torch.empty_like(tap, requires_grad=False).copy_(gradient)
        for tap, gradient in zip(maps, held.gradients, strict=True)
    )
    joined: Tensor = _HeldTerm.apply(term, gradients, *maps)
    return replace(task, total=task.total + joined, mint=held.loss, mint_accuracy=held.accuracy)


class _HeldTerm(Function):
    """T's share of the objective: its value and its gradients both come from elsewhere."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's own context
        term: Tensor,
        gradients: tuple[Tensor, ...],
        *maps: Tensor,
    ) -> Tensor:
        """Return the term as a result of the maps."""
        del maps
        ctx.gradients = gradients
        return term.clone()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:  # noqa: ANN401 - torch's own convention
        """Return the gradients of the maps."""
        return (None, None, *(upstream * gradient for gradient in ctx.gradients))


@dataclass(frozen=True)
class AuditedAnswers:
    """What M says about N images, and what T would read of them."""

    maps: tuple[Tensor, ...]
    task_losses: NDArray[np.float32]
    """(N,) cross-entropy."""
    correct: NDArray[np.bool_]
    """(N,) whether the top class is the label."""


def audited_answers(
    model: EnhancedAuditedModel,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    normalisation: Normalisation,
) -> AuditedAnswers:
    """Run M on images (N, H, W, C) of classes (N,), in evaluation mode and in float32."""
    with evaluating(model), torch.no_grad():
        inputs = to_inputs(images, normalisation).to(device_of(model))
        logits, maps = model.activations(inputs)
    logits, classes = logits.cpu(), torch.from_numpy(labels)
    return AuditedAnswers(
        tuple(maps),
        functional.cross_entropy(logits, classes, reduction="none").numpy(),
        (logits.argmax(dim=1) == classes).numpy(),
    )


def evaluated_rows(size: int, most: int | None) -> slice:
    """Return which samples of a cohort are evaluated: all, or about every k-th up to `most`.

    Pools are often sorted by class: every k-th sample keeps the classes balanced.
    """
    if most is None:
        return slice(0, size)
    every = max(1, size // most)
    return slice(0, min(size, every * most), every)


def part_rows(shapes: Sequence[Shape], wire_precision: WirePrecision) -> int:
    """Return how many samples of a cohort are sent to be scored at a time."""
    numbers = sum(math.prod(shape) for shape in shapes)
    return max(1, MOST_PART_BYTES // (numbers * NUMBER_BYTES[wire_precision]))


# -- with the auditor ---------------------------------------------------------------------------


def targets(rows: RowCounts, own_codes: NDArray[np.int64] | None) -> Targets:
    """Return what T is told about a batch's rows, in the order of `steps.new_batch`.

    Args:
        rows: what the rows are.
        own_codes: (B - silent,) row of each sample's code, where T learns codes: the rows of E
            then come in two views.
    """
    views = 1 if own_codes is None else 2
    membership = torch.full((rows.members + views * rows.external,), NON_MEMBER)
    membership[: rows.members] = MEMBER
    if own_codes is None:
        return Targets(membership, None)
    again = np.full(rows.external, NO_CODE, dtype=np.int64)
    return Targets(membership, torch.from_numpy(np.concatenate((own_codes, again))))


class HeldMint:
    """T with its optimiser, its share of the objective and the codes, in the auditor's hands."""

    def __init__(
        self,
        config: TrainingConfig,
        shapes: Sequence[Shape],
        seed: int,
        members: NDArray[np.float32] | None = None,
    ) -> None:
        """Build T with the initial weights that follow from `seed`.

        Args:
            config: the training's.
            shapes: of one sample's activations per tap.
            seed: the auditor's own.
            members: (K, b) codes of all members, where T learns to say them.

        Raises:
            TapShapeError: T's head cannot read such maps.
        """
        self._config = config
        self._members = members
        self._head = build_mint_model(shapes, config.mint, seed)
        self._head.to(memory_format=torch.channels_last)
        self._optimiser: Optimizer | None = (
            None if config.mint.frozen else new_optimiser(self._head, config.optimiser)
        )
        codes = None if members is None else torch.from_numpy(members)
        self._term = MintTerm(config.mint.mint_weight, codes)

    def step(
        self, maps: Sequence[Tensor], told: Targets, *, learning_rate: float, seed: int
    ) -> HeldStep:
        """Train T on one step's activations.

        Args:
            maps: one per tap, float32.
            told: what their rows are.
            learning_rate: of the step.
            seed: of the step's dropout.

        Raises:
            NonFiniteLossError: the training has diverged.
        """
        leaves = [_laid_out(values).requires_grad_() for values in maps]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._head.train()
            with precision(self._config):
                outputs = self._head(leaves)
        term, loss, accuracy = self._term(outputs, told.membership, told.own_codes)
        self._head.zero_grad(set_to_none=True)
        term.backward()  # type: ignore[no-untyped-call] # torch
        if self._optimiser is not None:
            set_learning_rate(self._optimiser, learning_rate)
            self._optimiser.step()
        gradients = tuple(
            torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves
        )
        return HeldStep(loss, accuracy, self._term.normaliser or 1.0, gradients)

    def scores(
        self, maps: Sequence[Tensor], own: NDArray[np.float32] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Score samples by their activations, in evaluation mode and in float32.

        Args:
            maps: one per tap, N rows.
            own: (N, b) codes of these samples, where T says codes.

        Returns:
            as `CohortScores.scores` and `.own`, (N,) each.
        """
        with evaluating(self._head), torch.no_grad():
            outputs = self._head([_laid_out(values) for values in maps]).numpy()
        return (
            scores_of(outputs, self._members),
            None if own is None else own_scores(outputs, own),
        )

    @property
    def parameters(self) -> int:
        """Number of T's parameters."""
        return sum(parameter.numel() for parameter in self._head.parameters())

    def weights(self) -> bytes:
        """Return T's parameters and buffers as safetensors, named as in M+."""
        return save(_sorted({MINT_PART + k: v for k, v in self._head.state_dict().items()}))

    def state(self, step: int) -> bytes:
        """Return everything that T's next step depends on; equal states give equal bytes."""
        tensors = {MINT_PART + name: value for name, value in self._head.state_dict().items()}
        if self._optimiser is not None:
            for index, entries in self._optimiser.state_dict()["state"].items():
                for name, value in entries.items():
                    if value is not None:
                        tensors[f"{OPTIMISER}{index}/{name}"] = torch.as_tensor(value)
        if self._term.normaliser is not None:
            tensors[NORMALISER] = torch.tensor(self._term.normaliser, dtype=torch.float64)
        tensors[STEP] = torch.tensor(step, dtype=torch.int64)
        return save(_sorted(tensors))

    def restore(self, data: bytes) -> int:
        """Take over what `state` returned; return the number of steps done.

        Raises:
            HeldStateError: the file is damaged, or of another T.
        """
        try:
            tensors = load(data)
            step = int(tensors.pop(STEP))
            normaliser = tensors.pop(NORMALISER, None)
            self._head.load_state_dict(_under(tensors, MINT_PART))
            if self._optimiser is not None:
                self._restore_optimiser(self._optimiser, _under(tensors, OPTIMISER))
        except (SafetensorError, KeyError, RuntimeError, ValueError) as error:
            raise HeldStateError(f"the saved state does not fit this T: {error}") from error
        self._term.normaliser = None if normaliser is None else normaliser.item()
        return step

    @staticmethod
    def _restore_optimiser(optimiser: Optimizer, tensors: dict[str, Tensor]) -> None:
        entries: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            index, _, key = name.partition("/")
            entries.setdefault(int(index), {})[key] = tensor
        groups = optimiser.state_dict()["param_groups"]
        optimiser.load_state_dict({"state": entries, "param_groups": groups})
        # What is kept of a parameter lies in memory as the parameter does, as in the step before.
        for group in optimiser.param_groups:
            for parameter in group["params"]:
                kept = optimiser.state[parameter]
                for key, value in kept.items():
                    if value.shape == parameter.shape:
                        kept[key] = torch.empty_like(parameter, requires_grad=False).copy_(value)


def compose(audited: bytes, mint: bytes) -> bytes:
    """Put the weights of M and of T together to those of M+, as `EnhancedAuditedModel.weights`.

    Raises:
        PartsError: one of them is no safetensors file, or holds tensors of the other part.
    """
    tensors: dict[str, Tensor] = {}
    for data, prefix in ((audited, AUDITED_PART), (mint, MINT_PART)):
        try:
            part = load(data)
        except (SafetensorError, ValueError, KeyError) as error:
            raise PartsError(
                f"expected a whole safetensors file of {prefix!r} tensors, found {len(data)} bytes "
                f"that are not one ({error})"
            ) from error
        strangers = [name for name in part if not name.startswith(prefix)]
        if strangers or not part:
            raise PartsError(
                f"expected tensors named {prefix}…, found {sorted(strangers)[:5] or 'none'}"
            )
        tensors |= part
    return save(_sorted(tensors))


def _laid_out(values: Tensor) -> Tensor:
    # As M's maps are, which is trained so: another layout may round otherwise.
    if values.ndim == 4:
        return values.detach().contiguous(memory_format=torch.channels_last)
    return values.detach().contiguous()


def _sorted(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensors[name].detach().cpu().contiguous().clone() for name in sorted(tensors)}


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
