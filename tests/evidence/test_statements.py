"""A statement says which kind of document it holds and what it is about."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ConfigDict

from auditkit.evidence import statements
from auditkit.evidence.canonical import sha256_hex, to_bytes
from auditkit.evidence.errors import EvidenceError, StatementError
from schemas import SampleCommitment, SplitSizes
from schemas.base import Schema

EXAMPLES = json.loads((Path(__file__).parent / "vectors" / "statements.json").read_text())
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


SUBJECTS_OF_OTHERS = {
    "without a name": [{"digest": {"sha256": DIGEST}}],
    "two without a name that means anything": [{"name": "_", "digest": {"sha256": DIGEST}}] * 2,
    "without SHA-256": [{"name": "a", "digest": {"gitCommit": "d20ace79"}}],
    "with several digests": [{"name": "a", "digest": {"sha256": DIGEST, "sha512": "d5b0"}}],
    "with other fields": [{"uri": "https://a", "digest": {"sha1": "00"}, "annotations": {}}],
}


@pytest.mark.parametrize("subject", SUBJECTS_OF_OTHERS.values(), ids=SUBJECTS_OF_OTHERS)
def test_subjects_are_read_as_the_specification_allows(subject):
    assert statements.parse(changed(subject=subject), PREDICATE_TYPE, SplitSizes) == SIZES


class AnyPredicate(Schema):
    """Stands for the predicates of others: every field is allowed."""

    model_config = ConfigDict(extra="allow")


def test_a_missing_predicate_is_an_empty_one():
    assert statements.parse(without("predicate"), PREDICATE_TYPE, AnyPredicate) == AnyPredicate()


@pytest.mark.parametrize("case", EXAMPLES, ids=lambda case: case["predicateType"])
def test_published_statements_are_read(case):
    predicate = statements.parse(json.dumps(case).encode(), case["predicateType"], AnyPredicate)
    assert predicate.model_dump() == case["predicate"]


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
    "a subject whose name is a number": changed(subject=[{"name": 1, "digest": {"sha1": "00"}}]),
    "a subject without digests": changed(subject=[{"name": "a"}]),
    "a subject with no digest": changed(subject=[{"name": "a", "digest": {}}]),
    "digests in a list": changed(subject=[{"name": "a", "digest": [DIGEST]}]),
    "an empty digest": changed(subject=[{"name": "a", "digest": {"sha1": ""}}]),
    "a digest of null": changed(subject=[{"name": "a", "digest": {"sha1": None}}]),
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
