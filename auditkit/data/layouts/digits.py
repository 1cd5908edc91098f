"""scikit-learn's handwritten digits: 1,797 images of 8 x 8 grey pixels, 10 classes."""

from pathlib import Path

import numpy as np

from auditkit.data.layouts.listing import Listing
from auditkit.data.source import DataSource

# They count ink in 17 steps, 0 to 16.
WHITE = 16


def listing(_path: Path, _source: DataSource) -> Listing:
    """List the digits; they come with scikit-learn, without any file."""
    from sklearn.datasets import load_digits  # slow to load, and other layouts do without

    loaded = load_digits()
    pixels = np.rint(loaded.images * 255 / WHITE).astype(np.uint8)[..., np.newaxis]
    names = [str(digit) for digit in range(10)]
    return Listing.of_pixels("digits", names, pixels, loaded.target.astype(np.int64))
