"""What every layout says about its samples before any of them is decoded."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from auditkit.data.images import Pixels, open_file

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Listing:
    """The samples of a source, in a fixed order, each decoded when it is asked for."""

    name: str  # what to call the source in a message
    size: int
    class_names: tuple[str, ...]
    sample: Callable[[int], tuple[Image.Image, int]]  # picture and label
    sample_name: Callable[[int], str]
    channels: int
    concurrent: bool = True  # whether `sample` may be called from several threads

    @classmethod
    def of_files(
        cls, name: str, class_names: Sequence[str], files: Sequence[Path], labels: Sequence[int]
    ) -> "Listing":
        """List one image file per sample."""
        return cls(
            name=name,
            size=len(files),
            class_names=tuple(class_names),
            sample=lambda index: (open_file(files[index]), labels[index]),
            sample_name=lambda index: str(files[index]),
            channels=3,
        )

    @classmethod
    def of_pixels(
        cls, name: str, class_names: Sequence[str], pixels: Pixels, labels: Labels
    ) -> "Listing":
        """List samples that are in memory: (N, H, W, C) uint8 and (N,)."""
        return cls(
            name=name,
            size=len(pixels),
            class_names=tuple(class_names),
            sample=lambda index: (_picture(pixels[index]), int(labels[index])),
            sample_name=lambda index: f"{name}, sample {index}",
            channels=pixels.shape[3],
        )


def _picture(pixels: Pixels) -> Image.Image:
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
