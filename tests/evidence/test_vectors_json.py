"""RFC 8785 as its author's own test data has it, and numbers as ECMAScript writes them."""

import json
import struct
from pathlib import Path

import pytest

from auditkit.evidence.canonical import MAX_INTEGER, parse, to_bytes

FOLDER = Path(__file__).parent / "vectors"
DOCUMENTS = json.loads((FOLDER / "jcs.json").read_text(encoding="utf-8"))
NUMBERS = [line.split(",") for line in (FOLDER / "es6_numbers.txt").read_text().split()]


@pytest.mark.parametrize("case", DOCUMENTS, ids=lambda case: case["id"])
def test_documents_take_their_published_form(case):
    form = to_bytes(parse(case["input"].encode()))
    assert form.decode() == case["output"]
    assert to_bytes(parse(form)) == form


def test_numbers_are_written_as_ecmascript_writes_them():
    for bits, expected in NUMBERS:
        (number,) = struct.unpack(">d", bytes.fromhex(bits))
        assert to_bytes(number).decode() == expected, bits


def test_numbers_as_ecmascript_writes_them_are_read():
    for bits, text in NUMBERS:
        (number,) = struct.unpack(">d", bytes.fromhex(bits))
        assert parse(text.encode()) == number
        assert to_bytes(parse(text.encode())).decode() == text


def test_the_numbers_reach_every_corner():
    assert len(NUMBERS) == 1500
    values = [float(text) for _, text in NUMBERS]
    assert 0.0 in values
    assert min(abs(value) for value in values if value) == 5e-324
    assert max(values) == 1.7976931348623157e308
    assert any(value.is_integer() and abs(value) > MAX_INTEGER for value in values)
