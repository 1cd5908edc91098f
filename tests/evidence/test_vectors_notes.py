"""Notes, checkpoints and requests to witnesses as Go's implementations judge them."""

import json
from pathlib import Path

import pytest

from auditkit.evidence import notes
from auditkit.evidence.errors import CheckpointFormatError, ConsistencyProofError, EvidenceError
from auditkit.evidence.notes import VerifierKey
from auditkit.evidence.witnessing import (
    AddCheckpoint,
    LogState,
    StaleOldSizeError,
    UnknownLogError,
    UntrustedCheckpointError,
    WitnessRequestError,
    check_extends,
    check_signed,
)

FOLDER = Path(__file__).parent / "vectors"
GO = json.loads((FOLDER / "notes_go.json").read_text(encoding="utf-8"))
WITNESS = json.loads((FOLDER / "witness.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", GO["notes"], ids=lambda case: case["id"])
def test_notes_are_opened_as_by_go(case):
    keys = [VerifierKey.parse(text) for text in case["keys"]]
    data = case["note"].encode()
    if case["signers"] is None:
        with pytest.raises(EvidenceError):
            notes.verify(data, keys)
    else:
        verified = notes.verify(data, keys)
        assert [found.key.encode() for found in verified.signatures] == case["signers"]


@pytest.mark.parametrize("text", GO["verifier_keys"]["good"])
def test_verifier_keys_of_go_are_read(text):
    assert VerifierKey.parse(text).encode() == text


@pytest.mark.parametrize("text", GO["verifier_keys"]["bad"])
def test_verifier_keys_that_go_refuses_are_refused(text):
    with pytest.raises(EvidenceError):
        VerifierKey.parse(text)


def test_every_mangled_verifier_key_is_refused():
    whole = GO["verifier_keys"]["good"][0]
    parts = {whole[a:b] for a in range(len(whole) + 1) for b in range(a, len(whole) + 1)}
    shifted = {f"{whole[:a]}{chr(ord(whole[a]) + 1)}{whole[a + 1 :]}" for a in range(len(whole))}
    for text in (parts | shifted) - {whole}:
        with pytest.raises(EvidenceError):
            VerifierKey.parse(text)


@pytest.mark.parametrize("case", GO["checkpoints"]["bad"], ids=lambda case: case[0])
def test_checkpoints_that_go_refuses_are_refused(case):
    with pytest.raises(CheckpointFormatError):
        notes.parse_checkpoint(case[1])


def status_of(body, keys, states):
    """The HTTP status of tlog-witness, section add-checkpoint, and what the witness then knows."""
    try:
        request = AddCheckpoint.from_bytes(body)
        origin = request.checkpoint.origin
        check_signed(request, keys.get(origin, ()))
        check_extends(request, states.get(origin, LogState()))
    except WitnessRequestError:
        return 400
    except UnknownLogError:
        return 404
    except UntrustedCheckpointError:
        return 403
    except StaleOldSizeError:
        return 409
    except ConsistencyProofError:
        return 422
    states[origin] = LogState(request.checkpoint.size, request.checkpoint.root, 1)
    return 200


DEPARTURES = {
    1: 400,  # 403 there: the changed signature is not canonical base64 either, which it let pass
    2: 404,  # 403 there: so said the specification of its time for an unknown log
}
"""Where we answer otherwise, by the request's number."""


def test_a_witness_answers_as_a_published_one():
    keys = {origin: [VerifierKey.parse(text)] for origin, text in WITNESS["logs"].items()}
    states = {}
    for number, case in enumerate(WITNESS["requests"]):
        expected = DEPARTURES.get(number, case["status"])
        assert status_of(case["body"].encode(), keys, states) == expected, number
    assert sorted(state.size for state in states.values()) == [5, 35225469]


def test_the_example_of_a_request_is_read_and_written():
    data = WITNESS["example"].encode()
    request = AddCheckpoint.from_bytes(data)
    assert (request.old_size, len(request.proof), request.checkpoint.size) == (
        20852014,
        4,
        20852163,
    )
    assert request.to_bytes() == data


def test_the_example_of_an_answer_is_read():
    text = WITNESS["example"].split("\n\n", 1)[1]
    note = notes.parse((text + WITNESS["answer"]).encode())
    names = [signature.name for signature in note.signatures[2:]]
    assert names == ["witness.example/w1", "witness.example/w1", "witness.example/w2"]
    assert all(len(signature.signature) == 8 + 64 for signature in note.signatures[2:])
