"""A proof file convinces whoever holds the keys of a log and of its witnesses, offline."""

import base64
import hashlib
import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from auditkit.evidence import merkle, notes, proofs
from auditkit.evidence.errors import (
    CheckpointFormatError,
    EvidenceError,
    HashLengthError,
    InclusionProofError,
    NoteFormatError,
    SignatureError,
    TreeIndexError,
)
from auditkit.evidence.keys import SigningKey
from auditkit.evidence.proofs import LogProof, Quorum, parse, verify

EXAMPLE = json.loads((Path(__file__).parent / "vectors" / "tlog_proof.json").read_text())
ORIGIN = "auditor.example/registry"
SIZE = 11
LEAVES = [b"entry %d" % number for number in range(SIZE)]


def key(letter):
    return SigningKey(Ed25519PrivateKey.from_private_bytes(letter * 32))


LOG = key(b"l")
LOG_KEY = notes.VerifierKey.ed25519(ORIGIN, LOG.public)
WITNESSES = {f"witness.example/{n}": key(b"%d" % n) for n in range(1, 4)}
WITNESS_KEYS = tuple(
    notes.VerifierKey.cosignature(name, witness.public) for name, witness in WITNESSES.items()
)


def signed_head(size=SIZE, root=None, origin=ORIGIN, signer=LOG, witnesses=()):
    root = merkle.root(LEAVES[:size]) if root is None else root
    note = notes.sign(notes.Checkpoint(origin, size, root).to_text(), ORIGIN, signer)
    for number, name in enumerate(witnesses):
        note = notes.cosign(note, name, WITNESSES[name], 1_700_000_000 + number)
    return note.to_bytes()


def proof_of(index, extra=None, **head):
    hashes = tuple(merkle.inclusion_proof(LEAVES, index, head.get("size", SIZE)))
    return LogProof(index, hashes, signed_head(**head), extra)


def leaf(index):
    return merkle.leaf_hash(LEAVES[index])


@pytest.mark.parametrize("index", range(SIZE))
def test_every_entry_of_a_log_is_proven_offline(index):
    data = proof_of(index).to_bytes()
    entry = verify(parse(data), leaf(index), ORIGIN, [LOG_KEY])
    assert entry.index == index
    assert entry.checkpoint == notes.Checkpoint(ORIGIN, SIZE, merkle.root(LEAVES))
    assert parse(data).to_bytes() == data


def test_a_proof_file_looks_as_the_specification_says():
    proof = proof_of(2, extra=b"context", size=5)
    lines = proof.to_bytes().decode().split("\n")
    encoded = [base64.b64encode(item).decode() for item in proof.hashes]
    assert lines[:3] == ["c2sp.org/tlog-proof@v1", "extra Y29udGV4dA==", "index 2"]
    assert lines[3:8] == [*encoded, "", ORIGIN]
    assert proof.to_bytes().endswith(b"\n\n" + signed_head(size=5))


def test_the_published_example_is_read():
    """Its signatures are elided, so one that stands for them takes their place."""
    text = EXAMPLE["specification"]
    note = text["checkpoint"] + "\n— example.com/fancylog AQIDBAUG\n"
    data = f"{text['head']}\n{note}".encode()
    proof = parse(data)
    assert (proof.index, len(proof.hashes), proof.checkpoint.size) == (73894, 5, 109482)
    assert proof.extra.startswith(b"age-v1.2.1-darwin-arm64.tar.gz")
    assert proof.to_bytes() == data


def test_the_only_entry_of_a_log_needs_no_hashes():
    proof = parse(proof_of(0, size=1).to_bytes())
    assert proof.hashes == ()
    assert verify(proof, leaf(0), ORIGIN, [LOG_KEY]).checkpoint.size == 1


@pytest.mark.parametrize("extra", [None, b"", b"\0\xff", b"x" * 10_000])
def test_extra_data_comes_along_and_proves_nothing(extra):
    proof = parse(proof_of(3, extra=extra).to_bytes())
    assert proof.extra == extra
    verify(replace(proof, extra=b"anything"), leaf(3), ORIGIN, [LOG_KEY])


