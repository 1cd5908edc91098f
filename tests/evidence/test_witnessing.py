"""C2SP tlog-witness: its messages to the letter, and a witness that never signs two histories."""

import base64
from collections.abc import Sequence
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from auditkit.evidence import merkle, notes
from auditkit.evidence.errors import (
    ConsistencyProofError,
    EvidenceError,
    NoteFormatError,
    SignatureError,
    VerifierKeyError,
    WeakKeyError,
)
from auditkit.evidence.keys import SigningKey
from auditkit.evidence.witnessing import (
    MAX_REQUEST_BYTES,
    AddCheckpoint,
    LogState,
    OldSizeError,
    SplitViewError,
    StaleOldSizeError,
    UnknownLogError,
    UntrustedCheckpointError,
    WitnessAnswerError,
    WitnessPolicyError,
    WitnessRequestError,
    check_extends,
    check_signed,
    cosignature_line,
    open_policy,
    read_cosignature,
    read_size,
    with_lines,
)
from schemas import WitnessPolicy

LOG = "log.example.org/one"
WITNESS = "w.example.org"
TIME = 1_767_225_600


def key(seed: int) -> SigningKey:
    return SigningKey(Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32))


LOG_KEY, OTHER_KEY, WITNESS_KEY, SECOND_WITNESS_KEY = (key(seed) for seed in (1, 2, 3, 4))
TRUSTED = notes.VerifierKey.ed25519(LOG, LOG_KEY.public)
WITNESS_VERIFIER = notes.VerifierKey.cosignature(WITNESS, WITNESS_KEY.public)
LEAVES = [f"leaf {index}".encode() for index in range(40)]


def checkpoint(leaves: Sequence[bytes], size: int, signer: SigningKey = LOG_KEY) -> notes.Note:
    head = notes.Checkpoint(LOG, size, merkle.root(leaves[:size]))
    return notes.sign(head.to_text(), LOG, signer)


def request(old: int, new: int, leaves: Sequence[bytes] = LEAVES) -> AddCheckpoint:
    return AddCheckpoint.of(
        old, merkle.consistency_proof(leaves, old, new), checkpoint(leaves, new)
    )


def state(size: int, leaves: Sequence[bytes] = LEAVES) -> LogState:
    return LogState(size, merkle.root(leaves[:size]), TIME)


# -- the request -----------------------------------------------------------------------------------


def test_the_request_of_the_specification_is_read() -> None:
    """The example of c2sp.org/tlog-witness, section add-checkpoint."""
    body = (
        "old 20852014\n"
        "PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=\n"
        "jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=\n"
        "5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=\n"
        "/6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=\n"
        "\n"
        "example.com/behind-the-sofa\n"
        "20852163\n"
        "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
        "\n"
        "— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5"
        "/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
        "— example.com/behind-the-sofa opLqBQsREYCgu6xQkYQwJr9fo45a62DN9EdmHXnZdXNqlcVGlCum2Wks"
        "+49/V6267UEjw6QUXTS5Rovnzv++qbSzm9Q=\n"
    ).encode()
    found = AddCheckpoint.from_bytes(body)
    assert (found.old_size, len(found.proof)) == (20852014, 4)
    assert found.checkpoint.origin == "example.com/behind-the-sofa"
    assert found.checkpoint.size == 20852163
    assert len(found.note.signatures) == 2
    assert found.to_bytes() == body


@given(st.integers(0, 40), st.integers(0, 40))
def test_a_request_comes_back_as_it_was_sent(one: int, other: int) -> None:
    sent = request(min(one, other), max(one, other))
    assert AddCheckpoint.from_bytes(sent.to_bytes()) == sent


HASH = base64.b64encode(bytes(32)).decode()
NOTE = checkpoint(LEAVES, 5).to_bytes().decode()


