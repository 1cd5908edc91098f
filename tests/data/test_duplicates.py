"""Look-alikes are found without a model, so that a false-positive rate counts strangers only."""

import io
import logging
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from auditkit.data import duplicates
from auditkit.data.duplicates import (
    NEAR_DUPLICATE_THRESHOLD,
    Pairs,
    near_duplicates,
    nearest,
    representatives,
)
from auditkit.data.errors import (
    EmptyPoolError,
    ImageSizeError,
    PixelTypeError,
    TooManyDuplicatesError,
)
from auditkit.data.pools import DataSource, Selection, from_image_folder, open_pool
from tests.data.released import random_pixels
from tests.data.sources import cifar10_folder


def pictures(count: int, side: int = 32, seed: int = 0) -> np.ndarray:
    return np.stack([random_pixels(1000 * seed + index, side, side) for index in range(count)])


def pairs_of(images: np.ndarray, threshold: float = NEAR_DUPLICATE_THRESHOLD) -> set[tuple]:
    found = near_duplicates(images, threshold)
    return set(zip(found.first.tolist(), found.second.tolist(), strict=True))


def jpeg(pixels: np.ndarray) -> np.ndarray:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=75)
    return np.asarray(Image.open(stream))


def resized(pixels: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).resize((64, 64)).resize((32, 32)))


def noisy(pixels: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 8, pixels.shape)
    return np.clip(pixels + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p,
        lambda p: p[:, ::-1],
        lambda p: np.roll(p, 1, axis=0),
        lambda p: np.clip(p * 0.8 + 20, 0, 255).astype(np.uint8),
        jpeg,
        resized,
        noisy,
    ],
    ids=["copy", "mirror", "shift", "contrast", "jpeg", "resize", "noise"],
)
def test_changed_copies_are_near_duplicates_and_strangers_are_not(change) -> None:
    originals = pictures(12)
    copies = np.stack([change(image) for image in originals])
    images = np.concatenate([originals, copies])
    assert pairs_of(images) == {(index, index + 12) for index in range(12)}


@pytest.mark.parametrize("side", [8, 28, 33, 64])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_size_in_grey_and_colour(side: int, channels: int) -> None:
    images = pictures(6, side)[..., :channels]
    mirrored = np.concatenate([images, images[2:3, :, ::-1]])
    assert pairs_of(mirrored) == {(2, 6)}
    index, similarity = nearest(images[:, :, ::-1], images)
    assert index.tolist() == [0, 1, 2, 3, 4, 5]
    np.testing.assert_allclose(similarity, 1, atol=1e-5)


def reference(first: np.ndarray, second: np.ndarray) -> float:
    """Return the similarity of two images with sides that are multiples of 16, step by step."""

    def fingerprint(image: np.ndarray) -> np.ndarray:
        rows, columns = image.shape[0] // 16, image.shape[1] // 16
        cells = image.reshape(16, rows, 16, columns, -1).mean(axis=(1, 3))
        for axis in (0, 1):
            width = [(1, 1) if axis == other else (0, 0) for other in range(3)]
            padded = np.pad(cells, width, mode="edge").swapaxes(0, axis)
            blurred = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4
            cells = blurred.swapaxes(0, axis)
        cells = cells - cells.mean(axis=(0, 1))
        cells = cells - 0.75 * cells.mean(axis=1, keepdims=True)
        return cells.ravel() / np.linalg.norm(cells)

    own = fingerprint(second.astype(float))
    mirrored = fingerprint(second[:, ::-1].astype(float))
    return max(own @ fingerprint(first.astype(float)), mirrored @ fingerprint(first.astype(float)))


def test_similarity_follows_its_definition() -> None:
    images = np.random.default_rng(3).integers(0, 256, (9, 32, 48, 3), dtype=np.uint8)
    found = near_duplicates(images, 0.0)
    for first, second, similarity in zip(*vars(found).values(), strict=True):
        assert similarity == pytest.approx(reference(images[first], images[second]), abs=1e-5)
    assert found.size > 9