@pytest.mark.parametrize("cosigned", range(4))
def test_a_quorum_of_witnesses_must_have_cosigned(cosigned):
    proof = proof_of(4, witnesses=list(WITNESSES)[:cosigned])
    for threshold in range(4):
        quorum = Quorum(WITNESS_KEYS, threshold)
        if threshold <= cosigned:
            entry = verify(proof, leaf(4), ORIGIN, [LOG_KEY], quorum)
            assert [found.key for found in entry.cosignatures] == list(WITNESS_KEYS[:cosigned])
            times = [found.timestamp for found in entry.cosignatures]
            assert times == [1_700_000_000 + number for number in range(cosigned)]
        else:
            with pytest.raises(proofs.QuorumError, match=f"{cosigned} of the 3"):
                verify(proof, leaf(4), ORIGIN, [LOG_KEY], quorum)


def test_a_witness_counts_once_under_however_many_names():
    first = WITNESSES["witness.example/1"]
    aliases = tuple(notes.VerifierKey.cosignature(name, first.public) for name in "ab")
    note = notes.parse(signed_head())
    for name in "ab":
        note = notes.cosign(note, name, first, 5)
    proof = replace(proof_of(4), note=note.to_bytes())
    quorum = Quorum((*aliases, WITNESS_KEYS[1]), 2)
    with pytest.raises(proofs.QuorumError):
        verify(proof, leaf(4), ORIGIN, [LOG_KEY], quorum)


def test_cosignatures_by_strangers_do_not_count():
    proof = proof_of(4, witnesses=list(WITNESSES))
    with pytest.raises(proofs.QuorumError):
        verify(proof, leaf(4), ORIGIN, [LOG_KEY], Quorum(WITNESS_KEYS[:0] + STRANGERS, 1))


STRANGERS = (notes.VerifierKey.cosignature("witness.example/1", key(b"x").public),)

IMPOSSIBLE_QUORUMS = {
    "more than there are": (WITNESS_KEYS, 4),
    "more than different ones": (WITNESS_KEYS[:1] * 2, 2),
    "fewer than nobody": (WITNESS_KEYS, -1),
    "somebody of nobody": ((), 1),
    "a key that signs no times": ((LOG_KEY,), 1),
}


@pytest.mark.parametrize("case", IMPOSSIBLE_QUORUMS.values(), ids=IMPOSSIBLE_QUORUMS)
def test_a_quorum_that_nobody_can_meet_is_refused(case):
    with pytest.raises(proofs.QuorumError):
        Quorum(*case)


OTHER = hashlib.sha256(b"other").digest()

FORGED_PROOFS = {
    "another leaf": (lambda p: p, merkle.leaf_hash(b"forged"), InclusionProofError),
    "a leaf instead of its hash": (lambda p: p, LEAVES[4], HashLengthError),
    "another index": (lambda p: replace(p, index=5), leaf(4), InclusionProofError),
    "the index after the last": (lambda p: replace(p, index=SIZE), leaf(4), TreeIndexError),
    "a huge index": (lambda p: replace(p, index=2**62), leaf(4), TreeIndexError),
    "a hash too few": (lambda p: replace(p, hashes=p.hashes[1:]), leaf(4), InclusionProofError),
    "a hash too many": (
        lambda p: replace(p, hashes=(*p.hashes, OTHER)),
        leaf(4),
        InclusionProofError,
    ),
    "another hash": (
        lambda p: replace(p, hashes=(OTHER, *p.hashes[1:])),
        leaf(4),
        InclusionProofError,
    ),
    "another size": (
        lambda p: replace(p, note=signed_head(size=8, root=merkle.root(LEAVES))),
        leaf(4),
        InclusionProofError,
    ),
    "another root": (lambda p: replace(p, note=signed_head(root=OTHER)), leaf(4), EvidenceError),
    "an empty log": (
        lambda p: replace(p, index=0, hashes=(), note=signed_head(size=0)),
        merkle.EMPTY_ROOT,
        TreeIndexError,
    ),
    "another log": (
        lambda p: replace(p, note=signed_head(origin="other.example")),
        leaf(4),
        proofs.TlogProofOriginError,
    ),
    "signed by a stranger": (
        lambda p: replace(p, note=signed_head(signer=key(b"x"))),
        leaf(4),
        proofs.LogSignatureError,
    ),
    "a changed checkpoint": (
        lambda p: replace(p, note=p.note.replace(b"\n11\n", b"\n12\n")),
        leaf(4),
        SignatureError,
    ),
}