@pytest.mark.parametrize(
    "body",
    [
        "",
        "\n",
        "\n\n",
        NOTE,
        f"old 0\n{NOTE}",
        f"\nold 0\n\n{NOTE}",
        f"old 00\n\n{NOTE}",
        f"old 01\n\n{NOTE}",
        f"old -1\n\n{NOTE}",
        f"old +1\n\n{NOTE}",
        f"old 1.0\n\n{NOTE}",
        f"old  1\n\n{NOTE}",
        f"old 1 \n\n{NOTE}",
        f"old\t1\n\n{NOTE}",
        f"old ١\n\n{NOTE}",
        f"Old 1\n\n{NOTE}",
        f"old\n\n{NOTE}",
        f"1\n\n{NOTE}",
        f"old 1\r\n\r\n{NOTE}",
        f"old {2**63}\n\n{NOTE}",
        f"old {10**30}\n\n{NOTE}",
        f"old 1\n{HASH}\n" + NOTE,
        f"old 1\n{HASH} \n\n" + NOTE,
        f"old 1\n{HASH[:-1]}\n\n" + NOTE,
        f"old 1\n{HASH[:-2]}B=\n\n" + NOTE,
        f"old 1\n{HASH}{HASH}\n\n" + NOTE,
        f"old 1\n{base64.b64encode(bytes(31)).decode()}\n\n" + NOTE,
        f"old 1\n{base64.b64encode(bytes(33)).decode()}\n\n" + NOTE,
        "old 1\n" + f"{HASH}\n" * 64 + "\n" + NOTE,
        f"old 0\n\n{NOTE}trailing",
        f"old 0\n\n{NOTE}\n",
        f"old 0\n\n{NOTE}".rstrip("\n"),
        f"old 0\n\n{NOTE}".partition("\n— ")[0],
        f"old 0\n\n\n{NOTE}",
        "old 0\n\n" + NOTE.replace("\n5\n", "\n05\n"),
        "old 0\n\n" + NOTE.replace("\n5\n", f"\n{2**63}\n"),
        "old 0\n\n" + NOTE.replace(f"{LOG}\n", "\n", 1),
        "old 0\n\n" + NOTE.replace("— ", "- "),
    ],
)
def test_a_malformed_request_is_refused(body: str) -> None:
    with pytest.raises(WitnessRequestError):
        AddCheckpoint.from_bytes(body.encode())


def test_63_lines_of_proof_are_allowed_and_64_never_sent() -> None:
    longest = AddCheckpoint.of(1, [bytes(32)] * 63, checkpoint(LEAVES, 5))
    assert AddCheckpoint.from_bytes(longest.to_bytes()) == longest
    with pytest.raises(WitnessRequestError):
        replace(longest, proof=(*longest.proof, bytes(32))).to_bytes()


@pytest.mark.parametrize(
    "body", [b"old 0\n\n\xff\xfe", b"ol\xff 0\n\n" + NOTE.encode(), b"x" * (MAX_REQUEST_BYTES + 1)]
)
def test_bytes_that_are_no_text_or_too_many_are_refused(body: bytes) -> None:
    with pytest.raises(WitnessRequestError):
        AddCheckpoint.from_bytes(body)


