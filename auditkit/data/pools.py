"""Pools: labelled images in memory, from wherever they are kept. Nothing is ever downloaded."""

import inspect
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torchvision
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field, model_validator
from sklearn.datasets import load_digits

from auditkit.data.errors import (
    ArraysFileError,
    ClassFoldersError,
    EmptyPoolError,
    ImageSizeError,
    LabelRangeError,
    PixelTypeError,
    PoolNotFoundError,
    SingleClassError,
    UnknownDatasetError,
)
from auditkit.data.images import Pixels, open_file, to_pixels
from schemas.base import Count, Schema

Labels = NDArray[np.int64]
Progress = Callable[[int, int], None]  # images done, images in all
Part = Literal["train", "test"]
Channels = Literal[1, 3]
Positive = Annotated[int, Field(ge=1)]

IMAGE_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
PARTS: tuple[Part, ...] = ("train", "test")

# scikit-learn's digits count ink in 17 steps, 0 to 16.
DIGITS_WHITE = 16


@dataclass(frozen=True)
class Pool:
    """Labelled images, in a fixed order: `images` (N, H, W, C) uint8, `labels` (N,) int64."""

    images: Pixels
    labels: Labels
    class_names: tuple[str, ...]

    @property
    def size(self) -> int:
        """Number of samples."""
        return len(self.images)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of every image."""
        _, height, width, channels = self.images.shape
        return height, width, channels


class Selection(Schema):
    """Which samples of a source to take: all in order, or a slice of a fixed-seed shuffle.

    Two selections with one seed and slices that do not overlap share no sample, so that pool and
    test can come from one source.
    """

    skip: Count = 0
    limit: Positive | None = None
    seed: Count = 0

    def indices(self, size: int, source: str) -> NDArray[np.int64]:
        """Return the positions to take out of `size`.

        Raises:
            EmptyPoolError: the source has fewer samples than that.

        """
        needed = self.skip + (self.limit or 1)
        if needed > size:
            raise EmptyPoolError(
                f"{source}: expected at least {needed} samples (skip {self.skip}, "
                f"limit {self.limit}), found {size}; lower them or add data"
            )
        if self.skip == 0 and self.limit is None:
            return np.arange(size, dtype=np.int64)
        stop = None if self.limit is None else self.skip + self.limit
        order = np.random.default_rng(self.seed).permutation(size)[self.skip : stop]
        return order.astype(np.int64)


class DataSource(Schema):
    """Where a pool or a test set comes from."""

    kind: Literal["digits", "image_folder", "torchvision", "arrays"]
    path: str | None = Field(default=None, description="relative to the configuration file")
    dataset: str | None = Field(default=None, description="class in torchvision.datasets")
    part: Part | None = Field(default=None, description="which part of the source")
    height: Positive | None = Field(default=None, description="None: the images' own")
    width: Positive | None = Field(default=None, description="None: the images' own")
    channels: Channels | None = Field(default=None, description="None: 3, or the source's own")
    resize: bool = Field(default=False, description="resize images of another size")
    selection: Selection = Selection()

    @model_validator(mode="after")
    def _is_complete(self) -> "DataSource":
        if (self.kind == "digits") != (self.path is None):
            raise ValueError("`path` is given for every kind but digits")
        if (self.kind == "torchvision") != (self.dataset is not None):
            raise ValueError("`dataset` is given with kind = 'torchvision', and only then")
        if (self.height is None) != (self.width is None):
            raise ValueError("`height` and `width` are given together")
        if self.resize and self.height is None:
            raise ValueError("`resize` needs `height` and `width`")
        return self


@dataclass(frozen=True)
class _Format:
    """What the images of a pool must look like; None means: like the first one."""

    height: int | None
    width: int | None
    channels: Channels | None
    resize: bool


@dataclass(frozen=True)
class _Pictures:
    """Pictures that are decoded one by one, and what to call them in a message."""

    count: int
    channels: int
    decode: Callable[[int], Image.Image]
    name: Callable[[int], str]


@dataclass(frozen=True)
class _Dataset:
    """One part of a data set of torchvision."""

    name: str
    root: Path
    part: Part

    def open(self) -> Any:  # noqa: ANN401
        """Return the data set, which gives pairs of a picture and a class number."""
        name, root = self.name, self.root
        kind = getattr(torchvision.datasets, name, None)
        if not (inspect.isclass(kind) and issubclass(kind, torchvision.datasets.VisionDataset)):
            raise UnknownDatasetError(
                f"expected a data set of torchvision, found {name!r}; "
                "see torchvision.datasets for the names"
            )
        if not root.is_dir():
            raise PoolNotFoundError(
                f"{root}: expected a folder with {name}, found none; check the path"
            )
        build: Callable[..., Any] = kind
        try:
            return build(root=str(root), **self._arguments(build))
        except (RuntimeError, OSError, ValueError) as error:
            raise PoolNotFoundError(
                f"{root}: expected {name} in the layout of torchvision, found none ({error}); "
                "put the files there; nothing is downloaded"
            ) from error

    def _arguments(self, build: Callable[..., Any]) -> dict[str, Any]:
        parameters = inspect.signature(build).parameters
        arguments: dict[str, Any] = {"download": False} if "download" in parameters else {}
        if "train" in parameters:
            return arguments | {"train": self.part == "train"}
        if "split" in parameters:
            return arguments | {"split": self.part}
        raise UnknownDatasetError(
            f"{self.name}: expected a data set with a train and a test part, found none; "
            "export it as an image folder"
        )


def open_pool(source: DataSource, base: Path, progress: Progress | None = None) -> Pool:
    """Load the samples that `source` describes; a relative path starts at `base`.

    Raises:
        DataError: one of the errors of `auditkit.data.errors`; each names the path at fault.

    """
    wanted = _Format(source.height, source.width, source.channels, source.resize)
    path = base / (source.path or "")
    if source.kind == "digits":
        return _fitted(_digits(source.selection), "digits", wanted)
    if source.kind == "arrays":
        return _fitted(_from_npz(path, source.selection), str(path), wanted)
    if source.kind == "torchvision":
        part = source.part or "train"
        dataset = _Dataset(source.dataset or "", path, part)
        return _from_torchvision(dataset, wanted, source.selection, progress)
    folder = path / source.part if source.part else path
    return _from_folder(folder, wanted, source.selection, progress)


def from_arrays(
    images: NDArray[Any], labels: NDArray[Any], class_names: Sequence[str], name: str = "arrays"
) -> Pool:
    """Build a pool from pixels (N, H, W, C) or (N, H, W), uint8, and labels (N,).

    Raises:
        PixelTypeError, EmptyPoolError, LabelRangeError, SingleClassError.

    """
    if images.ndim == 3:
        images = images[..., np.newaxis]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
        raise PixelTypeError(
            f"{name}: expected uint8 pixels of shape (N, H, W), (N, H, W, 1) or (N, H, W, 3), "
            f"found {images.dtype} of shape {images.shape}"
        )
    if images.size == 0:
        raise EmptyPoolError(f"{name}: expected at least one sample, found none; add data")
    if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
        raise LabelRangeError(
            f"{name}: expected {len(images)} whole-number labels, found {labels.dtype} of shape "
            f"{labels.shape}"
        )
    if labels.min() < 0 or labels.max() >= len(class_names):
        raise LabelRangeError(
            f"{name}: expected labels from 0 to {len(class_names) - 1} (one per class name), found "
            f"{labels.min()} to {labels.max()}"
        )
    if labels.min() == labels.max():
        raise SingleClassError(
            f"{name}: expected samples of at least two classes, found only "
            f"{class_names[int(labels[0])]!r}; add classes or enlarge the selection"
        )
    return Pool(np.ascontiguousarray(images), labels.astype(np.int64), tuple(class_names))


def from_image_folder(
    path: Path,
    height: int | None,
    width: int | None,
    channels: Channels,
    *,
    resize: bool = False,
    selection: Selection | None = None,
    progress: Progress | None = None,
) -> Pool:
    """Load `path/<class>/.../<file>`; classes and files are sorted by name.

    Raises:
        PoolNotFoundError, ClassFoldersError, EmptyPoolError, SingleClassError,
        UndecodableImageError, ImageSizeError.

    """
    wanted = _Format(height, width, channels, resize)
    return _from_folder(path, wanted, selection or Selection(), progress)


def from_torchvision(
    name: str,
    root: Path,
    *,
    train: bool,
    height: int | None = None,
    width: int | None = None,
    channels: Channels | None = None,
    resize: bool = False,
    selection: Selection | None = None,
    progress: Progress | None = None,
) -> Pool:
    """Load a classification data set of torchvision that already lies below `root`.

    Raises:
        UnknownDatasetError, PoolNotFoundError, EmptyPoolError, SingleClassError, ImageSizeError,
        LabelRangeError.

    """
    wanted = _Format(height, width, channels, resize)
    dataset = _Dataset(name, root, "train" if train else "test")
    return _from_torchvision(dataset, wanted, selection or Selection(), progress)


def digits() -> Pool:
    """Return scikit-learn's handwritten digits: 1,797 images of 8 x 8 grey pixels, 10 classes."""
    return _digits(Selection())