@pytest.mark.parametrize("case", FORGED_PROOFS.values(), ids=FORGED_PROOFS)
def test_forged_proofs_are_refused(case):
    change, leaf_hash, error = case
    with pytest.raises(error):
        verify(change(proof_of(4)), leaf_hash, ORIGIN, [LOG_KEY])


def test_a_witness_does_not_speak_for_the_log():
    proof = proof_of(4, signer=key(b"x"), witnesses=list(WITNESSES))
    with pytest.raises(proofs.LogSignatureError):
        verify(proof, leaf(4), ORIGIN, [LOG_KEY], Quorum(WITNESS_KEYS, 3))


def test_a_proof_without_any_trusted_key_proves_nothing():
    with pytest.raises(proofs.LogSignatureError):
        verify(proof_of(4), leaf(4), ORIGIN, [])


NOTE = signed_head(size=1).decode()
HASH = base64.b64encode(OTHER).decode()

MALFORMED = {
    "nothing": "",
    "a header alone": "c2sp.org/tlog-proof@v1\n",
    "no index": f"c2sp.org/tlog-proof@v1\n\n{NOTE}",
    "another version": f"c2sp.org/tlog-proof@v2\nindex 0\n\n{NOTE}",
    "a space after the header": f"c2sp.org/tlog-proof@v1 \nindex 0\n\n{NOTE}",
    "a line before the header": f"\nc2sp.org/tlog-proof@v1\nindex 0\n\n{NOTE}",
    "carriage returns": f"c2sp.org/tlog-proof@v1\r\nindex 0\r\n\r\n{NOTE}",
    "a leading zero": f"c2sp.org/tlog-proof@v1\nindex 00\n\n{NOTE}",
    "a plus sign": f"c2sp.org/tlog-proof@v1\nindex +1\n\n{NOTE}",
    "a minus sign": f"c2sp.org/tlog-proof@v1\nindex -0\n\n{NOTE}",
    "two spaces": f"c2sp.org/tlog-proof@v1\nindex  0\n\n{NOTE}",
    "a tab": f"c2sp.org/tlog-proof@v1\nindex\t0\n\n{NOTE}",
    "a space after the index": f"c2sp.org/tlog-proof@v1\nindex 0 \n\n{NOTE}",
    "an index without a number": f"c2sp.org/tlog-proof@v1\nindex \n\n{NOTE}",
    "an index in upper case": f"c2sp.org/tlog-proof@v1\nIndex 0\n\n{NOTE}",
    "an index of 2^63": f"c2sp.org/tlog-proof@v1\nindex {2**63}\n\n{NOTE}",
    "an index of a thousand digits": f"c2sp.org/tlog-proof@v1\nindex {'9' * 1000}\n\n{NOTE}",
    "Arabic-Indic digits": f"c2sp.org/tlog-proof@v1\nindex \N{ARABIC-INDIC DIGIT ONE}\n\n{NOTE}",
    "two indexes": f"c2sp.org/tlog-proof@v1\nindex 0\nindex 0\n\n{NOTE}",
    "extra data after the index": f"c2sp.org/tlog-proof@v1\nindex 0\nextra YQ==\n\n{NOTE}",
    "extra data twice": f"c2sp.org/tlog-proof@v1\nextra YQ==\nextra YQ==\nindex 0\n\n{NOTE}",
    "extra data without a space": f"c2sp.org/tlog-proof@v1\nextra\nindex 0\n\n{NOTE}",
    "extra data that is no base64": f"c2sp.org/tlog-proof@v1\nextra !\nindex 0\n\n{NOTE}",
    "extra data with spare bits": f"c2sp.org/tlog-proof@v1\nextra YR==\nindex 0\n\n{NOTE}",
    "extra data alone": f"c2sp.org/tlog-proof@v1\nextra YQ==\n\n{NOTE}",
    "a short hash": f"c2sp.org/tlog-proof@v1\nindex 0\nYQ==\n\n{NOTE}",
    "a hash without padding": f"c2sp.org/tlog-proof@v1\nindex 0\n{HASH.rstrip('=')}\n\n{NOTE}",
    "a URL-safe hash": f"c2sp.org/tlog-proof@v1\nindex 0\n{'-' * 42}8=\n\n{NOTE}",
    "a hash in hexadecimal": f"c2sp.org/tlog-proof@v1\nindex 0\n{OTHER.hex()}\n\n{NOTE}",
    "64 hashes": "c2sp.org/tlog-proof@v1\nindex 0\n" + f"{HASH}\n" * 64 + f"\n{NOTE}",
    "too long": f"c2sp.org/tlog-proof@v1\nextra {'A' * 2_000_000}\nindex 0\n\n{NOTE}",
}


