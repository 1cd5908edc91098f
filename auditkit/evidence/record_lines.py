"""Reading a line of a log: one valid record, in the one byte form that it can have."""

import re
from operator import itemgetter

from pydantic import ValidationError

from auditkit.evidence.canonical import MAX_INTEGER, to_bytes
from auditkit.evidence.errors import CanonicalFormError
from auditkit.evidence.log_checks import LogIncompleteError
from schemas import AnyRecord, StepRecord, parse_record

_STEP_FORM = (
    '{"batch":"%s","epoch":%d,"kind":"%s","learning_rate":%r,"mint_accuracy":%r,"mint_loss":%r,'
    '"mint_weight":%r,"objective":%r,"schema_version":%d,"sequence":%d,"step":%d,'
    '"task_accuracy":%r,"task_loss":%r,"task_weight":%r,"time_ms":%d}'
)
"""Members that a step always has, in their order. Lines with others are not told by it."""

_step_values = itemgetter(*re.findall(r'"(\w+)":', _STEP_FORM))


class RecordFormatError(LogIncompleteError):
    """A line of the log is not a valid record."""


def parse_line(line: bytes, index: int) -> AnyRecord:
    """Return the record of a line.

    Args:
        line: without its newline.
        index: place in the log, for messages.

    Raises:
        RecordFormatError: not a record, or not in RFC 8785 form.
    """
    try:
        record = parse_record(line)
        if is_plain_form(line, record) or to_bytes(record) == line:
            return record
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in problem["loc"]) or "the line"
        raise RecordFormatError(
            f"record {index} is not valid, {place}: {problem['msg']}; the log was damaged or "
            "written by another program"
        ) from error
    except CanonicalFormError as error:
        raise RecordFormatError(f"record {index} is not valid: {error}") from error
    raise RecordFormatError(
        f"record {index} is not in RFC 8785 form, so two readers may read it differently"
    )


def is_plain_form(line: bytes, record: AnyRecord) -> bool:
    """Tell quickly, for nearly every record of a step, that the line is its RFC 8785 form.

    Writing a record in RFC 8785 form takes ten times as long as reading it, and nearly all lines of
    a log are steps. Where Python and ECMAScript write each number alike, one template is enough.

    Args:
        line: that the record was read from.
        record: valid.

    Returns:
        True: the line is the form. False: it is not, or that cannot be told like this.
    """
    if not isinstance(record, StepRecord) or record.step > MAX_INTEGER:
        return False
    text = _STEP_FORM % _step_values(record.__dict__)
    # Python writes other exponents than ECMAScript, and a negative zero with its sign.
    if "e-" in text or "e+" in text or "-0.0," in text:
        return False
    # No text in a step has a point in it, and the last number is a whole one.
    return bool(text.replace(".0,", ",").encode() == line)
