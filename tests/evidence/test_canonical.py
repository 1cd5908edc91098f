"""One document has one byte form, and one byte form has one reading."""

import json
import math
import struct
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditkit.evidence.canonical import MAX_INTEGER, parse, sha256_hex, to_bytes
from auditkit.evidence.encoding import from_base64, to_base64
from auditkit.evidence.errors import CanonicalFormError
from schemas import SplitSizes

VECTORS = json.loads((Path(__file__).parent / "vectors" / "rfc8785.json").read_text())

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-MAX_INTEGER, MAX_INTEGER)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=20,
)


@pytest.mark.parametrize("case", VECTORS["numbers"], ids=lambda case: case["ieee754"])
def test_numbers_are_written_as_in_appendix_b(case):
    (number,) = struct.unpack(">d", bytes.fromhex(case["ieee754"]))
    assert to_bytes(number).decode() == case["text"]


@pytest.mark.parametrize("case", VECTORS["documents"], ids=lambda case: case["id"])
def test_documents_are_written_as_published(case):
    assert to_bytes(parse(case["input"].encode())).decode() == case["output"]


def test_a_schema_is_written_field_by_field():
    sizes = SplitSizes(told=3, silent=1, told_only=0, external=2, calibration=4)
    expected = b'{"calibration":4,"external":2,"silent":1,"told":3,"told_only":0}'
    assert to_bytes(sizes) == expected
    assert SplitSizes.from_bytes(expected) == sizes


@given(JSON_VALUES)
@settings(deadline=None, derandomize=True)
def test_the_byte_form_is_stable(value):
    data = to_bytes(value)
    assert to_bytes(parse(data)) == data
    assert parse(data) == value


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


UNWRITABLE = {
    "NaN": math.nan,
    "infinity": math.inf,
    "negative infinity": -math.inf,
    "an integer beyond 2^53 - 1": 2**53,
    "a negative integer beyond 2^53 - 1": -(2**53),
    "a lone surrogate": "\ud800",
    "a lone surrogate as a name": {"\ud800": 1},
    "a name that is not text": {1: 1},
    "bytes": b"bytes",
    "a set": {1, 2},
    "nesting without end": nested(100_000),
}


@pytest.mark.parametrize("value", UNWRITABLE.values(), ids=UNWRITABLE.keys())
def test_what_json_cannot_carry_is_refused(value):
    with pytest.raises(CanonicalFormError):
        to_bytes(value)


UNREADABLE = {
    "nothing": b"",
    "a repeated name": b'{"a":1,"a":2}',
    "a repeated name, escaped": b'{"a":1,"\\u0061":2}',
    "a repeated name, deep inside": b'[{"b":{"a":1,"a":1}}]',
    "NaN": b"[NaN]",
    "infinity": b"[Infinity]",
    "a number that overflows": b"[1e400]",
    "an integer beyond 2^53 - 1 that is no double": b"9007199254740993",
    "a large double in another spelling": b"[100000000000000001]",
    "an integer of ten thousand digits": b"1" * 10_000,
    "a lone surrogate": b'"\\ud800"',
    "a byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "bytes that are not UTF-8": b'"\xff"',
    "something after the document": b"{} {}",
    "a trailing comma": b"[1,]",
    "single quotes": b"{'a':1}",
    "nesting without end": b"[" * 100_000,
}


@pytest.mark.parametrize("data", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_ambiguous_json_is_refused(data):
    with pytest.raises(CanonicalFormError):
        parse(data)


def test_large_doubles_come_back_as_they_went():
    """RFC 8785 writes 1e17 as digits alone; that must not make a record unreadable."""
    for number in (2.0**53, -(2.0**53), 1e17, 1e20, 295147905179352830000.0):
        assert parse(to_bytes(number)) == number


def test_a_document_has_a_largest_size():
    assert parse(b'"1234"', limit=6) == "1234"
    with pytest.raises(CanonicalFormError, match="at most 5 bytes"):
        parse(b'"1234"', limit=5)


@given(st.binary(max_size=60))
@settings(derandomize=True)
def test_garbage_raises_only_the_typed_error(data):
    with suppress(CanonicalFormError):
        to_bytes(parse(data))


def test_digests_are_lower_case_hexadecimal():
    assert sha256_hex(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@given(st.binary(max_size=40))
@settings(derandomize=True)
def test_base64_has_one_spelling(data):
    text = to_base64(data)
    assert from_base64(text) == data
    assert from_base64(text.translate(str.maketrans("+/", "-_")), url_safe=True) == data


BASE64_CASES = {
    "padding missing": "QQ",
    "padding too long": "QQ===",
    "spare bits set": "QR==",
    "white space": "QQ ==",
    "a newline": "QQ==\n",
    "URL-safe alphabet": "-_-_",
    "not ASCII": "QUÄ=",
    "padding in the middle": "QQ==QQ==",
    "one character": "Q",
}


@pytest.mark.parametrize("text", BASE64_CASES.values(), ids=BASE64_CASES.keys())
def test_other_spellings_of_base64_are_refused(text):
    with pytest.raises(ValueError, match="base64"):
        from_base64(text)


def test_the_alphabets_are_not_mixed():
    with pytest.raises(ValueError, match="base64"):
        from_base64("-_+/", url_safe=True)
