"""What a container that was asked about pictures prints, and what is made of it."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from containers.errors import QueryAnswerError
from containers.query_task import answer_line, read_answer

OUTPUTS = bytes(range(24))
SHAPE = (2, 3)
LINE = answer_line(SHAPE, OUTPUTS).encode()

NO_ANSWERS: dict[str, bytes] = {
    "nothing": b"",
    "words": b"done\n",
    "an answer before other words": LINE + b"\ndone\n",
    "half an answer": LINE[: len(LINE) // 2],
    "another shape": answer_line((3, 2), OUTPUTS).encode(),
    "fewer numbers": answer_line(SHAPE, OUTPUTS[:-4]).encode(),
    "no base64": LINE.replace(base64.b64encode(OUTPUTS), b"%%%%"),
    "another field": LINE.replace(b"{", b'{"more": 1, ', 1),
}


def test_the_last_line_is_the_answer() -> None:
    assert read_answer(b"hello\n\n" + LINE + b"\n", SHAPE) == OUTPUTS


@pytest.mark.parametrize("printed", NO_ANSWERS.values(), ids=NO_ANSWERS.keys())
def test_anything_else_is_no_answer(printed: bytes) -> None:
    with pytest.raises(QueryAnswerError, match="expected"):
        read_answer(printed, SHAPE)


@given(st.binary())
def test_whatever_is_printed_there_is_one_kind_of_error(printed: bytes) -> None:
    with pytest.raises(QueryAnswerError):
        read_answer(printed, SHAPE)
