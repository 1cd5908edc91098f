"""CIFAR-10 as its binary release: records of one label byte and 32 x 32 pixels, plane by plane."""

from pathlib import Path

import numpy as np

from auditkit.data.errors import BinaryFileError, LabelRangeError, PickleRefusedError
from auditkit.data.images import Pixels
from auditkit.data.layouts.files import first_existing
from auditkit.data.layouts.listing import Labels, Listing
from auditkit.data.source import DataSource, Part

FOLDER = "cifar-10-batches-bin"
PICKLED_FOLDER = "cifar-10-batches-py"
FILES: dict[Part, tuple[str, ...]] = {
    "train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
    "test": ("test_batch.bin",),
}
CLASS_NAMES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
PLANES = (3, 32, 32)
RECORD_BYTES = 1 + 3 * 32 * 32

# The released files hold 10,000 records each; joined ones may hold them all, and no more.
MOST_RECORDS = 60_000


def listing(path: Path, source: DataSource) -> Listing:
    """List CIFAR-10 in `path`, or in `cifar-10-batches-bin` below it.

    Raises:
        PickleRefusedError, PoolNotFoundError, BinaryFileError, LabelRangeError.

    """
    names = FILES[source.part or "train"]
    files = [_find(path, name) for name in names]
    batches = [read_batch(file) for file in files]
    pixels = np.concatenate([images for images, _ in batches])
    labels = np.concatenate([labels for _, labels in batches])
    return Listing.of_pixels(str(files[0].parent), CLASS_NAMES, pixels, labels)


def read_batch(path: Path) -> tuple[Pixels, Labels]:
    """Read one file: images (N, 32, 32, 3) and labels (N,).

    Raises:
        BinaryFileError: not a whole number of records, or absurdly many.
        LabelRangeError: a label above 9.

    """
    try:
        size = path.stat().st_size
        if size == 0 or size % RECORD_BYTES or size > MOST_RECORDS * RECORD_BYTES:
            raise BinaryFileError(
                f"{path}: expected 1 to {MOST_RECORDS:,} records of {RECORD_BYTES} bytes each, "
                f"found {size:,} bytes; restore the file"
            )
        records = np.fromfile(path, dtype=np.uint8).reshape(-1, RECORD_BYTES)
    except OSError as error:
        raise BinaryFileError(
            f"{path}: expected a readable file, found {error}; restore it"
        ) from error
    labels = records[:, 0].astype(np.int64)
    wrong = np.flatnonzero(labels >= len(CLASS_NAMES))
    if wrong.size:
        raise LabelRangeError(
            f"{path}, record {wrong[0]}: expected a label from 0 to {len(CLASS_NAMES) - 1}, found "
            f"{labels[wrong[0]]}; restore the file"
        )
    planes = records[:, 1:].reshape(-1, *PLANES)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels


def _find(root: Path, name: str) -> Path:
    candidates = [root / name, root / FOLDER / name]
    pickled = [root / PICKLED_FOLDER, root / Path(name).stem]
    if not any(path.exists() for path in candidates) and any(path.exists() for path in pickled):
        raise PickleRefusedError(
            f"{root}: expected the binary release of CIFAR-10 ({FOLDER}), found the Python "
            "release; its files are pickles, which can run any code and are never opened; use the "
            "binary release or an image folder"
        )
    return first_existing(candidates, "the binary release of CIFAR-10")
