"""A developer points the toolkit at data; each mistake is answered with what to do."""

from pathlib import Path

import numpy as np
import pytest
import torchvision
from PIL import Image
from pydantic import ValidationError
from sklearn.datasets import load_digits

from auditkit.data import pools
from auditkit.data.errors import (
    ArraysFileError,
    ClassFoldersError,
    EmptyPoolError,
    ImageSizeError,
    LabelRangeError,
    PixelTypeError,
    PoolNotFoundError,
    SingleClassError,
    UndecodableImageError,
    UnknownDatasetError,
)
from auditkit.data.pools import DataSource, Selection, open_pool
from tests.data.sources import cifar10_folder, mnist_folder


def save_image(path: Path, seed: int, size: tuple[int, int] = (9, 7)) -> np.ndarray:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for label, name in enumerate(("cat", "dog")):
        for index in range(3):
            save_image(tmp_path / "train" / name / f"{index}.png", 10 * label + index)
        save_image(tmp_path / "test" / name / "0.png", 90 + label)
    return tmp_path


def source(path: str | None = "train", kind: str = "image_folder", **options: object) -> DataSource:
    return DataSource.model_validate({"kind": kind, "path": path, **options})


def test_image_folder_is_read_in_sorted_order(folder: Path) -> None:
    pool = open_pool(source(), folder)
    assert pool.class_names == ("cat", "dog")
    assert pool.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert pool.shape == (7, 9, 3)
    np.testing.assert_array_equal(pool.images[4], save_image(folder / "copy.png", 11))


def test_parts_of_one_root_are_two_sources(folder: Path) -> None:
    train = open_pool(source(".", part="train"), folder)
    test = open_pool(source(".", part="test"), folder)
    assert (train.size, test.size) == (6, 2)
    with pytest.raises(ClassFoldersError, match="choose one with `part`"):
        open_pool(source("."), folder)


def test_nested_class_folders_and_other_files(folder: Path) -> None:
    (folder / "train" / "cat" / "boxes.txt").write_text("not an image")
    save_image(folder / "train" / "dog" / "images" / "3.PNG", 5)
    assert open_pool(source(), folder).labels.tolist() == [0, 0, 0, 1, 1, 1, 1]


def test_grey_images_and_resizing(folder: Path) -> None:
    grey = open_pool(source(channels=1, height=4, width=5, resize=True), folder)
    assert grey.images.shape == (6, 4, 5, 1)
    reds = open_pool(source(), folder).images[:, :, :, 0]
    assert not np.array_equal(open_pool(source(channels=1), folder).images[..., 0], reds)


def test_other_size_names_file_and_sizes(folder: Path) -> None:
    save_image(folder / "train" / "dog" / "9.png", 1, size=(8, 8))
    with pytest.raises(
        ImageSizeError, match=r"9\.png: expected 9 x 7 .* found 8 x 8; set `resize`"
    ):
        open_pool(source(), folder)
    with pytest.raises(ImageSizeError, match=r"0\.png: expected 8 x 8"):
        open_pool(source(height=8, width=8), folder)


@pytest.mark.parametrize("content", [b"", b"no image at all", b"\x89PNG\r\n\x1a\n cut"])
def test_undecodable_file_is_named(folder: Path, content: bytes) -> None:
    (folder / "train" / "cat" / "broken.png").write_bytes(content)
    with pytest.raises(UndecodableImageError, match=r"broken\.png.*remove or replace"):
        open_pool(source(), folder)


def test_missing_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(PoolNotFoundError, match="nowhere"):
        open_pool(source("nowhere"), tmp_path)
    (tmp_path / "flat").mkdir()
    save_image(tmp_path / "flat" / "0.png", 0)
    with pytest.raises(ClassFoldersError, match="one folder per class"):
        open_pool(source("flat"), tmp_path)
    (tmp_path / "empty" / "cat").mkdir(parents=True)
    with pytest.raises(EmptyPoolError, match="found none"):
        open_pool(source("empty"), tmp_path)
    save_image(tmp_path / "one" / "cat" / "0.png", 0)
    with pytest.raises(SingleClassError, match="'cat'"):
        open_pool(source("one"), tmp_path)


def test_digits_are_scaled_exactly() -> None:
    pool = pools.digits()
    assert pool.images.shape == (1797, 8, 8, 1)
    expected = np.array([round(v * 255 / 16) for v in load_digits().images.ravel()])
    np.testing.assert_array_equal(pool.images.ravel(), expected)


def test_slices_of_one_shuffle_never_overlap() -> None:
    whole = pools.digits()
    pool = open_pool(source(None, "digits", selection={"limit": 1400}), Path())
    test = open_pool(source(None, "digits", selection={"skip": 1400}), Path())
    assert (pool.size, test.size) == (1400, 397)
    first = Selection(limit=1400).indices(1797, "digits")
    rest = Selection(skip=1400).indices(1797, "digits")
    assert sorted([*first, *rest]) == list(range(1797))
    np.testing.assert_array_equal(pool.images, whole.images[first])
    with pytest.raises(EmptyPoolError, match="at least 1801"):
        open_pool(source(None, "digits", selection={"skip": 1400, "limit": 401}), Path())


