"""A developer points the toolkit at a data set as it was released; nothing is converted first."""

import gzip
import logging
import pickle
import shutil
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from auditkit.data import decoding
from auditkit.data.errors import (
    AnnotationError,
    BinaryFileError,
    ClassFoldersError,
    EmptyPoolError,
    ImageSizeError,
    LabelRangeError,
    PickleRefusedError,
    PoolNotFoundError,
    PoolTooLargeError,
    UndecodableImageError,
)
from auditkit.data.layouts import LAYOUTS
from auditkit.data.layouts.faces import part_of
from auditkit.data.layouts.mnist import read_idx
from auditkit.data.pools import DataSource, Pool, Selection, open_pool
from auditkit.data.source import Kind
from tests.data import released
from tests.data.sources import mnist_folder


def opened(kind: str, path: Path, **options: object) -> Pool:
    return open_pool(DataSource.model_validate({"kind": kind, "path": str(path), **options}), path)


def at(height: int, width: int, **options: object) -> dict[str, object]:
    return {"height": height, "width": width, "resize": True, **options}


def test_every_kind_has_a_layout() -> None:
    assert set(LAYOUTS) == set(get_args(Kind))


@pytest.mark.parametrize("kind", ["mnist", "cifar10", "gtsrb", "tiny_imagenet", "faces"])
@pytest.mark.parametrize("part", ["train", "test"])
def test_every_layout_says_that_a_set_is_not_there(kind: str, part: str, tmp_path: Path) -> None:
    with pytest.raises((PoolNotFoundError, ClassFoldersError), match=str(tmp_path)):
        opened(kind, tmp_path, part=part)
    with pytest.raises(PoolNotFoundError, match="nowhere"):
        opened(kind, tmp_path / "nowhere", part=part)


# MNIST


@pytest.mark.parametrize("place", [".", "MNIST/raw", "raw"])
@pytest.mark.parametrize("packed", [False, True])
def test_mnist_wherever_its_files_are(tmp_path: Path, place: str, packed: bool) -> None:
    released.write_mnist(tmp_path / place, {"train": 30, "t10k": 20}, packed=packed)
    train, test = opened("mnist", tmp_path), opened("mnist", tmp_path, part="test")
    assert (train.images.shape, test.images.shape) == ((30, 28, 28, 1), (20, 28, 28, 1))
    expected = np.random.default_rng(1).integers(0, 256, (20, 28, 28), dtype=np.uint8)
    np.testing.assert_array_equal(test.images[..., 0], expected)
    assert train.labels.tolist() == [*range(10)] * 3
    assert opened("mnist", tmp_path, **at(32, 32, channels=3)).shape == (32, 32, 3)


def test_real_mnist_is_read_as_torchvision_reads_it() -> None:
    root = mnist_folder()
    for part in ("train", "test"):
        original = torchvision.datasets.MNIST(root, train=part == "train")
        pool = opened("mnist", root, part=part, selection={"limit": 1000, "seed": 5})
        chosen = Selection(limit=1000, seed=5).indices(len(original), "MNIST")
        np.testing.assert_array_equal(pool.images[..., 0], original.data.numpy()[chosen])
        np.testing.assert_array_equal(pool.labels, original.targets.numpy()[chosen])


def test_damaged_mnist_names_the_file(tmp_path: Path) -> None:
    released.write_mnist(tmp_path, {"train": 12, "t10k": 12})
    images, labels = tmp_path / "train-images-idx3-ubyte", tmp_path / "train-labels-idx1-ubyte"
    whole, tags = images.read_bytes(), labels.read_bytes()
    for damaged in (whole[:-1], whole + b"\0", whole[:9], b"", b"\x89PNG" + whole[4:]):
        images.write_bytes(damaged)
        with pytest.raises(BinaryFileError, match="train-images-idx3-ubyte"):
            opened("mnist", tmp_path)
    images.write_bytes(whole)
    labels.write_bytes(released.idx(np.arange(11, dtype=np.uint8) % 10))
    with pytest.raises(BinaryFileError, match="expected 12 labels"):
        opened("mnist", tmp_path)
    labels.write_bytes(tags[:-1] + b"\x0a")
    with pytest.raises(LabelRangeError, match=r"train-labels-idx1-ubyte.* found 10"):
        opened("mnist", tmp_path)
    labels.unlink()
    with pytest.raises(PoolNotFoundError, match="train-labels-idx1-ubyte"):
        opened("mnist", tmp_path)
    assert opened("mnist", tmp_path, part="test").size == 12


