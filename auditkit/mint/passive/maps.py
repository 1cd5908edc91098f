"""Reading a trained M: activation maps at named taps, and the outcome, batch by batch."""

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from auditkit.mint.errors import NonFiniteFeatureError, TapPositionError, TapShapeError
from auditkit.mint.models import device_of, evaluating
from auditkit.mint.passive.features import outcome_features
from auditkit.mint.preprocessing import to_inputs
from auditkit.mint.reading import Reading, attach, new_reader, read
from auditkit.mint.taps import check_names
from schemas import Normalisation

READ_BATCH = 256  # images per forward pass; in evaluation mode no row depends on another

# Maps up to this size are kept, so that a network of many epochs reads M once. Larger ones are
# read again whenever they are needed.
MOST_HELD_BYTES = 2**30


class ActivationMaps:
    """The activation maps of a set of images, read from M when they are asked for."""

    def __init__(
        self,
        model: nn.Module,
        taps: Sequence[str],
        images: NDArray[np.uint8],
        normalisation: Normalisation,
        most_held_bytes: int = MOST_HELD_BYTES,
    ) -> None:
        check_names(model, taps)
        self._model = model
        self._taps = tuple(dict.fromkeys(taps))
        self._images = images
        self._normalisation = normalisation
        blank = np.zeros((1, *images.shape[1:]), dtype=np.uint8)
        self.shapes: tuple[tuple[int, ...], ...] = tuple(
            tuple(found.shape[1:]) for found in self._read(blank)
        )
        floats = len(images) * sum(torch.Size(shape).numel() for shape in self.shapes)
        self._fits = floats * torch.float32.itemsize <= most_held_bytes

    def __len__(self) -> int:
        return len(self._images)

    def batch(self, rows: NDArray[np.int64]) -> list[Tensor]:
        """Return the maps of some images, one (rows, ...) per tap, in the order of the taps.

        Raises:
            NonFiniteFeatureError: an activation is infinite or not a number.

        """
        if self._fits:
            return [held[torch.from_numpy(rows).to(held.device)] for held in self._held]
        return self._read(self._images[rows])

    def maxima(self) -> NDArray[np.float32]:
        """Return the maximum of every map, (N, maps of all taps); memory for one batch of maps.

        The map of a channel is (H, W) after a convolution and all tokens after a transformer's
        block; a vector has maps of one number.

        Raises:
            NonFiniteFeatureError: an activation is infinite or not a number.

        """
        rows = [
            torch.cat([_maxima(found) for found in maps], dim=1).cpu() for maps in self._batches()
        ]
        return torch.cat(rows).numpy() if rows else np.empty((0, self._width), dtype=np.float32)

    @property
    def _width(self) -> int:
        return sum(shape[0] if len(shape) == 3 else shape[-1] for shape in self.shapes)

    @cached_property
    def _held(self) -> list[Tensor]:
        return [torch.cat(parts) for parts in zip(*self._batches(), strict=True)]

    def _batches(self) -> Iterator[list[Tensor]]:
        for start in range(0, len(self._images), READ_BATCH):
            yield self._read(self._images[start : start + READ_BATCH])

    def _read(self, images: NDArray[np.uint8]) -> list[Tensor]:
        # M may change a map in place after it was read, so that every one of them is copied.
        reading = Reading(new_reader(), copied=frozenset(self._taps))
        handles = attach(self._model, self._taps, reading.reader)
        try:
            with evaluating(self._model), torch.no_grad():
                inputs = to_inputs(images, self._normalisation).to(device_of(self._model))
                read(self._model, inputs, reading)
        finally:
            for handle in handles:
                handle.remove()
        return [_checked(name, reading.maps, len(images)) for name in self._taps]


def read_maps(
    model: nn.Module,
    taps: Sequence[str],
    images: NDArray[np.uint8],
    normalisation: Normalisation,
) -> ActivationMaps:
    """Read M's activation maps at the named modules, in evaluation mode and float32.

    Nothing is held but the images until the maps are used; see `ActivationMaps`.

    Args:
        model: the trained M.
        taps: names of M's modules; `EnhancedAuditedModel.taps.names` for those of M+.
        images: (N, H, W, C) pixels, not augmented.
        normalisation: pixel scaling of M's training.

    Raises:
        UnknownTapError: M has no such module; close names are listed.
        TapShapeError, TapPositionError: a module gives no map, or runs never or twice.

    """
    return ActivationMaps(model, taps, images, normalisation)


def read_outcome(
    model: nn.Module,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    normalisation: Normalisation,
) -> NDArray[np.float32]:
    """Return `outcome_features` of M on the images (N, H, W, C) with their labels (N,).

    Raises:
        FeatureShapeError, NonFiniteFeatureError: see `outcome_features`.

    """
    batches = []
    with evaluating(model), torch.no_grad():
        for start in range(0, len(images), READ_BATCH):
            inputs = to_inputs(images[start : start + READ_BATCH], normalisation)
            logits: Tensor = model(inputs.to(device_of(model)))
            batches.append(
                outcome_features(logits.float().cpu().numpy(), labels[start : start + READ_BATCH])
            )
    return np.concatenate(batches)


def _maxima(found: Tensor) -> Tensor:
    if found.ndim == 2:
        return found
    return found.amax(dim=1) if found.ndim == 3 else found.flatten(start_dim=2).amax(dim=2)


def _checked(name: str, maps: dict[str, Tensor], rows: int) -> Tensor:
    if name not in maps:
        raise TapPositionError(
            f"expected every tap to run once per forward pass; {name!r} did not run; choose "
            "another module"
        )
    found = maps[name]
    if found.shape[0] != rows:
        raise TapShapeError(
            f"tap {name!r}: expected one row per sample, found {found.shape[0]} rows for {rows} "
            "samples; choose another module"
        )
    if not torch.isfinite(found).all():
        raise NonFiniteFeatureError(
            f"tap {name!r}: expected finite activations, found others; M has diverged"
        )
    return found.float()
