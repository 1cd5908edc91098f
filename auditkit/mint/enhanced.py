"""The Enhanced Audited Model M+: the Audited Model M and the MINT Model T as one module."""

from collections.abc import Sequence

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from auditkit.mint.errors import (
    CustomModelError,
    ModelShapeError,
    NonFiniteWeightsError,
    PickleRefusedError,
    WeightsFileError,
    WeightsMismatchError,
)
from auditkit.mint.heads import HeadElsewhere, Shape, build_head
from auditkit.mint.models import build_audited_model, check_model, initialised
from auditkit.mint.reading import Reading, TapPlan, attach, new_reader, read
from auditkit.mint.taps import find_taps
from schemas import MintConfig, ModelConfig, TapConfig, TrainingConfig
from schemas.training import CUSTOM_PREFIX

# First bytes of pickle streams (protocol 2 and later) and of ZIP archives, as torch.save writes.
PICKLE_PREFIXES = (b"\x80", b"PK")

# T's initial weights must not repeat M's random numbers.
HEAD_SEED_OFFSET = 1
SEED_MODULUS = 2**63

LISTED_NAMES = 5


class EnhancedAuditedModel(nn.Module):
    """M (`audited`), T (`mint`) and the taps between them (aMINT, section 3)."""

    def __init__(self, audited: nn.Module, mint: nn.Module, taps: TapPlan) -> None:
        super().__init__()
        self.audited = audited
        self.mint = mint
        self.taps = taps
        self._reader = new_reader()
        attach(audited, taps.names, self._reader)

    @classmethod
    def build(
        cls,
        config: TrainingConfig | tuple[ModelConfig, TapConfig, MintConfig],
        seed: int,
        model: nn.Module | None = None,
        *,
        head: bool = True,
    ) -> "EnhancedAuditedModel":
        """Build M+ with initial weights that follow from `seed` alone.

        `model` is the developer's own module for an architecture named `custom:<name>`; its
        weights are taken as they are. Without `head`, T is held elsewhere: only `activations` can
        be asked for, and `weights` are those of M.

        Raises:
            UnknownArchitectureError, ModelArgumentError, ModelSizeError, CustomModelError,
                ModelShapeError: see `build_audited_model`.
            UnknownTapError, TapPositionError, TapShapeError: see `resolve_taps`.

        """
        if isinstance(config, TrainingConfig):
            config = (config.model, config.taps, config.mint)
        model_config, tap_config, mint_config = config
        audited = _audited(model_config, seed, model)
        taps = find_taps(audited, tap_config, model_config)
        mint = build_mint_model(taps.shapes, mint_config, seed) if head else HeadElsewhere()
        return cls(audited, mint, taps)

    @property
    def aad_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of one sample's Auxiliary Auditable Data per tap, in running order."""
        return dict(zip(self.taps.names, self.taps.shapes, strict=True))

    def joint(
        self, inputs: Tensor, trained: int, hidden: slice = slice(0, 0)
    ) -> tuple[Tensor, Tensor]:
        """Run one mixed batch: every row up to the last tap, the first `trained` rows to the end.

        So M past the last tap, batch normalisation included, sees D alone, and no batch
        statistic tells members from non-members.

        Args:
            inputs: (B, C, H, W); rows in the order told, silent, told only, E.
            trained: number of leading rows (told and silent) on which M is trained.
            hidden: rows that T does not see at all (silent). They get no logit.

        Returns:
            task logits (trained, classes), and T's outputs, (B - hidden rows,) membership logits
            or (B - hidden rows, b) codes.

        Raises:
            ModelShapeError: `trained` does not lie between 1 and B.

        """
        task_logits, maps = self.activations(inputs, trained, hidden)
        return task_logits, self.mint(maps)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Turn images (B, C, H, W) into task logits (B, classes) and T's outputs (B,) or (B, b)."""
        task_logits, maps = self.activations(inputs)
        return task_logits, self.mint(maps)

    def activations(
        self, inputs: Tensor, trained: int | None = None, hidden: slice = slice(0, 0)
    ) -> tuple[Tensor, list[Tensor]]:
        """Run M as `joint` does, or to the end for all rows, and return what T would read.

        Returns:
            task logits, and one map per tap, in running order, without the hidden rows.

        Raises:
            ModelShapeError: `trained` does not lie between 1 and B.

        """
        if trained is not None and not 1 <= trained <= inputs.shape[0]:
            raise ModelShapeError(
                f"expected between 1 and {inputs.shape[0]} trained rows, found {trained}"
            )
        reading = Reading(self._reader, self.taps.last, trained, self.taps.copied)
        task_logits: Tensor = read(self.audited, inputs, reading)
        return task_logits.float(), [
            _without(reading.maps[name], hidden) for name in self.taps.names
        ]

    def weights(self) -> bytes:
        """Return all parameters and buffers as safetensors; equal weights give equal bytes."""
        state = self.state_dict()
        return save(
            {name: state[name].detach().cpu().contiguous().clone() for name in sorted(state)}
        )

    def load_weights(self, data: bytes) -> None:
        """Take over weights that `weights` wrote. Nothing in the file is ever executed.

        Raises:
            PickleRefusedError: the file is a pickle or an archive.
            WeightsFileError: the file is truncated, damaged or not safetensors.
            WeightsMismatchError: names, shapes or types are not those of this model.
            NonFiniteWeightsError: a weight is infinite or not a number.

        """
        tensors = _parse(data)
        _check_match(tensors, self.state_dict())
        for name, tensor in tensors.items():
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                raise NonFiniteWeightsError(f"expected finite weights, found others in {name!r}")
        self.load_state_dict(tensors)