@settings(max_examples=500)
@given(st.data())
def test_no_mutation_of_a_request_does_more_than_be_refused(data: st.DataObject) -> None:
    body = bytearray(request(3, 20).to_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(body) - 1))
        body[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    try:
        read = AddCheckpoint.from_bytes(bytes(body))
    except WitnessRequestError:
        return
    assert AddCheckpoint.from_bytes(read.to_bytes()) == read


# -- whose checkpoint it is ------------------------------------------------------------------------


def test_a_log_without_trusted_keys_is_unknown() -> None:
    with pytest.raises(UnknownLogError):
        check_signed(request(0, 5), [])


def test_signatures_by_strangers_are_ignored_beside_a_trusted_one() -> None:
    note = checkpoint(LEAVES, 5)
    stranger = notes.sign(note.text, "stranger.example.org", OTHER_KEY).signatures
    both = replace(note, signatures=(*stranger, *note.signatures))
    check_signed(AddCheckpoint.of(0, (), both), [TRUSTED])


@pytest.mark.parametrize("case", ["stranger", "same name", "bad", "bad beside good"])
def test_without_a_good_signature_by_a_trusted_key_nothing_is_believed(case: str) -> None:
    note = checkpoint(LEAVES, 5)
    bad = replace(note.signatures[0], signature=bytes(64))
    found = {
        "stranger": notes.sign(note.text, "stranger.example.org", OTHER_KEY),
        "same name": checkpoint(LEAVES, 5, OTHER_KEY),
        "bad": replace(note, signatures=(bad,)),
        "bad beside good": replace(note, signatures=(*note.signatures, bad)),
    }[case]
    with pytest.raises(UntrustedCheckpointError):
        check_signed(AddCheckpoint.of(0, (), found), [TRUSTED])


def test_an_auditors_cosignature_can_be_what_is_trusted() -> None:
    note = notes.cosign(checkpoint(LEAVES, 5, OTHER_KEY), "auditor", LOG_KEY, TIME)
    trusted = notes.VerifierKey.cosignature("auditor", LOG_KEY.public)
    check_signed(AddCheckpoint.of(0, (), note), [trusted])


# -- whether it extends the last one ---------------------------------------------------------------


@given(st.integers(0, 40), st.integers(0, 40))
def test_what_extends_the_last_tree_is_accepted(one: int, other: int) -> None:
    old, new = min(one, other), max(one, other)
    check_extends(request(old, new), state(old))


def test_a_first_checkpoint_needs_no_proof_and_may_be_empty() -> None:
    check_extends(request(0, 0), LogState())
    check_extends(request(0, 7), LogState())


def test_a_proof_from_size_0_is_refused() -> None:
    with pytest.raises(ConsistencyProofError):
        check_extends(replace(request(0, 7), proof=(bytes(32),)), LogState())


def test_a_proof_between_equal_sizes_is_refused() -> None:
    with pytest.raises(ConsistencyProofError):
        check_extends(replace(request(7, 7), proof=(bytes(32),)), state(7))


def test_the_empty_tree_has_one_root_only() -> None:
    head = notes.Checkpoint(LOG, 0, bytes(32))
    forged = AddCheckpoint.of(0, (), notes.sign(head.to_text(), LOG, LOG_KEY))
    with pytest.raises(SplitViewError):
        check_extends(forged, LogState())


def test_going_back_is_malformed_whatever_the_witness_knows() -> None:
    back = replace(request(0, 5), old_size=6)
    for known in (LogState(), state(6), state(20)):
        with pytest.raises(OldSizeError):
            check_extends(back, known)


@pytest.mark.parametrize(("old", "known"), [(0, 5), (4, 5), (6, 5), (5, 0)])
def test_another_old_size_than_the_last_is_stale_and_the_right_one_told(
    old: int, known: int
) -> None:
    with pytest.raises(StaleOldSizeError) as caught:
        check_extends(request(old, 9), state(known))
    assert caught.value.size == known


def test_the_same_size_with_another_root_is_a_split_view() -> None:
    other = [b"forged", *LEAVES[1:]]
    with pytest.raises(SplitViewError):
        check_extends(request(7, 7, other), state(7))


@pytest.mark.parametrize("broken", ["other history", "truncated", "extended", "swapped", "none"])
def test_a_proof_that_does_not_verify_is_refused(broken: str) -> None:
    good = request(6, 21)
    proof = good.proof
    found = {
        "other history": request(6, 21, [b"forged", *LEAVES[1:]]),
        "truncated": replace(good, proof=proof[:-1]),
        "extended": replace(good, proof=(*proof, bytes(32))),
        "swapped": replace(good, proof=(proof[1], proof[0], *proof[2:])),
        "none": replace(good, proof=()),
    }[broken]
    with pytest.raises(ConsistencyProofError):
        check_extends(found, state(6))


class ModelWitness:
    """The rules applied one request after the other, as a server does under its lock."""

    def __init__(self) -> None:
        self.state = LogState()
        self.cosigned: list[notes.Checkpoint] = []

    def ask(self, asked: AddCheckpoint) -> None:
        check_signed(asked, [TRUSTED])
        check_extends(asked, self.state)
        self.state = LogState(asked.checkpoint.size, asked.checkpoint.root, TIME)
        self.cosigned.append(asked.checkpoint)


HISTORIES = tuple(
    [f"{name} {index}".encode() if index >= parts else LEAVES[index] for index in range(16)]
    for name, parts in (("left", 16), ("right", 5), ("third", 0))
)


@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 16), st.integers(0, 16)),
        max_size=25,
    )
)
def test_whatever_it_is_asked_a_witness_signs_one_history(
    asked: list[tuple[int, int, int, int]],
) -> None:
    witness = ModelWitness()
    for proven, signed, old, new in asked:
        proof = merkle.consistency_proof(HISTORIES[proven], min(old, new), new)
        try:
            witness.ask(AddCheckpoint.of(old, proof, checkpoint(HISTORIES[signed], new)))
        except EvidenceError:
            continue
    found = witness.cosigned
    assert [head.size for head in found] == sorted(head.size for head in found)
    assert any(
        all(head.root == merkle.root(history[: head.size]) for head in found)
        for history in HISTORIES
    )


# -- proofs from the frontier ----------------------------------------------------------------------


@given(st.integers(0, 40), st.integers(0, 40))
def test_a_frontier_proves_what_all_leaves_prove(one: int, other: int) -> None:
    old, new = min(one, other), max(one, other)
    hashes = [merkle.leaf_hash(leaf) for leaf in LEAVES]
    frontier = merkle.Frontier()
    frontier.extend(hashes[:old])
    assert frontier.consistency_proof(hashes[old:new]) == merkle.consistency_proof(LEAVES, old, new)
    assert frontier.size == old


# -- the answer ------------------------------------------------------------------------------------


def answer(note: notes.Note, signer: SigningKey = WITNESS_KEY, time: int = TIME) -> bytes:
    return cosignature_line(note, WITNESS, signer, time).encode()


