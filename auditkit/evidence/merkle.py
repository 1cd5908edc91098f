"""Merkle trees of RFC 6962, section 2.1, with the verification algorithms of RFC 9162.

Interior nodes and leaves are hashed under different prefixes, so neither can pass for the other.
"""

import hashlib
from collections.abc import Iterable, Sequence

from auditkit.evidence.errors import (
    ConsistencyProofError,
    FrontierFormatError,
    HashLengthError,
    InclusionProofError,
    TreeIndexError,
)

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()
"""MTH({}) of RFC 6962, section 2.1: the root of a tree without leaves."""

LEAF_PREFIX = b"\x00"
NODE_PREFIX = b"\x01"

SIZE_BYTES = 8
MAX_TREE_SIZE = 2**63 - 1
"""Largest tree: sizes travel as signed 64-bit integers in other implementations."""


class LeafHash(bytes):
    """A leaf that has already been hashed: 32 bytes, told apart from raw leaves by its type."""

    __slots__ = ()


def leaf_hash(leaf: bytes) -> LeafHash:
    """Return SHA-256(0x00 || leaf) (RFC 6962, section 2.1)."""
    return LeafHash(hashlib.sha256(LEAF_PREFIX + leaf).digest())


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return SHA-256(0x01 || left || right) (RFC 6962, section 2.1)."""
    return hashlib.sha256(NODE_PREFIX + left + right).digest()


def root(leaves: Sequence[bytes]) -> bytes:
    """Return the Merkle tree hash MTH of the leaves (RFC 6962, section 2.1).

    Args:
        leaves: raw leaves; items of type `LeafHash` are taken as already hashed.

    Raises:
        HashLengthError: a `LeafHash` is not 32 bytes long.
    """
    return _root(_hashes(leaves, len(leaves)))


def inclusion_proof(leaves: Sequence[bytes], index: int, size: int) -> list[bytes]:
    """Return PATH(index, D[size]) (RFC 6962, section 2.1.1), nearest sibling first.

    Args:
        leaves: raw leaves or `LeafHash` items, at least `size` of them.
        index: position of the proven leaf, from 0.
        size: number of leaves of the tree that the proof is for.

    Raises:
        TreeIndexError: `index` is not inside the tree, or there are fewer than `size` leaves.
        HashLengthError: a `LeafHash` is not 32 bytes long.
    """
    _check_index(index, size)
    level = _hashes(leaves, size)
    proof: list[bytes] = []
    while len(level) > 1:
        sibling = index ^ 1
        if sibling < len(level):
            proof.append(level[sibling])
        level = _parents(level)
        index >>= 1
    return proof


def verify_inclusion(
    index: int, size: int, leaf_hash: bytes, proof: Sequence[bytes], root: bytes
) -> None:
    """Return when the leaf is at `index` of the tree (RFC 9162, section 2.1.3.2).

    Args:
        index: position of the leaf, from 0.
        size: number of leaves of the tree.
        leaf_hash: hash of the leaf.
        proof: sibling hashes, nearest first.
        root: root of the tree; the caller has its signature checked.

    Raises:
        TreeIndexError: `index` is not inside the tree.
        HashLengthError: a hash is not 32 bytes long.
        InclusionProofError: the proof is too long, too short, or leads to another root.
    """
    _check_index(index, size)
    _check_hashes([leaf_hash, root, *proof])
    position, last = index, size - 1
    computed = bytes(leaf_hash)
    for sibling in proof:
        if last == 0:
            raise InclusionProofError(
                f"the proof for leaf {index} of {size} is too long: {len(proof)} hashes"
            )
        if position % 2 == 1 or position == last:
            computed = node_hash(sibling, computed)
            # A last node without a sibling moves up unhashed until it is a right child.
            while position % 2 == 0 and position != 0:
                position >>= 1
                last >>= 1
        else:
            computed = node_hash(computed, sibling)
        position >>= 1
        last >>= 1
    if last != 0:
        raise InclusionProofError(
            f"the proof for leaf {index} of {size} is too short: {len(proof)} hashes"
        )
    if computed != root:
        raise InclusionProofError(
            f"leaf {index} is not in the tree of {size} leaves with root {root.hex()}"
        )


def consistency_proof(leaves: Sequence[bytes], old_size: int, new_size: int) -> list[bytes]:
    """Return PROOF(old_size, D[new_size]) (RFC 6962, section 2.1.2).

    The proof is empty when the older tree is empty or both are the same tree.

    Raises:
        TreeIndexError: the sizes are negative or in the wrong order, or leaves are missing.
        HashLengthError: a `LeafHash` is not 32 bytes long.
    """
    if not 0 <= old_size <= new_size:
        raise TreeIndexError(
            f"expected 0 <= older size <= newer size, found {old_size} and {new_size}"
        )
    hashes = _hashes(leaves, new_size)
    if old_size in (0, new_size):
        return []
    return _subproof(hashes, old_size, whole=True)


def verify_consistency(
    old_size: int, new_size: int, proof: Sequence[bytes], old_root: bytes, new_root: bytes
) -> None:
    """Return when the newer tree begins with the older one (RFC 9162, section 2.1.4.2).

    Two heads of one size agree when their roots are the same bytes; nothing is hashed for it.
    RFC 9162 leaves growth from the empty tree open: here the older root must be the hash of
    nothing, and nothing else is needed, since every tree extends it.

    Raises:
        HashLengthError: a hash is not 32 bytes long, and the sizes differ.
        ConsistencyProofError: the tree shrank, the proof is too long or too short, or it leads to
            other roots.
    """
    if not 0 <= old_size <= new_size:
        raise ConsistencyProofError(
            f"an append-only tree cannot go from {old_size} to {new_size} leaves"
        )
    if old_size == new_size:
        _verify_equal_heads(old_size, proof, old_root, new_root)
        return
    _check_hashes([old_root, new_root, *proof])
    if old_size == 0:
        _verify_growth_from_nothing(new_size, proof, old_root)
        return
    computed_old, computed_new = _roots_from_consistency_proof(old_size, new_size, proof, old_root)
    if computed_old != old_root:
        raise ConsistencyProofError(f"the proof leads to another root at size {old_size}")
    if computed_new != new_root:
        raise ConsistencyProofError(f"the proof leads to another root at size {new_size}")


class Frontier:
    """A growing tree, reduced to the roots of its complete subtrees, largest first.

    Holds at most one hash per binary digit of the size: appending costs O(1) hashes on average and
    the root O(log n), without the leaves.
    """

    __slots__ = ("_size", "_subtrees")

    def __init__(self) -> None:
        self._size = 0
        self._subtrees: list[bytes] = []

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Frontier):
            return NotImplemented
        return self._size == other._size and self._subtrees == other._subtrees

    __hash__ = None  # type: ignore[assignment]  # mutable

    @property
    def size(self) -> int:
        """Number of leaves."""
        return self._size

    def append(self, leaf_hash: bytes) -> None:
        """Add one leaf, given by its hash.

        Raises:
            HashLengthError: the hash is not 32 bytes long.
        """
        self.extend((leaf_hash,))

    def extend(self, leaf_hashes: Iterable[bytes]) -> None:
        """Add leaves in order, given by their hashes.

        Raises:
            HashLengthError: a hash is not 32 bytes long; the leaves before it have been added.
        """
        subtrees, size = self._subtrees, self._size
        try:
            for item in leaf_hashes:
                if len(item) != HASH_BYTES:
                    raise HashLengthError(_wrong_length(item))
                subtree = bytes(item)
                # Each trailing one of the size is a complete subtree that the leaf completes.
                remaining = size
                while remaining & 1:
                    subtree = hashlib.sha256(NODE_PREFIX + subtrees.pop() + subtree).digest()
                    remaining >>= 1
                subtrees.append(subtree)
                size += 1
        finally:
            self._size = size

    def root(self) -> bytes:
        """Return the root of the tree as it stands."""
        return _fold(self._subtrees) if self._subtrees else EMPTY_ROOT

    def consistency_proof(self, added: Iterable[bytes]) -> list[bytes]:
        """Return the proof from this tree to the one with more leaves (RFC 6962, section 2.1.2).

        Needs the new leaves only: what lies before them enters the proof as the complete subtrees
        that the frontier holds.

        Args:
            added: hashes of the leaves that follow, in order.

        Raises:
            HashLengthError: a hash is not 32 bytes long.
        """
        hashes = list(added)
        _check_hashes(hashes)
        if not self._size or not hashes:
            return []
        return _extension_proof(self._size, list(self._subtrees), hashes, whole=True)

    def copy(self) -> "Frontier":
        """Return an independent frontier of the same tree, to try appends on."""
        duplicate = Frontier()
        duplicate._size = self._size
        duplicate._subtrees = list(self._subtrees)
        return duplicate

    def to_bytes(self) -> bytes:
        """Return the size (8 bytes, big-endian) and one hash for each one in its binary digits."""
        return self._size.to_bytes(SIZE_BYTES, "big") + b"".join(self._subtrees)

    @classmethod
    def from_bytes(cls, data: bytes) -> "Frontier":
        """Read what `to_bytes` wrote.

        Raises:
            FrontierFormatError: the length does not fit the size.
        """
        size = int.from_bytes(data[:SIZE_BYTES], "big")
        expected = SIZE_BYTES + HASH_BYTES * size.bit_count()
        if len(data) != expected or size > MAX_TREE_SIZE:
            raise FrontierFormatError(
                f"expected a frontier of {expected} bytes for {size} leaves, found {len(data)}"
            )
        frontier = cls()
        frontier._size = size
        frontier._subtrees = [
            data[start : start + HASH_BYTES] for start in range(SIZE_BYTES, expected, HASH_BYTES)
        ]
        return frontier


def _hashes(leaves: Sequence[bytes], size: int) -> list[bytes]:
    if len(leaves) < size:
        raise TreeIndexError(f"expected at least {size} leaves, found {len(leaves)}")
    hashes: list[bytes] = []
    for position in range(size):
        leaf = leaves[position]
        if not isinstance(leaf, LeafHash):
            leaf = leaf_hash(leaf)
        elif len(leaf) != HASH_BYTES:
            raise HashLengthError(_wrong_length(leaf))
        hashes.append(leaf)
    return hashes


def _parents(level: Sequence[bytes]) -> list[bytes]:
    """Hash neighbours in pairs; a last node without neighbour moves up as it is."""
    parents = [
        node_hash(level[position], level[position + 1]) for position in range(0, len(level) - 1, 2)
    ]
    if len(level) % 2 == 1:
        parents.append(level[-1])
    return parents


def _root(level: Sequence[bytes]) -> bytes:
    if not level:
        return EMPTY_ROOT
    while len(level) > 1:
        level = _parents(level)
    return bytes(level[0])


def _subproof(hashes: Sequence[bytes], old_size: int, *, whole: bool) -> list[bytes]:
    """SUBPROOF(m, D[n], b) of RFC 6962, section 2.1.2; `whole` is its b."""
    size = len(hashes)
    if old_size == size:
        return [] if whole else [_root(hashes)]
    split = 1 << ((size - 1).bit_length() - 1)  # largest power of two below the size
    left, right = hashes[:split], hashes[split:]
    if old_size <= split:
        return [*_subproof(left, old_size, whole=whole), _root(right)]
    return [*_subproof(right, old_size - split, whole=False), _root(left)]


def _extension_proof(
    old_size: int, subtrees: list[bytes], added: Sequence[bytes], *, whole: bool
) -> list[bytes]:
    """SUBPROOF(old_size, D[n], whole) with the older leaves given as complete subtrees.

    Args:
        old_size: leaves before the added ones; 0 < old_size.
        subtrees: their complete subtrees, largest first: one for each one among the binary digits
            of `old_size`.
        added: hashes of the leaves that follow.
        whole: SUBPROOF's b.
    """
    size = old_size + len(added)
    if not added:
        return [] if whole else [_fold(subtrees)]
    split = 1 << ((size - 1).bit_length() - 1)  # largest power of two below the size
    if old_size <= split:
        left, right = added[: split - old_size], added[split - old_size :]
        return [*_extension_proof(old_size, subtrees, left, whole=whole), _root(right)]
    # Then the older tree's largest complete subtree is the whole left half of the newer tree.
    proof = _extension_proof(old_size - split, subtrees[1:], added, whole=False)
    return [*proof, subtrees[0]]


def _fold(subtrees: Sequence[bytes]) -> bytes:
    """Return the root over complete subtrees, the largest first."""
    computed = subtrees[-1]
    for subtree in reversed(subtrees[:-1]):
        computed = node_hash(subtree, computed)
    return computed


def _verify_equal_heads(
    size: int, proof: Sequence[bytes], old_root: bytes, new_root: bytes
) -> None:
    if proof:
        raise ConsistencyProofError(
            f"expected an empty proof from size {size} to itself, found {len(proof)} hashes"
        )
    if old_root != new_root:
        raise ConsistencyProofError(f"two different roots at the same size {size}")


def _verify_growth_from_nothing(new_size: int, proof: Sequence[bytes], old_root: bytes) -> None:
    if proof:
        raise ConsistencyProofError(
            f"expected an empty proof from size 0 to {new_size}, found {len(proof)} hashes"
        )
    if old_root != EMPTY_ROOT:
        raise ConsistencyProofError("the root of the older, empty tree is not the empty root")


def _roots_from_consistency_proof(
    old_size: int, new_size: int, proof: Sequence[bytes], old_root: bytes
) -> tuple[bytes, bytes]:
    """Apply steps 1 to 6 of RFC 9162, section 2.1.4.2, for 0 < old_size < new_size."""
    if not proof:
        raise ConsistencyProofError(f"the proof from size {old_size} to {new_size} is empty")
    # A complete older tree is itself a node of the newer one, so the proof leaves it out.
    path = [old_root, *proof] if old_size.bit_count() == 1 else list(proof)
    position, last = old_size - 1, new_size - 1
    while position % 2 == 1:
        position >>= 1
        last >>= 1
    computed_old = computed_new = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise ConsistencyProofError(
                f"the proof from size {old_size} to {new_size} is too long: {len(proof)} hashes"
            )
        if position % 2 == 1 or position == last:
            computed_old = node_hash(sibling, computed_old)
            computed_new = node_hash(sibling, computed_new)
            while position % 2 == 0 and position != 0:
                position >>= 1
                last >>= 1
        else:
            computed_new = node_hash(computed_new, sibling)
        position >>= 1
        last >>= 1
    if last != 0:
        raise ConsistencyProofError(
            f"the proof from size {old_size} to {new_size} is too short: {len(proof)} hashes"
        )
    return computed_old, computed_new


def _check_index(index: int, size: int) -> None:
    if not 0 <= index < size:
        raise TreeIndexError(f"expected 0 <= index < size, found index {index} and size {size}")


def _check_hashes(hashes: Iterable[bytes]) -> None:
    for item in hashes:
        if len(item) != HASH_BYTES:
            raise HashLengthError(_wrong_length(item))


def _wrong_length(item: bytes) -> str:
    return f"expected hashes of {HASH_BYTES} bytes, found {len(item)}"