def test_packed_bombs_and_cut_archives_are_refused(tmp_path: Path) -> None:
    released.write_mnist(tmp_path, {"train": 12}, packed=True)
    file = tmp_path / "train-images-idx3-ubyte.gz"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BinaryFileError, match=r"ubyte\.gz"):
        opened("mnist", tmp_path)
    header = released.idx(np.zeros((1, 28, 28), np.uint8))[:16]
    file.write_bytes(gzip.compress(header + bytes(5_000_000)))
    with pytest.raises(BinaryFileError, match=r"expected 784 values .* found more"):
        opened("mnist", tmp_path)
    claim = b"\0\0\x08\x03" + b"\xff" * 12
    file.write_bytes(gzip.compress(claim + bytes(100)))
    with pytest.raises(BinaryFileError, match="at most"):
        opened("mnist", tmp_path)


@given(data=st.binary(max_size=60))
def test_no_bytes_at_all_make_the_idx_reader_fail_otherwise(
    data: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("idx")
    for name, content in (
        ("a", data),
        ("b", b"\0\0\x08\x01\0\0\0" + data),
        ("c.gz", data),
        ("d.gz", gzip.compress(data)),
    ):
        (folder / name).write_bytes(content)
        try:
            values = read_idx(folder / name, 1)
        except BinaryFileError:
            continue
        assert content[:8] == released.idx(values)[:8]


# CIFAR-10


def test_cifar10_binary_release(tmp_path: Path) -> None:
    released.write_cifar10(tmp_path, 20)
    train = opened("cifar10", tmp_path)
    assert train.images.shape == (100, 32, 32, 3)
    np.testing.assert_array_equal(train.images[43], released.random_pixels(203, 32, 32))
    assert train.class_names[train.labels[43]] == "cat"
    inside = opened("cifar10", tmp_path / "cifar-10-batches-bin", part="test")
    np.testing.assert_array_equal(inside.images[2], released.random_pixels(502, 32, 32))


def test_damaged_cifar10_names_the_file(tmp_path: Path) -> None:
    released.write_cifar10(tmp_path, 12)
    folder = tmp_path / "cifar-10-batches-bin"
    file = folder / "data_batch_4.bin"
    whole = file.read_bytes()
    for damaged in (whole[:-1], b""):
        file.write_bytes(damaged)
        with pytest.raises(BinaryFileError, match=r"data_batch_4\.bin"):
            opened("cifar10", tmp_path)
    file.write_bytes(whole[:-3073] + b"\x0a" + whole[-3072:])
    with pytest.raises(LabelRangeError, match=r"data_batch_4\.bin, record 11: .* found 10"):
        opened("cifar10", tmp_path)
    file.unlink()
    with pytest.raises(PoolNotFoundError, match=r"data_batch_4\.bin"):
        opened("cifar10", tmp_path)


def test_pickled_cifar10_is_never_opened(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in ("data_batch_1", "test_batch"):
        (folder / name).write_bytes(pickle.dumps(Trap()))
    for root in (tmp_path, folder):
        for part in ("train", "test"):
            with pytest.raises(PickleRefusedError, match="binary release or an image folder"):
                opened("cifar10", root, part=part)
    assert not (tmp_path / "sprung").exists()


# GTSRB


@pytest.mark.parametrize("official", [True, False])
def test_gtsrb_as_released_and_as_torchvision_unpacks_it(tmp_path: Path, official: bool) -> None:
    released.write_gtsrb(tmp_path, (0, 7, 42), 4, official=official)
    train = opened("gtsrb", tmp_path, **at(32, 32))
    assert train.images.shape == (12, 32, 32, 3)
    assert train.labels.tolist() == [0] * 4 + [7] * 4 + [42] * 4
    assert len(train.class_names) == 43
    test = opened("gtsrb", tmp_path, part="test")
    np.testing.assert_array_equal(test.images[1], released.random_pixels(7, 21, 20))
    assert test.labels.tolist() == [0, 7, 42]
    if not official:
        original = torchvision.datasets.GTSRB(str(tmp_path), split="train")
        _, numbers = np.unique(train.labels, return_inverse=True)  # it numbers only what is there
        assert [label for _, label in original] == numbers.tolist()


def test_gtsrb_signs_are_resized_or_cut_out(tmp_path: Path) -> None:
    released.write_gtsrb(tmp_path, (1, 2), 3)
    with pytest.raises(ImageSizeError, match=r"00000_00001\.ppm: expected 16 x 15"):
        opened("gtsrb", tmp_path)
    cut = opened("gtsrb", tmp_path, part="test", region_of_interest=True)
    np.testing.assert_array_equal(cut.images[0], released.random_pixels(1, 21, 20)[1:20, 1:19])
    resized = opened("gtsrb", tmp_path, **at(19, 18, region_of_interest=True))
    picture = Image.fromarray(released.random_pixels(2002, 29, 26)[3:25, 2:23])
    expected = np.asarray(picture.resize((18, 19), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(resized.images[5], expected)


def test_damaged_gtsrb_names_the_file(tmp_path: Path) -> None:
    released.write_gtsrb(tmp_path, (1, 2), 2)
    folder = tmp_path / "GTSRB" / "Final_Training" / "Images" / "00002"
    table = folder / "GT-00002.csv"
    rows = table.read_text()
    for wrong, error, message in (
        (rows.replace(";2\n", ";43\n"), LabelRangeError, "class from 0 to 42"),
        (rows.replace(";2\n", ";two\n"), AnnotationError, "whole numbers"),
        (rows.replace(";2\n", "\n"), AnnotationError, "line 2: expected the columns"),
        (rows.replace("00000_00001", "../00001/00000_00001"), AnnotationError, "names of files"),
        (rows.replace(";2;3;", ";20;3;"), AnnotationError, "region of interest within 16 x 15"),
        (rows.replace("00000_00001", "gone"), UndecodableImageError, r"gone\.ppm"),
    ):
        table.write_text(wrong)
        with pytest.raises(error, match=message):
            opened("gtsrb", tmp_path, **at(16, 16, region_of_interest=True))
    table.unlink()
    with pytest.raises(AnnotationError, match=r"GT-00002\.csv"):
        opened("gtsrb", tmp_path, **at(16, 16))
    (tmp_path / "GTSRB" / "Final_Test" / "Images" / "GT-final_test.csv").unlink()
    with pytest.raises(AnnotationError, match="a file of their own"):
        opened("gtsrb", tmp_path, part="test")


# Tiny ImageNet


def test_tiny_imagenet_with_grey_images(tmp_path: Path) -> None:
    released.write_tiny_imagenet(tmp_path, 3)
    train = opened("tiny_imagenet", tmp_path)
    assert train.images.shape == (9, 64, 64, 3)
    assert train.class_names[:2] == ("n01443537 goldfish", "n02124075 Egyptian cat")
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert (train.images[0] == train.images[0][..., :1]).all()
    test = opened("tiny_imagenet", tmp_path / "tiny-imagenet-200", part="test")
    assert test.labels.tolist() == [0, 1, 2]
    assert test.class_names == train.class_names


def test_damaged_tiny_imagenet_names_the_file(tmp_path: Path) -> None:
    released.write_tiny_imagenet(tmp_path, 2)
    base = tmp_path / "tiny-imagenet-200"
    table = base / "val" / "val_annotations.txt"
    lines = table.read_text()
    for wrong, error, message in (
        (lines.replace("n01910747", "n99999999"), LabelRangeError, "line 3: .* 'n99999999'"),
        (lines + "\n", LabelRangeError, "line 4"),
        (lines.replace("val_0", "../../words"), AnnotationError, "names of files"),
        (lines.replace("val_0", "val_9"), UndecodableImageError, r"val_9\.JPEG"),
        ("", EmptyPoolError, "found none"),
    ):
        table.write_text(wrong)
        with pytest.raises(error, match=message):
            opened("tiny_imagenet", tmp_path, part="test")
    table.unlink()
    with pytest.raises(AnnotationError, match="val_annotations"):
        opened("tiny_imagenet", tmp_path, part="test")
    file = base / "train" / "n02124075" / "images" / "n02124075_1.JPEG"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(UndecodableImageError, match=r"n02124075_1\.JPEG"):
        opened("tiny_imagenet", tmp_path)
    shutil.rmtree(base / "train" / "n02124075")
    with pytest.raises(PoolNotFoundError, match="n02124075"):
        opened("tiny_imagenet", tmp_path)
    (base / "words.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(AnnotationError, match=r"words\.txt"):
        opened("tiny_imagenet", tmp_path)


# Faces


def test_faces_are_held_out_per_identity(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    released.write_faces(tmp_path, {"0000045": 10, "0000099": 2, "0000100": 1, "0000117": 5}, 100)
    with caplog.at_level(logging.WARNING):
        train = opened("faces", tmp_path, **at(56, 48))
    assert "1 of 4 identities have fewer than 2 images" in caplog.text
    test = opened("faces", tmp_path, part="test", **at(56, 48))
    assert train.class_names == test.class_names == ("0000045", "0000099", "0000117")
    assert np.bincount(train.labels).tolist() == [8, 1, 4]
    assert np.bincount(test.labels).tolist() == [2, 1, 1]
    both = {image.tobytes() for pool in (train, test) for image in pool.images}
    assert len(both) == 17
    half = opened("faces", tmp_path, part="test", held_out=0.5, **at(56, 48))
    assert np.bincount(half.labels).tolist() == [5, 1, 2]


def test_what_is_held_out_of_one_identity_depends_on_no_other() -> None:
    files = [Path("faces") / "0000045" / f"{number:03d}.jpg" for number in range(20)]
    moved = [Path("elsewhere") / "0000045" / file.name for file in files]
    held = [file.name for file in part_of(files, "test", 0.2)]
    assert held == [file.name for file in part_of(moved, "test", 0.2)]
    assert set(held) < {file.name for file in part_of(files, "test", 0.4)}
    other = [Path("faces") / "0000046" / file.name for file in files]
    assert held != [file.name for file in part_of(other, "test", 0.2)]


def test_a_small_selection_keeps_the_numbers_of_all_identities(tmp_path: Path) -> None:
    names = [f"{number:07d}" for number in range(1_000)]
    released.write_faces(tmp_path, dict.fromkeys(names[:3], 2), 30)
    for name in names[3:]:
        (tmp_path / name).mkdir()
        for number in (1, 2):
            (tmp_path / name / f"{number:03d}.jpg").hardlink_to(tmp_path / names[0] / "001.jpg")
    pool = opened("faces", tmp_path, selection={"limit": 50}, **at(28, 28))
    assert (pool.size, len(pool.class_names)) == (50, 1_000)
    chosen = Selection(limit=50).indices(1_000, "faces")
    np.testing.assert_array_equal(pool.labels, chosen)


def test_faces_without_enough_images(tmp_path: Path) -> None:
    released.write_faces(tmp_path, {"a": 1, "b": 1}, 30)
    with pytest.raises(EmptyPoolError, match="at least 2 images each"):
        opened("faces", tmp_path)


# All of them


def test_a_set_that_no_memory_holds_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    released.write_faces(tmp_path, {"a": 2, "b": 2}, 30)
    with pytest.raises(PoolTooLargeError, match="set a `limit`"):
        opened("faces", tmp_path, **at(20_000_000, 20_000_000))


def test_several_threads_decode_in_the_same_order_and_name_the_first_bad_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    released.write_faces(tmp_path, {"a": 20, "b": 20}, 30)
    monkeypatch.setattr(decoding, "CHUNK", 3)
    calls: list[tuple[int, int]] = []
    pools = []
    for threads in (1, 8):
        monkeypatch.setattr(decoding.os, "sched_getaffinity", lambda _, n=threads: set(range(n)))
        source = DataSource(kind="image_folder", path=".")
        pools.append(open_pool(source, tmp_path, lambda *done: calls.append(done)))
    np.testing.assert_array_equal(pools[0].images, pools[1].images)
    assert calls[:14] == calls[14:]
    assert calls[0] == (3, 40)
    assert calls[-1] == (40, 40)
    for name in ("a/009.jpg", "b/001.jpg", "b/017.jpg"):
        (tmp_path / name).write_bytes(b"no image")
    for _ in range(5):
        with pytest.raises(UndecodableImageError, match=r"a/009\.jpg"):
            open_pool(source, tmp_path)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    released.write_faces(tmp_path, {"a": 2, "b": 2}, 30)
    with (tmp_path / "a" / "002.jpg").open("wb") as file:
        file.truncate(300 * 2**20)
    with pytest.raises(UndecodableImageError, match=r"002\.jpg: expected an image of at most"):
        opened("image_folder", tmp_path)


@pytest.mark.parametrize("kind", [kind for kind in get_args(Kind) if kind != "torchvision"])
def test_a_description_survives_being_written_in_full(kind: str) -> None:
    path = None if kind == "digits" else "data"
    source = DataSource.model_validate({"kind": kind, "path": path})
    assert DataSource.from_bytes(source.model_dump_json()) == source


def test_options_belong_to_their_layout() -> None:
    for wrong in (
        {"kind": "mnist"},
        {"kind": "mnist", "path": "x", "region_of_interest": True},
        {"kind": "gtsrb", "path": "x", "held_out": 0.3},
        {"kind": "faces", "path": "x", "held_out": 1.0},
        {"kind": "faces", "path": "x", "dataset": "MNIST"},
    ):
        with pytest.raises(ValidationError):
            DataSource.model_validate(wrong)
