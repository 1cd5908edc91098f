"""The step log is a tree of RFC 6962: what is in it can be proven, what is not cannot."""

import hashlib
import json
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditkit.evidence.errors import (
    ConsistencyProofError,
    EvidenceError,
    FrontierFormatError,
    HashLengthError,
    InclusionProofError,
    TreeIndexError,
)
from auditkit.evidence.merkle import (
    EMPTY_ROOT,
    Frontier,
    LeafHash,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    root,
    verify_consistency,
    verify_inclusion,
)

VECTORS = json.loads((Path(__file__).parent / "vectors" / "merkle.json").read_text())
REFERENCE_LEAVES = [bytes.fromhex(leaf) for leaf in VECTORS["leaves"]]
REFERENCE_ROOTS = [bytes.fromhex(item) for item in VECTORS["roots"]]
LEAVES = [bytes([n]) * (n % 5) + b"record" + bytes([n]) for n in range(64)]
HASHES = [leaf_hash(leaf) for leaf in LEAVES]
ROOTS = [root(HASHES[:size]) for size in range(65)]
OTHER = hashlib.sha256(b"other").digest()


def tree_hash_by_definition(leaves):
    """MTH exactly as RFC 6962, section 2.1, words it."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return hashlib.sha256(
        b"\x01" + tree_hash_by_definition(leaves[:split]) + tree_hash_by_definition(leaves[split:])
    ).digest()


@pytest.mark.parametrize("size", range(9))
def test_roots_are_those_of_certificate_transparency(size):
    assert root(REFERENCE_LEAVES[:size]) == REFERENCE_ROOTS[size]


@pytest.mark.parametrize("case", VECTORS["inclusion"], ids=lambda c: f"{c['index']}-{c['size']}")
def test_inclusion_proofs_are_those_of_certificate_transparency(case):
    expected = [bytes.fromhex(item) for item in case["proof"]]
    assert inclusion_proof(REFERENCE_LEAVES, case["index"], case["size"]) == expected


@pytest.mark.parametrize(
    "case", VECTORS["consistency"], ids=lambda c: f"{c['old_size']}-{c['new_size']}"
)
def test_consistency_proofs_are_those_of_certificate_transparency(case):
    expected = [bytes.fromhex(item) for item in case["proof"]]
    assert consistency_proof(REFERENCE_LEAVES, case["old_size"], case["new_size"]) == expected


@given(st.lists(st.binary(max_size=40), max_size=200))
@settings(deadline=None, derandomize=True)
def test_roots_follow_the_definition(leaves):
    assert root(leaves) == tree_hash_by_definition(leaves)
    assert root([leaf_hash(leaf) for leaf in leaves]) == root(leaves)


def test_a_raw_leaf_of_hash_length_is_still_a_leaf():
    assert root([OTHER]) == leaf_hash(OTHER)
    assert root([LeafHash(OTHER)]) == OTHER


def test_every_leaf_of_every_tree_is_proven_and_only_at_its_place():
    for size in range(1, 65):
        for index in range(size):
            proof = inclusion_proof(HASHES, index, size)
            verify_inclusion(index, size, HASHES[index], proof, ROOTS[size])
            with pytest.raises(InclusionProofError):
                verify_inclusion((index + 1) % size, size, OTHER, proof, ROOTS[size])


@pytest.mark.parametrize(("index", "size"), [(0, 1), (0, 2), (4, 5), (6, 7), (2, 8), (63, 64)])
def test_a_changed_inclusion_proof_is_refused(index, size):
    proof = inclusion_proof(HASHES, index, size)
    leaf, tree_root = HASHES[index], ROOTS[size]
    changed = {
        "trailing hash": [*proof, OTHER],
        "trailing root": [*proof, tree_root],
        "leading hash": [OTHER, *proof],
        "another root": proof,
    }
    changed |= {
        f"hash {n} replaced": [*proof[:n], OTHER, *proof[n + 1 :]] for n in range(len(proof))
    }
    changed |= {f"hash {n} missing": [*proof[:n], *proof[n + 1 :]] for n in range(len(proof))}
    for name, forged in changed.items():
        claimed = OTHER if name == "another root" else tree_root
        with pytest.raises(InclusionProofError):
            verify_inclusion(index, size, leaf, forged, claimed)
    with pytest.raises(InclusionProofError):
        verify_inclusion(index, size, OTHER, proof, tree_root)


@given(st.integers(0, 63), st.integers(1, 64), st.integers(0, 63), st.integers(1, 64))
@settings(deadline=None, derandomize=True, max_examples=300)
def test_a_proof_says_nothing_about_another_place(index, size, other_index, other_size):
    index, other_index = index % size, other_index % other_size
    proof = inclusion_proof(HASHES, index, size)
    if (index, size) != (other_index, other_size):
        with pytest.raises(EvidenceError):
            verify_inclusion(other_index, other_size, HASHES[index], proof, ROOTS[other_size])


@pytest.mark.parametrize(("index", "size"), [(8, 8), (9, 8), (0, 0), (-1, 8), (2**70, 8), (0, -1)])
def test_an_index_outside_the_tree_is_refused(index, size):
    with pytest.raises(TreeIndexError):
        inclusion_proof(HASHES, index, size)
    with pytest.raises(TreeIndexError):
        verify_inclusion(index, size, HASHES[0], [], ROOTS[1])


def test_more_leaves_than_there_are_cannot_be_proven():
    with pytest.raises(TreeIndexError, match="at least 65 leaves"):
        inclusion_proof(HASHES, 0, 65)
    with pytest.raises(TreeIndexError):
        consistency_proof(HASHES, 1, 65)


def test_an_interior_node_is_not_a_leaf():
    node = node_hash(HASHES[0], HASHES[1])
    with pytest.raises(InclusionProofError):
        verify_inclusion(0, 2, leaf_hash(HASHES[0] + HASHES[1]), [node], ROOTS[4])
    # With the right hash in hand, the tree of 2 leaves is a different tree from the one of 4.
    verify_inclusion(0, 2, node, [node_hash(HASHES[2], HASHES[3])], ROOTS[4])


def test_a_proof_from_a_smaller_tree_is_too_short():
    """The hashes lead to the claimed root, but that root has another size than claimed."""
    with pytest.raises(InclusionProofError, match="too short"):
        verify_inclusion(0, 8, HASHES[0], [], HASHES[0])
    with pytest.raises(InclusionProofError, match="too short"):
        verify_inclusion(3, 8, HASHES[3], inclusion_proof(HASHES, 3, 4), ROOTS[4])
    with pytest.raises(ConsistencyProofError, match="too short"):
        verify_consistency(3, 8, consistency_proof(HASHES, 3, 4), ROOTS[3], ROOTS[4])


def test_a_proof_from_a_larger_tree_is_too_long():
    with pytest.raises(InclusionProofError, match="too long"):
        verify_inclusion(3, 4, HASHES[3], inclusion_proof(HASHES, 3, 8), ROOTS[8])
    with pytest.raises(ConsistencyProofError, match="too long"):
        verify_consistency(3, 4, consistency_proof(HASHES, 3, 8), ROOTS[3], ROOTS[8])


def test_every_tree_is_proven_to_extend_every_earlier_one():
    for new_size in range(65):
        for old_size in range(new_size + 1):
            proof = consistency_proof(HASHES, old_size, new_size)
            assert (proof == []) == (old_size in (0, new_size))
            verify_consistency(old_size, new_size, proof, ROOTS[old_size], ROOTS[new_size])


@pytest.mark.parametrize(
    ("old", "new"), [(1, 2), (1, 8), (2, 5), (3, 7), (6, 8), (4, 64), (63, 64)]
)
def test_a_changed_consistency_proof_is_refused(old, new):
    proof = consistency_proof(HASHES, old, new)
    forged = [[], [*proof, OTHER], [OTHER, *proof], [*proof, ROOTS[new]], [ROOTS[old], *proof]]
    forged += [[*proof[:n], OTHER, *proof[n + 1 :]] for n in range(len(proof))]
    forged += [[*proof[:n], *proof[n + 1 :]] for n in range(len(proof))]
    for item in forged:
        with pytest.raises(ConsistencyProofError):
            verify_consistency(old, new, item, ROOTS[old], ROOTS[new])
    for old_root, new_root in [(OTHER, ROOTS[new]), (ROOTS[old], OTHER), (ROOTS[new], ROOTS[old])]:
        with pytest.raises(ConsistencyProofError):
            verify_consistency(old, new, proof, old_root, new_root)


TRIVIAL_CASES = {
    "nothing extends to nothing": (0, 0, [], EMPTY_ROOT, EMPTY_ROOT, True),
    "anything extends nothing": (0, 5, [], EMPTY_ROOT, ROOTS[5], True),
    "nothing has one root": (0, 5, [], OTHER, ROOTS[5], False),
    "nothing needs no proof": (0, 5, [OTHER], EMPTY_ROOT, ROOTS[5], False),
    "nothing stays nothing": (0, 0, [], EMPTY_ROOT, OTHER, False),
    "a tree extends itself": (5, 5, [], ROOTS[5], ROOTS[5], True),
    "two trees of one size": (5, 5, [], ROOTS[5], OTHER, False),
    "itself needs no proof": (5, 5, [OTHER], ROOTS[5], ROOTS[5], False),
    "a tree cannot shrink": (5, 4, [], ROOTS[5], ROOTS[4], False),
    "a tree cannot vanish": (5, 0, [], ROOTS[5], EMPTY_ROOT, False),
    "sizes are not negative": (-1, 4, [], ROOTS[5], ROOTS[4], False),
    "growth needs a proof": (4, 5, [], ROOTS[4], ROOTS[5], False),
    "nothing extends no tree but the empty one": (0, 5, [], ROOTS[5], ROOTS[5], False),
    "two heads of the empty tree": (0, 0, [], OTHER, OTHER, True),
    "two heads of one tree, nothing hashed": (5, 5, [], b"short", b"short", True),
    "a proof of the wrong size": (3, 8, consistency_proof(HASHES, 3, 7), ROOTS[3], ROOTS[8], False),
    "beyond every tree": (2**64, 2**65, [], ROOTS[4], ROOTS[5], False),
}


@pytest.mark.parametrize("case", TRIVIAL_CASES.values(), ids=TRIVIAL_CASES.keys())
def test_consistency_at_the_edges(case):
    *arguments, holds = case
    if holds:
        verify_consistency(*arguments)
    else:
        with pytest.raises(ConsistencyProofError):
            verify_consistency(*arguments)


def test_sizes_in_the_wrong_order_have_no_proof():
    for old_size, new_size in [(5, 4), (-1, 4)]:
        with pytest.raises(TreeIndexError):
            consistency_proof(HASHES, old_size, new_size)


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_hash_has_32_bytes(length):
    short = bytes(length)
    with pytest.raises(HashLengthError):
        verify_inclusion(0, 2, short, [OTHER], OTHER)
    with pytest.raises(HashLengthError):
        verify_inclusion(0, 2, OTHER, [short], OTHER)
    with pytest.raises(HashLengthError):
        verify_consistency(1, 2, [OTHER], OTHER, short)
    with pytest.raises(HashLengthError):
        verify_consistency(0, 2, [], EMPTY_ROOT, short)
    with pytest.raises(HashLengthError):
        Frontier().append(short)
    with pytest.raises(HashLengthError):
        root([LeafHash(short)])


@given(st.integers(0, 64), st.integers(0, 64))
@settings(deadline=None, derandomize=True)
def test_a_stored_frontier_grows_like_the_tree(size, more):
    frontier = Frontier()
    frontier.extend(HASHES[:size])
    restored = Frontier.from_bytes(frontier.to_bytes())
    assert restored == frontier
    assert (restored.size, restored.root()) == (size, ROOTS[size])
    tried = restored.copy()
    tried.extend(HASHES[size : size + more])
    assert tried.root() == ROOTS[min(64, size + more)]
    assert restored.root() == ROOTS[size], "a copy is independent"


def test_a_bad_leaf_among_good_ones_leaves_the_good_ones():
    frontier = Frontier()
    with pytest.raises(HashLengthError):
        frontier.extend([*HASHES[:7], b"short", *HASHES[7:]])
    assert (frontier.size, frontier.root()) == (7, ROOTS[7])


def test_leaves_that_end_early_leave_those_that_came():
    def interrupted():
        yield from HASHES[:5]
        raise OSError("disk")

    frontier = Frontier()
    with pytest.raises(OSError, match="disk"):
        frontier.extend(interrupted())
    assert (frontier.size, frontier.root()) == (5, ROOTS[5])


def test_a_long_log_grows_without_its_leaves():
    hashes = [leaf_hash(b"step %d" % number) for number in range(101_000)]
    frontier = Frontier()
    frontier.extend(hashes[:100_000])
    stored = frontier.to_bytes()
    assert len(stored) == 8 + 32 * (100_000).bit_count()
    resumed = Frontier.from_bytes(stored)
    for size in range(100_000, 101_000):
        if size % 250 == 0:
            assert resumed.root() == root(hashes[:size])
        resumed.append(hashes[size])
    assert resumed.size == 101_000
    assert resumed.root() == root(hashes)


@given(st.binary(max_size=200))
@settings(derandomize=True)
def test_garbage_is_no_frontier(data):
    with suppress(FrontierFormatError):
        assert Frontier.from_bytes(data).to_bytes() == data


def test_a_frontier_beyond_any_tree_is_refused():
    with pytest.raises(FrontierFormatError):
        Frontier.from_bytes((2**63).to_bytes(8, "big") + bytes(32))


def test_frontiers_compare_by_content_and_cannot_be_keys():
    assert Frontier() == Frontier()
    assert Frontier() != EMPTY_ROOT
    with pytest.raises(TypeError):
        hash(Frontier())