def test_a_cosignature_is_read_beside_those_of_unknown_keys() -> None:
    note = checkpoint(LEAVES, 5)
    unknown = answer(note, SECOND_WITNESS_KEY)
    found = read_cosignature(unknown + answer(note), note, WITNESS_VERIFIER)
    assert found.time == TIME
    assert f"{found.line}\n".encode() == answer(note)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\n",
        b"ok\n",
        answer(checkpoint(LEAVES, 5), SECOND_WITNESS_KEY),
        answer(checkpoint(LEAVES, 5)).rstrip(b"\n"),
        b"text\n\n" + answer(checkpoint(LEAVES, 5)),
        answer(checkpoint(LEAVES, 5), time=0),
        notes.sign(checkpoint(LEAVES, 5).text, WITNESS, WITNESS_KEY)
        .signatures[0]
        .to_line()
        .encode()
        + b"\n",
    ],
    ids=["empty", "blank", "text", "stranger", "cut", "text before", "time 0", "no cosignature"],
)
def test_an_answer_without_the_witnesss_cosignature_is_refused(body: bytes) -> None:
    with pytest.raises(WitnessAnswerError):
        read_cosignature(body, checkpoint(LEAVES, 5), WITNESS_VERIFIER)


def test_a_cosignature_of_another_checkpoint_is_refused() -> None:
    with pytest.raises(SignatureError):
        read_cosignature(answer(checkpoint(LEAVES, 6)), checkpoint(LEAVES, 5), WITNESS_VERIFIER)


def test_the_size_in_a_conflict() -> None:
    assert read_size(b"0\n") == 0
    assert read_size(b"20852014\n") == 20852014
    for body in (b"", b"50", b"050\n", b"-1\n", b" 5\n", b"5\n\n", f"{2**63}\n".encode()):
        with pytest.raises(WitnessAnswerError):
            read_size(body)


def test_lines_are_added_once_and_after_those_that_were_there() -> None:
    note = checkpoint(LEAVES, 5)
    lines = [answer(note, signer).decode().rstrip("\n") for signer in (WITNESS_KEY, key(9))]
    merged = with_lines(note.to_bytes(), [lines[0], lines[1], lines[0]])
    assert merged == note.to_bytes() + "".join(f"{line}\n" for line in lines).encode()
    assert with_lines(merged, lines) == merged
    assert with_lines(merged, []) == merged
    with pytest.raises(NoteFormatError):
        with_lines(note.to_bytes(), ["no signature line"])


# -- the policy ------------------------------------------------------------------------------------


def witness_keys(count: int) -> list[str]:
    return [
        notes.VerifierKey.cosignature(f"w{number}.example.org", key(10 + number).public).encode()
        for number in range(count)
    ]


@pytest.mark.parametrize(("threshold", "count"), [(1, 1), (2, 2), (2, 3), (3, 4), (3, 5), (5, 5)])
def test_a_majority_of_different_witnesses_is_a_policy(threshold: int, count: int) -> None:
    keys = witness_keys(count)
    opened = open_policy(WitnessPolicy(keys=tuple(keys), threshold=threshold), set())
    assert [found.encode() for found in opened] == keys


@pytest.mark.parametrize(("threshold", "count"), [(1, 2), (1, 3), (2, 4), (2, 5)])
def test_no_majority_is_no_policy(threshold: int, count: int) -> None:
    with pytest.raises(WitnessPolicyError, match="majority"):
        open_policy(WitnessPolicy(keys=tuple(witness_keys(count)), threshold=threshold), set())


def test_one_witness_counts_once_and_the_auditor_never() -> None:
    one = key(10).public
    same_key = [notes.VerifierKey.cosignature(name, one).encode() for name in ("a", "b")]
    same_name = [notes.VerifierKey.cosignature("a", key(n).public).encode() for n in (10, 11)]
    for keys in (same_key, same_name, [same_key[0], same_key[0]]):
        with pytest.raises(WitnessPolicyError, match="two witnesses"):
            open_policy(WitnessPolicy(keys=tuple(keys), threshold=2), set())
    with pytest.raises(WitnessPolicyError, match="somebody else"):
        open_policy(WitnessPolicy(keys=(same_key[0],), threshold=1), {one.hex})


def test_keys_that_prove_nothing_are_refused() -> None:
    weak = notes.VerifierKey.cosignature("w", key(10).public)
    object.__setattr__(weak.public_key, "raw", bytes(32))
    for text, error in (
        (weak.encode(), WeakKeyError),
        (witness_keys(1)[0].replace("w0", "w1", 1), VerifierKeyError),
        (notes.VerifierKey.ed25519("w", key(12).public).encode(), WitnessPolicyError),
    ):
        with pytest.raises(error):
            open_policy(WitnessPolicy(keys=(text,), threshold=1), set())
