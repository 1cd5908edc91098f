"""A line of a log is read in its RFC 8785 form only; the quick way to tell is no more lenient."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditkit.evidence.canonical import MAX_INTEGER, to_bytes
from auditkit.evidence.errors import CanonicalFormError
from auditkit.evidence.record_lines import RecordFormatError, is_plain_form, parse_line
from schemas import StepRecord

DIGEST = "5a" * 32
# Where Python and ECMAScript part, and where doubles end.
ODD_NUMBERS = (
    0.0, -0.0, 1.0, -1.0, 1e-4, 9.999e-5, 1e-5, 1e-6, 1e-7, 1e15, 1e16, 1e17, 1e20, 1e21, 1e22,
    123456789012345680.0, 5e-324, 1.7976931348623157e308, 0.1, 2.0**53, 10.0, 100.05, -10.0,
)  # fmt: skip
NUMBERS = st.sampled_from(ODD_NUMBERS) | st.floats(allow_nan=False, allow_infinity=False)
FRACTIONS = st.sampled_from((0.0, -0.0, 1.0, 1e-5, 0.5)) | st.floats(0.0, 1.0)
COUNTS = st.integers(0, MAX_INTEGER)
DIGESTS = st.sampled_from((DIGEST, "3e" * 32, "0" * 64))
STEPS = st.builds(
    StepRecord,
    sequence=COUNTS,
    time_ms=COUNTS,
    step=st.integers(1, 2**54),
    epoch=COUNTS,
    batch=DIGESTS,
    task_loss=NUMBERS,
    mint_loss=NUMBERS,
    objective=NUMBERS,
    task_accuracy=FRACTIONS,
    mint_accuracy=FRACTIONS,
    learning_rate=NUMBERS,
    task_weight=NUMBERS,
    mint_weight=NUMBERS,
    activations=st.none() | DIGESTS,
    gradient=st.none() | DIGESTS,
)
HONEST = StepRecord(
    sequence=3, time_ms=5, step=1, epoch=0, batch=DIGEST, task_loss=2.5, mint_loss=0.75,
    objective=2.0, task_accuracy=0.5, mint_accuracy=1.0, learning_rate=0.1, task_weight=1.0,
    mint_weight=1.0,
)  # fmt: skip
LINE = to_bytes(HONEST)


def spellings(record):
    """The same record as several writers would write it, canonical or not."""
    fields = {name: value for name, value in record if value is not None}
    ordered = dict(sorted(fields.items()))
    yield json.dumps(ordered, separators=(",", ":")).encode()
    yield json.dumps(ordered, separators=(",", ":")).replace(".0,", ",").encode()
    yield json.dumps(fields, separators=(",", ":")).encode()
    yield json.dumps(ordered).encode()
    yield record.model_dump_json().encode()


@given(STEPS)
@settings(deadline=None, derandomize=True, max_examples=500)
def test_the_quick_way_accepts_nothing_but_the_form(record):
    try:
        form = to_bytes(record)
    except CanonicalFormError:
        form = None  # a whole number that no reader of JSON holds exactly
    for line in (*spellings(record), *([] if form is None else [form])):
        if is_plain_form(line, record):
            assert line == form
        if line == form:
            assert parse_line(line, 0) == record
        else:
            with pytest.raises(RecordFormatError):
                parse_line(line, 0)


def test_the_quick_way_is_taken_for_ordinary_steps():
    assert is_plain_form(LINE, HONEST)
    assert parse_line(LINE, 0) == HONEST


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"task_loss":2.5', b'"task_loss":2.50'),
        (b'"task_loss":2.5', b'"task_loss":25e-1'),
        (b'"task_loss":2.5', b'"task_loss": 2.5'),
        (b'"task_weight":1,', b'"task_weight":1.0,'),
        (b'"task_loss":2.5', b'"task_loss":-0'),
        (b'"task_loss":2.5', b'"task_loss":NaN'),
        (b'"task_loss":2.5', b'"task_loss":1e999'),
        (b'"task_loss":2.5', b'"task_loss":2.5,"task_loss":2.5'),
        (b'"epoch":0', b'"epoch":0.0'),
        (b'"epoch":0', b'"epoch":false'),
        (b'"epoch":0', b'"epoch":0,"extra":1'),
        (b'"epoch":0,', b""),
        (b'"step":1,', b'"step":9007199254740993,'),
        (b'"kind":"step"', b'"kind":"st\\u0065p"'),
        (b'{"batch"', b'{"activations":null,"batch"'),
        (b'"epoch":0,"kind":"step"', b'"kind":"step","epoch":0'),
        (b"}", b"} "),
        (b"}", b"}}"),
    ],
)
def test_other_spellings_and_fields_are_refused(old, new):
    with pytest.raises(RecordFormatError, match="record 7"):
        parse_line(LINE.replace(old, new, 1), 7)