def test_arrays_file(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 5, 4), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images=images, labels=np.arange(6) % 3)
    pool = open_pool(source("a.npz", "arrays"), tmp_path)
    assert (pool.images.shape, pool.class_names) == ((6, 5, 4, 1), ("0", "1", "2"))
    colour = open_pool(
        source("a.npz", "arrays", channels=3, height=8, width=8, resize=True), tmp_path
    )
    assert colour.images.shape == (6, 8, 8, 3)
    with pytest.raises(ImageSizeError):
        open_pool(source("a.npz", "arrays", height=8, width=8), tmp_path)


def test_arrays_file_never_unpickles(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    np.savez(tmp_path / "a.npz", images=np.array([Trap()], dtype=object), labels=np.arange(1))
    with pytest.raises(ArraysFileError, match="no object arrays"):
        open_pool(source("a.npz", "arrays"), tmp_path)
    assert not (tmp_path / "sprung").exists()


def test_damaged_arrays_files(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", pictures=np.zeros((2, 4, 4), np.uint8))
    with pytest.raises(ArraysFileError, match="found \\['pictures'\\]"):
        open_pool(source("a.npz", "arrays"), tmp_path)
    (tmp_path / "b.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:100])
    (tmp_path / "c.npz").write_bytes(b"")
    np.save(tmp_path / "d.npz.npy", np.zeros(3))
    (tmp_path / "d.npz.npy").rename(tmp_path / "d.npz")
    for name in ("b.npz", "c.npz", "d.npz"):
        with pytest.raises(ArraysFileError, match=name):
            open_pool(source(name, "arrays"), tmp_path)
    with pytest.raises(PoolNotFoundError, match=r"e\.npz"):
        open_pool(source("e.npz", "arrays"), tmp_path)


def test_arrays_in_memory_are_checked() -> None:
    images, labels = np.zeros((4, 2, 2), np.uint8), np.array([0, 1, 0, 1])
    assert pools.from_arrays(images, labels, ["a", "b"]).images.shape == (4, 2, 2, 1)
    with pytest.raises(PixelTypeError, match="float64"):
        pools.from_arrays(images / 255, labels, ["a", "b"])
    with pytest.raises(PixelTypeError):
        pools.from_arrays(np.zeros((4, 2, 2, 2), np.uint8), labels, ["a", "b"])
    with pytest.raises(EmptyPoolError):
        pools.from_arrays(images[:0], labels[:0], ["a", "b"])
    with pytest.raises(LabelRangeError, match="0 to 1"):
        pools.from_arrays(images, labels, ["a"])
    with pytest.raises(LabelRangeError):
        pools.from_arrays(images, -labels, ["a", "b"])
    with pytest.raises(LabelRangeError, match="float64"):
        pools.from_arrays(images, labels.astype(float), ["a", "b"])
    with pytest.raises(LabelRangeError):
        pools.from_arrays(images, labels[:3], ["a", "b"])


def test_source_descriptions_are_checked() -> None:
    for wrong in (
        {"kind": "digits", "path": "x"},
        {"kind": "image_folder"},
        {"kind": "torchvision", "path": "x"},
        {"kind": "arrays", "path": "x", "dataset": "MNIST"},
        {"kind": "arrays", "path": "x", "height": 3},
        {"kind": "arrays", "path": "x", "resize": True},
        {"kind": "web", "path": "x"},
    ):
        with pytest.raises(ValidationError):
            DataSource.model_validate(wrong)


def test_unknown_or_absent_torchvision_sets(tmp_path: Path) -> None:
    with pytest.raises(UnknownDatasetError, match="MNISTT"):
        open_pool(source(".", "torchvision", dataset="MNISTT"), tmp_path)
    with pytest.raises(UnknownDatasetError):
        open_pool(source(".", "torchvision", dataset="vision"), tmp_path)
    with pytest.raises(PoolNotFoundError, match="nothing is downloaded"):
        open_pool(source(".", "torchvision", dataset="CIFAR10"), tmp_path)
    with pytest.raises(PoolNotFoundError, match="nothing is downloaded"):
        open_pool(source(".", "torchvision", dataset="SVHN"), tmp_path)
    with pytest.raises(PoolNotFoundError, match="absent"):
        open_pool(source("absent", "torchvision", dataset="MNIST"), tmp_path)


def test_torchvision_mnist() -> None:
    root = mnist_folder()
    calls: list[tuple[int, int]] = []
    described = source(
        str(root), "torchvision", dataset="MNIST", part="test", selection={"limit": 64}
    )
    pool = open_pool(described, Path(), lambda done, total: calls.append((done, total)))
    assert pool.images.shape == (64, 28, 28, 1)
    assert calls[-1] == (64, 64)
    original = torchvision.datasets.MNIST(root, train=False)
    chosen = Selection(limit=64).indices(len(original), "MNIST")
    np.testing.assert_array_equal(pool.images[..., 0], original.data.numpy()[chosen])
    np.testing.assert_array_equal(pool.labels, original.targets.numpy()[chosen])
    assert pools.from_torchvision(
        "MNIST", root, train=False, channels=3, selection=Selection(limit=9)
    ).shape == (28, 28, 3)


def test_cifar10_image_folder() -> None:
    pool = pools.from_image_folder(
        cifar10_folder() / "test", 32, 32, 3, selection=Selection(limit=200, seed=3)
    )
    assert pool.images.shape == (200, 32, 32, 3)
    assert len(pool.class_names) == 10
    assert len(set(pool.labels.tolist())) == 10
