"""Proofs from kept subtrees are the proofs that the leaves give."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditkit.evidence import merkle
from auditkit.evidence.errors import TreeIndexError
from auditkit.evidence.subtrees import (
    Span,
    Subtree,
    completed_by,
    consistency_path,
    covering,
    inclusion_path,
    needed,
    node_root,
)

MOST_LEAVES = 130
LEAVES = [str(number).encode() for number in range(MOST_LEAVES)]


@pytest.fixture(scope="module")
def kept() -> dict[Subtree, bytes]:
    kept: dict[Subtree, bytes] = {}
    for index, leaf in enumerate(LEAVES):
        # What a registry has at hand when it appends: the subtrees that make up its tree.
        at_hand = {subtree: kept[subtree] for subtree in covering(Span(0, index))}
        kept.update(completed_by(index, merkle.leaf_hash(leaf), at_hand))
    return kept


@given(size=st.integers(0, MOST_LEAVES), data=st.data())
@settings(max_examples=300)
def test_any_proof_about_any_size_is_the_one_from_the_leaves(
    kept: dict[Subtree, bytes], size: int, data: st.DataObject
) -> None:
    def roots(spans: tuple[Span, ...]) -> list[bytes]:
        at_hand = {subtree: kept[subtree] for subtree in needed(spans)}
        return [node_root(span, at_hand.__getitem__) for span in spans]

    assert roots((Span(0, size),)) == [merkle.root(LEAVES[:size])]
    old = data.draw(st.integers(0, size))
    assert roots(consistency_path(old, size)) == merkle.consistency_proof(LEAVES, old, size)
    if size:
        index = data.draw(st.integers(0, size - 1))
        assert roots(inclusion_path(index, size)) == merkle.inclusion_proof(LEAVES, index, size)


def test_each_subtree_is_completed_once(kept: dict[Subtree, bytes]) -> None:
    expected = {
        Subtree(level, position)
        for level in range(MOST_LEAVES.bit_length())
        for position in range(MOST_LEAVES >> level)
    }
    assert kept.keys() == expected


@pytest.mark.parametrize(("index", "size"), [(0, 0), (5, 5), (-1, 5), (6, 5)])
def test_no_path_leads_to_a_leaf_outside_the_tree(index: int, size: int) -> None:
    with pytest.raises(TreeIndexError):
        inclusion_path(index, size)


@pytest.mark.parametrize(("old", "new"), [(-1, 5), (6, 5)])
def test_no_path_leads_back(old: int, new: int) -> None:
    with pytest.raises(TreeIndexError):
        consistency_path(old, new)


def test_paths_of_a_huge_tree_are_short() -> None:
    size = 2**62 + 12345
    assert len(inclusion_path(2**61 + 1, size)) <= 63
    assert len(needed(consistency_path(2**40 + 77, size))) < 63**2