def _digits(selection: Selection) -> Pool:
    loaded = load_digits()
    chosen = selection.indices(len(loaded.images), "digits")
    images = np.rint(loaded.images[chosen] * 255 / DIGITS_WHITE).astype(np.uint8)
    names = [str(digit) for digit in range(10)]
    return from_arrays(images, loaded.target[chosen], names, "digits")


def _from_npz(path: Path, selection: Selection) -> Pool:
    if not path.is_file():
        raise PoolNotFoundError(f"{path}: expected an .npz file, found none; check the path")
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except (OSError, ValueError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise ArraysFileError(
            f"{path}: expected an .npz file of plain arrays, found one that cannot be read "
            f"({error}); write it with numpy.savez and no object arrays"
        ) from error
    missing = {"images", "labels"} - arrays.keys()
    if missing:
        raise ArraysFileError(
            f"{path}: expected the arrays images and labels, found {sorted(arrays)}"
        )
    images, labels = arrays["images"], arrays["labels"]
    if labels.ndim != 1 or len(images) != len(labels) or len(labels) == 0:
        raise EmptyPoolError(
            f"{path}: expected as many images as labels and at least one, found shapes "
            f"{images.shape} and {labels.shape}"
        )
    names = arrays.get("class_names", np.arange(max(0, int(labels.max())) + 1))
    chosen = selection.indices(len(labels), str(path))
    return from_arrays(images[chosen], labels[chosen], [str(name) for name in names], str(path))


def _fitted(pool: Pool, name: str, wanted: _Format) -> Pool:
    """Bring arrays to the wanted size and channels; they must agree unless `resize` is set."""
    height, width, channels = pool.shape
    expected = (wanted.height or height, wanted.width or width, wanted.channels or channels)
    if expected == pool.shape:
        return pool
    pictures = _Pictures(
        pool.size,
        channels,
        lambda index: Image.fromarray(pool.images[index].squeeze()),
        lambda _: name,
    )
    images = _decoded(pictures, wanted, None)
    return Pool(images, pool.labels, pool.class_names)


def _from_folder(
    folder: Path, wanted: _Format, selection: Selection, progress: Progress | None
) -> Pool:
    names, files, labels = _listed(folder)
    chosen = selection.indices(len(files), str(folder))
    paths = [files[index] for index in chosen]
    pictures = _Pictures(
        len(paths), 3, lambda index: open_file(paths[index]), lambda index: str(paths[index])
    )
    images = _decoded(pictures, wanted, progress)
    return from_arrays(images, labels[chosen], names, str(folder))


def _listed(folder: Path) -> tuple[list[str], list[Path], Labels]:
    """List class names, image files and labels of an image folder, sorted by name."""
    if not folder.is_dir():
        raise PoolNotFoundError(f"{folder}: expected an image folder, found none; check the path")
    classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    if not classes:
        raise ClassFoldersError(
            f"{folder}: expected one folder per class, found none; sort the images into "
            f"{folder}/<class>/"
        )
    if set(classes) <= set(PARTS):
        raise ClassFoldersError(
            f"{folder}: expected one folder per class, found the parts {', '.join(classes)}; "
            "choose one with `part`"
        )
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = sorted(
            path
            for path in (folder / name).rglob("*")
            if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
        )
        files += found
        labels += [label] * len(found)
    if not files:
        raise EmptyPoolError(
            f"{folder}: expected images ({', '.join(sorted(IMAGE_SUFFIXES))}) in the class "
            "folders, found none; add images"
        )
    return classes, files, np.array(labels, dtype=np.int64)


def _from_torchvision(
    dataset: _Dataset, wanted: _Format, selection: Selection, progress: Progress | None
) -> Pool:
    name, root = dataset.name, dataset.root
    samples = dataset.open()
    chosen = selection.indices(len(samples), f"{name} in {root}")
    labels = np.zeros(len(chosen), dtype=np.int64)

    def picture(index: int) -> Image.Image:
        sample, label = samples[int(chosen[index])]
        if not isinstance(sample, Image.Image) or not isinstance(label, int | np.integer):
            raise UnknownDatasetError(
                f"{name}: expected pairs of an image and a class number, found "
                f"{type(sample).__name__} and {type(label).__name__}; export it as an image folder"
            )
        labels[index] = int(label)
        return sample

    grey = picture(0).mode in {"1", "L"}
    pictures = _Pictures(
        len(chosen),
        1 if grey else 3,
        picture,
        lambda index: f"{name} in {root}, sample {chosen[index]}",
    )
    images = _decoded(pictures, wanted, progress)
    names = getattr(samples, "classes", None) or range(int(labels.max()) + 1)
    return from_arrays(images, labels, [str(n) for n in names], f"{name} in {root}")


def _decoded(pictures: _Pictures, wanted: _Format, progress: Progress | None) -> Pixels:
    """Decode all pictures into one array (N, H, W, C); all must have one size."""
    count = pictures.count
    first = pictures.decode(0)
    height, width = wanted.height or first.height, wanted.width or first.width
    images = np.empty((count, height, width, wanted.channels or pictures.channels), dtype=np.uint8)
    for index in range(count):
        image = pictures.decode(index)
        if image.size != (width, height) and not wanted.resize:
            raise ImageSizeError(
                f"{pictures.name(index)}: expected {width} x {height} pixels (width x height), "
                f"found {image.width} x {image.height}; set `resize` with `height` and `width`, or "
                "resize the images"
            )
        images[index] = to_pixels(image, height, width, images.shape[3])
        if progress is not None:
            progress(index + 1, count)
    return images
