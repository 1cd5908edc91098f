"""A developer commits to a pool and opens single samples; nothing else can be opened."""

import hashlib
import hmac
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditkit.data.errors import ManifestKeyError, OpeningError, PixelTypeError, SampleIndexError
from auditkit.data.manifest import Manifest, sample_digest, split_leaves, verify_opening
from auditkit.data.pools import Pool, from_arrays
from auditkit.evidence import merkle

KEY = bytes(range(32))


def small_pool(size: int = 11) -> Pool:
    images = np.random.default_rng(1).integers(0, 256, (size, 3, 4, 1), dtype=np.uint8)
    return from_arrays(images, np.arange(size) % 3, ["a", "b", "c"])


def test_leaf_follows_its_definition() -> None:
    pool = small_pool()
    header = b"auditkit/sample/v1\0" + bytes([0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 1])
    digest = hashlib.sha256(header + pool.images[5].tobytes()).digest()
    assert sample_digest(pool.images[5]) == digest
    key = hmac.new(KEY, (5).to_bytes(8, "big"), hashlib.sha256).digest()
    leaf = hmac.new(key, digest + (2).to_bytes(8, "big"), hashlib.sha256).digest()
    manifest = Manifest(pool, KEY)
    assert split_leaves(manifest.leaves)[5] == leaf
    assert manifest.commitment.root == merkle.root(split_leaves(manifest.leaves)).hex()
    assert manifest.commitment.size == pool.size


def test_equal_samples_have_unlike_leaves() -> None:
    images = np.zeros((4, 2, 2, 1), np.uint8)
    pool = from_arrays(images, np.array([0, 0, 1, 1]), ["a", "b"])
    assert len(set(split_leaves(Manifest(pool, KEY).leaves))) == 4
    assert Manifest(pool, KEY).leaves != Manifest(pool, bytes(32)).leaves


@given(size=st.integers(2, 20), data=st.data())
def test_every_sample_opens(size: int, data: st.DataObject) -> None:
    pool = small_pool(size)
    manifest = Manifest(pool, KEY)
    index = data.draw(st.integers(0, size - 1))
    verify_opening(manifest.open(index), pool.images[index], manifest.commitment)


def test_altered_openings_are_refused() -> None:
    pool = small_pool()
    manifest = Manifest(pool, KEY)
    opening, image = manifest.open(4), pool.images[4]
    forged = [
        replace(opening, index=5),
        replace(opening, index=11),
        replace(opening, index=-1),
        replace(opening, label=opening.label + 1),
        replace(opening, label=-1),
        replace(opening, key=KEY),
        replace(opening, key=b""),
        replace(opening, proof=opening.proof[:-1]),
        replace(opening, proof=(*opening.proof, bytes(32))),
        replace(opening, proof=(b"short", *opening.proof[1:])),
    ]
    for wrong in forged:
        with pytest.raises(OpeningError):
            verify_opening(wrong, image, manifest.commitment)
    changed = image.copy()
    changed[0, 0, 0] ^= 1
    with pytest.raises(OpeningError):
        verify_opening(opening, changed, manifest.commitment)
    with pytest.raises(OpeningError):
        verify_opening(opening, image.reshape(4, 3, 1), manifest.commitment)


def test_keys_indices_and_pixels_are_checked() -> None:
    with pytest.raises(ManifestKeyError, match="found 5"):
        Manifest(small_pool(), b"short")
    with pytest.raises(SampleIndexError):
        Manifest(small_pool(), KEY).open(11)
    with pytest.raises(SampleIndexError):
        split_leaves(bytes(33))
    with pytest.raises(PixelTypeError):
        sample_digest(np.zeros((2, 2, 1)))
