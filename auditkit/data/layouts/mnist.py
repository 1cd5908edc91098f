"""MNIST as released: IDX files, packed with gzip or not. Sets made like it load as well."""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from auditkit.data.errors import BinaryFileError, LabelRangeError
from auditkit.data.images import Pixels
from auditkit.data.layouts.files import first_existing
from auditkit.data.layouts.listing import Listing
from auditkit.data.source import DataSource, Part

CLASSES = 10
FILES: dict[Part, str] = {"train": "train", "test": "t10k"}

# An IDX file starts with two zero bytes, the type (8: unsigned bytes) and the number of dimensions.
UNSIGNED_BYTES = 0x0800

# MNIST has 47 MB. What says that it is much more is no copy of it, or a decompression bomb.
MOST_BYTES = 2**30


def listing(path: Path, source: DataSource) -> Listing:
    """List MNIST in `path`, `path/MNIST/raw` (where torchvision puts it) or `path/raw`.

    Raises:
        PoolNotFoundError, BinaryFileError, LabelRangeError.

    """
    prefix = FILES[source.part or "train"]
    images_file = _find(path, f"{prefix}-images", 3)
    labels_file = _find(path, f"{prefix}-labels", 1)
    images, labels = read_idx(images_file, 3), read_idx(labels_file, 1)
    if len(images) != len(labels):
        raise BinaryFileError(
            f"{labels_file}: expected {len(images)} labels, one for each image in {images_file}, "
            f"found {len(labels)}; restore both files"
        )
    if labels.size and labels.max() >= CLASSES:
        raise LabelRangeError(
            f"{labels_file}: expected labels from 0 to {CLASSES - 1}, found {labels.max()}"
        )
    names = [str(digit) for digit in range(CLASSES)]
    return Listing.of_pixels(
        str(images_file), names, images[..., np.newaxis], labels.astype(np.int64)
    )


def read_idx(path: Path, dimensions: int) -> Pixels:
    """Read an IDX file of unsigned bytes with so many dimensions.

    Raises:
        BinaryFileError: another type or shape, cut off, too long, or damaged.

    """
    header = struct.Struct(f">I{dimensions}I")
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            start = stream.read(header.size)
            if len(start) < header.size:
                raise BinaryFileError(f"{path}: expected an IDX file, found {len(start)} bytes")
            magic, *shape = header.unpack(start)
            size = math.prod(shape)
            if magic != UNSIGNED_BYTES | dimensions or size > MOST_BYTES:
                raise BinaryFileError(
                    f"{path}: expected an IDX file of unsigned bytes with {dimensions} dimensions "
                    f"and at most {MOST_BYTES:,} values, found type {magic:#x} and shape {shape}; "
                    "restore the file"
                )
            values = stream.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise BinaryFileError(
            f"{path}: expected a whole IDX file, found {error}; restore the file"
        ) from error
    if len(values) != size:
        found = f"only {len(values):,}" if len(values) < size else "more"
        raise BinaryFileError(
            f"{path}: expected {size:,} values after the header, found {found}; restore the file"
        )
    return np.frombuffer(values, dtype=np.uint8).reshape(shape)


def _find(root: Path, name: str, dimensions: int) -> Path:
    folders = (root, root / "MNIST" / "raw", root / "raw")
    names = (f"{name}-idx{dimensions}-ubyte", f"{name}.idx{dimensions}-ubyte")
    return first_existing(
        [
            folder / f"{spelt}{packed}"
            for folder in folders
            for spelt in names
            for packed in ("", ".gz")
        ],
        "MNIST as IDX files",
    )
