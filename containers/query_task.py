"""A question to a model that is made of the developer's own code: what lies there, what is printed.

The closed container finds three files in the one folder that it may read, and writes nothing. Its
answer is the last line that it prints: whatever the developer's code prints as well comes before.

| file | what it is |
|---|---|
| `query.json` | how the model is built: `QueryTask` |
| `weights.safetensors` | the submitted weights of M+ |
| `pictures` | uint8 pixels of all pictures, each (H, W, C), one after the other |
"""

import base64
import binascii
import math
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from containers.errors import QueryAnswerError
from schemas import Normalisation, SessionGrant, SessionRequest
from schemas.base import Schema

TASK, WEIGHTS, PICTURES = "query.json", "weights.safetensors", "pictures"
FLOAT_BYTES = 4


class QueryTask(Schema):
    """How to build a model and run it once."""

    schema_version: Literal[1] = 1
    request: SessionRequest
    grant: SessionGrant
    normalisation: Normalisation
    loop: str = Field(description="the developer's training loop, a file of the image")


class QueryOutputs(Schema):
    """What T says of each picture."""

    schema_version: Literal[1] = 1
    shape: tuple[int, ...] = Field(description="(n,) logits, or (n, length) of codes")
    outputs: str = Field(description="float32, little-endian, in base64")


def lay_out(folder: Path, task: bytes, weights: bytes, pictures: bytes) -> None:
    """Write the files of one question."""
    for name, data in ((TASK, task), (WEIGHTS, weights), (PICTURES, pictures)):
        (folder / name).write_bytes(data)


def answer_line(shape: tuple[int, ...], outputs: bytes) -> str:
    """Return the line that answers a question.

    Args:
        shape: of the outputs.
        outputs: float32, little-endian.
    """
    answer = QueryOutputs(shape=shape, outputs=base64.b64encode(outputs).decode())
    return answer.model_dump_json()


def read_answer(printed: bytes, shape: tuple[int, ...]) -> bytes:
    """Return the outputs from what a container has printed: float32, little-endian.

    Args:
        printed: all of it.
        shape: that they must have.

    Raises:
        QueryAnswerError: its last line is no answer, or one of another shape.
    """
    last = printed.rstrip(b"\n").rpartition(b"\n")[2]
    try:
        answer = QueryOutputs.from_bytes(last)
        outputs = base64.b64decode(answer.outputs, validate=True)
    except (ValidationError, binascii.Error) as error:
        raise QueryAnswerError(
            "expected an answer in the last line that the developer's image prints, found none; "
            "was the image made with a version of auditkit that answers questions?"
        ) from error
    if answer.shape != shape or len(outputs) != FLOAT_BYTES * math.prod(shape):
        raise QueryAnswerError(
            f"expected outputs {shape} of the developer's model, found {answer.shape} in "
            f"{len(outputs)} bytes"
        )
    return outputs