def test_flat_images_are_alike_and_like_nothing_else() -> None:
    flat = np.stack([np.full((20, 20, 3), shade, np.uint8) for shade in (0, 128, 255)])
    assert pairs_of(np.concatenate([pictures(3, 20), flat])) == {(3, 4), (3, 5), (4, 5)}
    stripes = np.zeros((2, 32, 32, 1), np.uint8)
    stripes[0, ::8], stripes[1, 16:] = 200, 200
    assert pairs_of(stripes) == set()


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.concatenate([pictures(10), pictures(10)[::-1, :, ::-1], pictures(3, seed=2)])
    whole, best = near_duplicates(images, 0.5), nearest(images, images[:10])
    monkeypatch.setattr(duplicates, "BLOCK", 4)
    parts, best_parts = near_duplicates(images, 0.5), nearest(images, images[:10])
    np.testing.assert_array_equal(whole.first, parts.first)
    np.testing.assert_array_equal(whole.second, parts.second)
    np.testing.assert_allclose(whole.similarity, parts.similarity, atol=1e-5)
    np.testing.assert_array_equal(best[0], best_parts[0])


def test_one_image_has_no_duplicates() -> None:
    assert near_duplicates(pictures(1)).size == 0
    assert representatives(near_duplicates(pictures(1)), 1).tolist() == [0]


@settings(max_examples=30)
@given(st.integers(1, 30), st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29))))
def test_one_representative_per_group(size: int, drawn: list[tuple[int, int]]) -> None:
    edges = sorted({(a, b) for a, b in drawn if a < b < size})
    links = np.array(edges, dtype=np.int64).reshape(-1, 2)
    pairs = Pairs(links[:, 0], links[:, 1], np.ones(len(links), np.float32))
    group = list(range(size))
    for _ in range(size):  # the slow way: the lowest number spreads along the links
        for a, b in edges:
            group[a] = group[b] = min(group[a], group[b])
    assert representatives(pairs, size).tolist() == sorted(set(group))


def test_wrong_arrays_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PixelTypeError, match="float64"):
        near_duplicates(np.zeros((3, 4, 4, 1)))
    with pytest.raises(PixelTypeError):
        near_duplicates(np.zeros((3, 4, 4), np.uint8))
    with pytest.raises(ImageSizeError, match="found 1"):
        nearest(pictures(2)[..., :1], pictures(2))
    with pytest.raises(PixelTypeError, match="found none"):
        nearest(pictures(2), pictures(2)[:0])
    monkeypatch.setattr(duplicates, "MOST_PAIRS", 9)
    with pytest.raises(TooManyDuplicatesError, match="raise it"):
        near_duplicates(np.zeros((5, 4, 4, 1), np.uint8))


def test_a_pool_without_near_duplicates_is_divided_after_they_are_gone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    originals = pictures(20)
    copies = np.stack([jpeg(image) for image in originals[:8, :, ::-1]])
    images = np.concatenate([originals, copies])
    np.savez(tmp_path / "a.npz", images=images, labels=np.arange(28) % 2)

    def opened(**selection: object):
        described = {"kind": "arrays", "path": "a.npz", "selection": selection}
        return open_pool(DataSource.model_validate(described), tmp_path)

    assert opened().size == 28
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(opened(near_duplicates="drop").images, originals)
    assert "8 of 28 images are near-duplicates" in caplog.text
    pool = opened(near_duplicates="drop", limit=12)
    test = opened(near_duplicates="drop", skip=12)
    assert (pool.size, test.size) == (12, 8)
    assert nearest(test.images, pool.images)[1].max() < NEAR_DUPLICATE_THRESHOLD
    assert opened(near_duplicates="drop", similarity=1.0).size > 20
    with pytest.raises(EmptyPoolError, match="without near-duplicates: expected at least 21"):
        opened(near_duplicates="drop", limit=21)


def test_real_photographs_moved_by_a_pixel_are_found() -> None:
    selection = Selection(limit=400)
    pool = from_image_folder(cifar10_folder() / "test", 32, 32, 3, selection=selection)
    for axis in (1, 2):
        index, similarity = nearest(np.roll(pool.images, 1, axis=axis), pool.images)
        assert (index == np.arange(400)).mean() > 0.99
        assert (similarity >= NEAR_DUPLICATE_THRESHOLD).mean() > 0.95
    assert near_duplicates(pool.images).size < 5
