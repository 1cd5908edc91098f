"""Writing samples as files that any program shows."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write the pixels (H, W, C) of one sample without any loss.

    Raises:
        OSError: the file cannot be written.
    """
    from PIL import Image

    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(path, "PNG")
