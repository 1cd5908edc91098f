"""Committing to a pool without showing it: keyed leaves under one Merkle root (RFC 6962)."""

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from auditkit.data.errors import ManifestKeyError, OpeningError, PixelTypeError, SampleIndexError
from auditkit.data.images import Pixels
from auditkit.data.pools import Pool
from auditkit.evidence import merkle
from auditkit.evidence.errors import EvidenceError
from schemas import SampleCommitment

SAMPLE_DOMAIN = b"auditkit/sample/v1\0"
KEY_BYTES = 32
LEAF_BYTES = 32
NUMBER_BYTES = 8
SIDE_BYTES = 4


@dataclass(frozen=True)
class Opening:
    """What shows that one sample is in a pool. The key opens this sample and no other."""

    index: int
    key: bytes
    label: int
    proof: tuple[bytes, ...]


class Manifest:
    """Keyed leaves of all samples of a pool, in pool order.

    Without the key a leaf says nothing about its sample: even somebody who holds the image cannot
    test whether it is in the pool.

    Raises:
        ManifestKeyError: the key is not 32 bytes long.

    """

    def __init__(self, pool: Pool, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ManifestKeyError(f"expected a key of {KEY_BYTES} bytes, found {len(key)}")
        self._key = key
        self._labels = pool.labels
        self.leaves = b"".join(
            sample_leaf(sample_key(key, index), image, int(label))
            for index, (image, label) in enumerate(zip(pool.images, pool.labels, strict=True))
        )

    @property
    def size(self) -> int:
        """Number of samples."""
        return len(self.leaves) // LEAF_BYTES

    @cached_property
    def root(self) -> bytes:
        """Merkle root over the leaves (RFC 6962, section 2.1)."""
        return merkle.root(self._hashes)

    @property
    def commitment(self) -> SampleCommitment:
        """What a session request says about the pool."""
        return SampleCommitment(root=self.root.hex(), size=self.size)

    def open(self, index: int) -> Opening:
        """Return what shows that the sample at `index` is in the pool.

        Raises:
            SampleIndexError: there is no such sample.

        """
        if not 0 <= index < self.size:
            raise SampleIndexError(f"expected an index below {self.size}, found {index}")
        return Opening(
            index=index,
            key=sample_key(self._key, index),
            label=int(self._labels[index]),
            proof=tuple(merkle.inclusion_proof(self._hashes, index, self.size)),
        )

    @cached_property
    def _hashes(self) -> Sequence[merkle.LeafHash]:
        return [merkle.leaf_hash(leaf) for leaf in split_leaves(self.leaves)]


def sample_digest(image: Pixels) -> bytes:
    """Return SHA-256 over the domain, height, width, channels (4 bytes each) and the pixels.

    Args:
        image: (H, W, C) uint8.

    Raises:
        PixelTypeError: not such pixels.

    """
    if image.dtype != "uint8" or image.ndim != 3:
        raise PixelTypeError(
            f"expected uint8 pixels of shape (H, W, C), found {image.dtype} of {image.shape}"
        )
    header = b"".join(side.to_bytes(SIDE_BYTES, "big") for side in image.shape)
    return hashlib.sha256(SAMPLE_DOMAIN + header + image.tobytes()).digest()


def sample_key(key: bytes, index: int) -> bytes:
    """Return the key of one sample: HMAC-SHA256 of its index (8 bytes, big-endian)."""
    return hmac.digest(key, index.to_bytes(NUMBER_BYTES, "big"), "sha256")


def sample_leaf(key: bytes, image: Pixels, label: int) -> bytes:
    """Return a sample's leaf: HMAC-SHA256 of its digest and label (8 bytes, big-endian)."""
    return hmac.digest(key, sample_digest(image) + label.to_bytes(NUMBER_BYTES, "big"), "sha256")


def split_leaves(leaves: bytes) -> list[bytes]:
    """Cut joined leaves into leaves of 32 bytes.

    Raises:
        SampleIndexError: the length is no multiple of 32.

    """
    if len(leaves) % LEAF_BYTES:
        raise SampleIndexError(
            f"expected a multiple of {LEAF_BYTES} bytes of leaves, found {len(leaves)}"
        )
    return [leaves[start : start + LEAF_BYTES] for start in range(0, len(leaves), LEAF_BYTES)]


def verify_opening(opening: Opening, image: Pixels, commitment: SampleCommitment) -> None:
    """Check that `image` with the opening's label is the committed sample at its index.

    Raises:
        OpeningError: image, label, key, index or proof is not what was committed to.
        PixelTypeError: see `sample_digest`.

    """
    if len(opening.key) != KEY_BYTES or opening.label < 0:
        raise OpeningError("expected a key of 32 bytes and a label from 0, found something else")
    leaf = merkle.leaf_hash(sample_leaf(opening.key, image, opening.label))
    root = bytes.fromhex(commitment.root)
    try:
        merkle.verify_inclusion(opening.index, commitment.size, leaf, list(opening.proof), root)
    except EvidenceError as error:
        raise OpeningError(
            f"the sample at index {opening.index} is not the one committed to: {error}"
        ) from error
