"""Proofs of a tree of which only the roots of its complete subtrees are kept.

A log that keeps the root of every complete subtree (a node at `level` covers the 2^level leaves
from `position` * 2^level on) proves anything about any of its sizes from O(log^2 n) of them,
without its leaves. Complete subtrees never change as the tree grows. The proofs are those of
RFC 6962, sections 2.1.1 and 2.1.2, the same as `merkle` computes from leaves.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from auditkit.evidence.errors import TreeIndexError
from auditkit.evidence.merkle import EMPTY_ROOT, node_hash


class Subtree(NamedTuple):
    """A complete subtree: the leaves from `position` * 2^`level` on, 2^`level` of them."""

    level: int
    position: int


class Span(NamedTuple):
    """The leaves from `first` up to, not including, `end`: a node of an RFC 6962 tree."""

    first: int
    end: int


def covering(span: Span) -> tuple[Subtree, ...]:
    """Return the complete subtrees that make up a node, largest first.

    A node begins at a multiple of the largest power of two that is not above its number of leaves.
    """
    found = []
    first, left = span
    remaining = left - first
    while remaining:
        level = remaining.bit_length() - 1
        found.append(Subtree(level, first >> level))
        first += 1 << level
        remaining -= 1 << level
    return tuple(found)


def completed_by(
    index: int, leaf_hash: bytes, kept: Mapping[Subtree, bytes]
) -> dict[Subtree, bytes]:
    """Return the subtrees that leaf `index` completes, itself the first, the largest the last.

    Args:
        index: of the leaf, from 0.
        leaf_hash: its hash.
        kept: at least the subtrees that make up the tree before it, `covering(Span(0, index))`.
    """
    subtree, computed = Subtree(0, index), bytes(leaf_hash)
    completed = {subtree: computed}
    while subtree.position % 2 == 1:
        computed = node_hash(kept[Subtree(subtree.level, subtree.position - 1)], computed)
        subtree = Subtree(subtree.level + 1, subtree.position >> 1)
        completed[subtree] = computed
    return completed


def inclusion_path(index: int, size: int) -> tuple[Span, ...]:
    """Return the nodes of PATH(index, D[size]), nearest sibling first (RFC 6962, section 2.1.1).

    Raises:
        TreeIndexError: `index` is not inside the tree.
    """
    if not 0 <= index < size:
        raise TreeIndexError(f"expected 0 <= index < size, found index {index} and size {size}")
    path: list[Span] = []
    node = Span(0, size)
    while node.end - node.first > 1:
        left, right = _children(node)
        inside_left = index < left.end
        path.append(right if inside_left else left)
        node = left if inside_left else right
    return tuple(reversed(path))


def consistency_path(old_size: int, new_size: int) -> tuple[Span, ...]:
    """Return the nodes of PROOF(old_size, D[new_size]) (RFC 6962, section 2.1.2).

    Raises:
        TreeIndexError: the sizes are negative or in the wrong order.
    """
    if not 0 <= old_size <= new_size:
        raise TreeIndexError(
            f"expected 0 <= older size <= newer size, found {old_size} and {new_size}"
        )
    if old_size in (0, new_size):
        return ()
    path: list[Span] = []
    node = Span(0, new_size)
    while old_size != node.end:
        left, right = _children(node)
        inside_left = old_size <= left.end
        path.append(right if inside_left else left)
        node = left if inside_left else right
    if node.first:  # else the older tree is this very node, which the verifier knows
        path.append(node)
    return tuple(reversed(path))


def needed(spans: Sequence[Span]) -> set[Subtree]:
    """Return every complete subtree whose root `node_root` reads for any of the nodes."""
    return {subtree for span in spans for subtree in covering(span)}


def node_root(span: Span, root_of: Callable[[Subtree], bytes]) -> bytes:
    """Return the root of a node, of which the complete subtrees' roots are known."""
    subtrees = covering(span)
    if not subtrees:
        return EMPTY_ROOT
    computed = root_of(subtrees[-1])
    for subtree in reversed(subtrees[:-1]):
        computed = node_hash(root_of(subtree), computed)
    return computed


def _children(node: Span) -> tuple[Span, Span]:
    size = node.end - node.first
    middle = node.first + (1 << ((size - 1).bit_length() - 1))
    return Span(node.first, middle), Span(middle, node.end)
