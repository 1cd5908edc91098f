"""A statement says which kind of document it holds and what it is about."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditkit.evidence import statements
from auditkit.evidence.canonical import sha256_hex, to_bytes
from auditkit.evidence.errors import EvidenceError, StatementError
from schemas import SampleCommitment, SplitSizes

SIZES = SplitSizes(told=3, silent=1, told_only=0, external=2, calibration=4)
DIGEST = sha256_hex(b"subject")
PREDICATE_TYPE = statements.ORDER_PREDICATE
PAYLOAD = statements.make(PREDICATE_TYPE, SIZES, {"order/o1": DIGEST})


def test_a_statement_gives_back_its_predicate():
    assert statements.parse(PAYLOAD, PREDICATE_TYPE, SplitSizes) == SIZES


def test_a_statement_is_written_as_the_specification_says():
    assert json.loads(PAYLOAD) == {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "order/o1", "digest": {"sha256": DIGEST}}],
        "predicateType": "https://auditkit.dev/order/v1",
        "predicate": SIZES.as_json(),
    }
    assert to_bytes(json.loads(PAYLOAD)) == PAYLOAD


def test_the_subject_of_a_document_is_its_name_and_digest():
    assert statements.subject("order", "o1", SIZES) == {"order/o1": sha256_hex(to_bytes(SIZES))}


def test_the_order_of_subjects_does_not_matter():
    subjects = {"b": DIGEST, "a": DIGEST}
    reversed_subjects = dict(reversed(subjects.items()))
    assert statements.make(PREDICATE_TYPE, SIZES, subjects) == statements.make(
        PREDICATE_TYPE, SIZES, reversed_subjects
    )


@pytest.mark.parametrize(
    "subjects", [{}, {"": DIGEST}, {"a": ""}, {"a": DIGEST.upper()}, {"a": DIGEST[1:]}]
)
def test_a_statement_about_nothing_is_not_made(subjects):
    with pytest.raises(StatementError):
        statements.make(PREDICATE_TYPE, SIZES, subjects)


def changed(**fields):
    return to_bytes(json.loads(PAYLOAD) | fields)


def without(field):
    return to_bytes({name: v for name, v in json.loads(PAYLOAD).items() if name != field})


def test_unknown_fields_of_a_statement_are_ignored():
    assert statements.parse(changed(extension=1), PREDICATE_TYPE, SplitSizes) == SIZES


MALFORMED = {
    "nothing": b"",
    "not JSON": b"statement",
    "a list": b"[]",
    "another version": changed(_type="https://in-toto.io/Statement/v0.1"),
    "no type": without("_type"),
    "another predicate type": changed(predicateType=statements.GRANT_PREDICATE),
    "no predicate type": without("predicateType"),
    "a numeric predicate type": changed(predicateType=1),
    "no subject": without("subject"),
    "an empty list of subjects": changed(subject=[]),
    "a subject that is text": changed(subject=["order/o1"]),
    "a subject without a name": changed(subject=[{"digest": {"sha256": DIGEST}}]),
    "a subject without digests": changed(subject=[{"name": "a"}]),
    "a subject without SHA-256": changed(subject=[{"name": "a", "digest": {"sha1": "00"}}]),
    "a digest in upper case": changed(subject=[{"name": "a", "digest": {"sha256": "A" * 64}}]),
    "a digest that is a number": changed(subject=[{"name": "a", "digest": {"sha256": 1}}]),
    "one subject twice": changed(subject=[{"name": "a", "digest": {"sha256": DIGEST}}] * 2),
    "too many subjects": changed(
        subject=[{"name": str(n), "digest": {"sha256": DIGEST}} for n in range(1001)]
    ),
    "no predicate": without("predicate"),
    "a field too many": changed(predicate=SIZES.as_json() | {"extra": 1}),
    "a field of another type": changed(predicate=SIZES.as_json() | {"told": "3"}),
    "a predicate twice": PAYLOAD[:-1] + b',"predicate":{}}',
}


@pytest.mark.parametrize("payload", MALFORMED.values(), ids=MALFORMED.keys())
def test_other_statements_are_refused(payload):
    with pytest.raises(StatementError):
        statements.parse(payload, PREDICATE_TYPE, SplitSizes)


def test_a_predicate_does_not_pass_for_another_model():
    with pytest.raises(StatementError, match="SampleCommitment"):
        statements.parse(PAYLOAD, PREDICATE_TYPE, SampleCommitment)


@given(st.binary(max_size=100))
@settings(derandomize=True)
def test_garbage_raises_only_typed_errors(data):
    with pytest.raises(EvidenceError):
        statements.parse(data, PREDICATE_TYPE, SplitSizes)