@pytest.mark.parametrize("text", MALFORMED.values(), ids=MALFORMED)
def test_malformed_proofs_are_refused(text):
    with pytest.raises(proofs.TlogProofFormatError):
        parse(text.encode())


BAD_NOTES = {
    "no checkpoint": ("", NoteFormatError),
    "a checkpoint without signatures": (NOTE.split("\n\n")[0] + "\n", NoteFormatError),
    "an empty line too many": ("\n" + NOTE, CheckpointFormatError),
    "a signed letter": (
        notes.sign("letter\n", ORIGIN, LOG).to_bytes().decode(),
        CheckpointFormatError,
    ),
    "no newline at the end": (NOTE.rstrip(), NoteFormatError),
}


@pytest.mark.parametrize("case", BAD_NOTES.values(), ids=BAD_NOTES)
def test_what_is_no_signed_checkpoint_is_refused(case):
    note, error = case
    with pytest.raises(error):
        parse(f"c2sp.org/tlog-proof@v1\nindex 0\n\n{note}".encode())


UNWRITABLE = {
    "a negative index": {"index": -1},
    "an index beyond every tree": {"index": 2**63 - 1},
    "a short hash": {"hashes": (b"short",)},
    "64 hashes": {"hashes": (OTHER,) * 64},
}


@pytest.mark.parametrize("fields", UNWRITABLE.values(), ids=UNWRITABLE)
def test_what_a_proof_cannot_say_is_refused(fields):
    with pytest.raises(proofs.TlogProofFormatError):
        replace(proof_of(0, size=1), **fields)


@given(st.data())
@settings(deadline=None, derandomize=True)
def test_one_changed_byte_before_the_signatures_is_noticed(data):
    whole = proof_of(4).to_bytes()
    position = data.draw(st.integers(0, whole.index("—".encode()) - 1))
    changed = bytearray(whole)
    changed[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(EvidenceError):
        verify(parse(bytes(changed)), leaf(4), ORIGIN, [LOG_KEY])


PIECES = st.sampled_from(["c2sp.org/tlog-proof@v1", "extra ", "index ", "\n", "0", HASH, NOTE])


@given(st.lists(PIECES | st.text(max_size=5)).map("".join))
@settings(deadline=None, derandomize=True, max_examples=300)
def test_garbage_raises_only_typed_errors(text):
    with suppress(EvidenceError):
        assert parse(text.encode()).to_bytes() == text.encode()