def build_mint_model(shapes: Sequence[Shape], config: MintConfig, seed: int) -> nn.Module:
    """Build T for taps of these shapes; its initial weights follow from `seed` alone.

    Raises:
        TapShapeError: the head cannot read a map of that shape.

    """
    mint = initialised(lambda: build_head(shapes, config), (seed + HEAD_SEED_OFFSET) % SEED_MODULUS)
    mint.requires_grad_(not config.frozen)
    return mint


def _audited(config: ModelConfig, seed: int, model: nn.Module | None) -> nn.Module:
    if model is None:
        return build_audited_model(config, seed)
    if not config.architecture.startswith(CUSTOM_PREFIX):
        raise CustomModelError(
            f"a module was passed, so the architecture must be named '{CUSTOM_PREFIX}<name>'; "
            f"found {config.architecture!r}"
        )
    check_model(model, config)
    return model


def _without(rows: Tensor, hidden: slice) -> Tensor:
    start, stop, _ = hidden.indices(rows.shape[0])
    return rows if start >= stop else torch.cat((rows[:start], rows[stop:]))


def _parse(data: bytes) -> dict[str, Tensor]:
    # A header length may begin with any byte, so the prefixes only explain a file that failed.
    try:
        return load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        if data.startswith(PICKLE_PREFIXES):
            raise PickleRefusedError(
                "expected a safetensors file, found a pickle or a torch.save archive, which could "
                "run code; save the weights with safetensors"
            ) from error
        raise WeightsFileError(
            f"expected a whole safetensors file, found {len(data)} bytes that are not one "
            f"({error}); transfer it again"
        ) from error


def _check_match(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    differences = (
        [f"{name} is missing" for name in sorted(expected.keys() - found.keys())]
        + [f"{name} is not part of this model" for name in sorted(found.keys() - expected.keys())]
        + [
            f"{name}: expected {_kind(expected[name])}, found {_kind(found[name])}"
            for name in sorted(expected.keys() & found.keys())
            if _kind(expected[name]) != _kind(found[name])
        ]
    )
    if differences:
        more = len(differences) - LISTED_NAMES
        listed = "; ".join(differences[:LISTED_NAMES]) + (f"; and {more} more" if more > 0 else "")
        raise WeightsMismatchError(f"the weights belong to another model: {listed}")


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
