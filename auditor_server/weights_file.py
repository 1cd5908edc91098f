"""Is a file from outside a sound safetensors file? Decided in plain Python, before torch sees it.

The format: 8 bytes little-endian header length, a JSON header that maps each tensor's name to
`dtype`, `shape` and `data_offsets`, and the tensors' bytes without overlap or hole
(safetensors, README, section "Format").
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, BinaryIO

from auditkit.evidence import canonical
from auditkit.evidence.errors import CanonicalFormError
from auditor_server.errors import (
    MalformedHeaderError,
    NotSafetensorsError,
    TruncatedWeightsError,
)

LENGTH_BYTES = 8
# A header takes about 100 bytes per tensor: room for 100,000 tensors.
MOST_HEADER_BYTES = 10_000_000
MOST_DIMENSIONS = 8
METADATA = "__metadata__"
ITEM_BYTES = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "U16": 2,
    "I16": 2,
    "F16": 2,
    "BF16": 2,
    "U32": 4,
    "I32": 4,
    "F32": 4,
    "U64": 8,
    "I64": 8,
    "F64": 8,
}
PICKLE_OPENING = b"\x80"
ZIP_OPENING = b"PK"
HEADER_OPENING = b"{"


@dataclass(frozen=True)
class TensorEntry:
    """One tensor: where its bytes lie, counted from the end of the header."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def read_header(file: BinaryIO, file_bytes: int) -> tuple[TensorEntry, ...]:
    """Return the tensors of a safetensors file, in the order of their bytes.

    Args:
        file: at its beginning; only the header is read.
        file_bytes: size of the whole file.

    Raises:
        NotSafetensorsError: a pickle, a zip archive, or something else.
        TruncatedWeightsError: the file ends before its header or its tensors do.
        MalformedHeaderError: the header is not what the format demands.

    """
    opening = file.read(LENGTH_BYTES + 1)
    if len(opening) <= LENGTH_BYTES:
        raise TruncatedWeightsError(
            f"expected a safetensors file, found {file_bytes} bytes; send the whole file"
        )
    length = int.from_bytes(opening[:LENGTH_BYTES], "little")
    if length > MOST_HEADER_BYTES or opening[LENGTH_BYTES:] != HEADER_OPENING:
        raise NotSafetensorsError(_what_it_is(opening))
    if LENGTH_BYTES + length > file_bytes:
        raise TruncatedWeightsError(
            f"the header has {length} bytes, the whole file only {file_bytes}; send all of it"
        )
    header = opening[LENGTH_BYTES:] + file.read(length - 1)
    tensors = tuple(sorted(_entries(header), key=lambda tensor: (tensor.begin, tensor.end)))
    _check_layout(tensors, file_bytes - LENGTH_BYTES - length)
    return tensors


def _what_it_is(opening: bytes) -> str:
    if opening.startswith(ZIP_OPENING):
        kind = "a zip file (as torch.save writes it)"
    elif opening.startswith(PICKLE_OPENING):
        kind = "a pickle file"
    else:
        kind = "another kind of file"
    return (
        f"expected a safetensors file, this is {kind}; auditkit never unpickles, "
        "save the weights with safetensors"
    )


def _entries(header: bytes) -> Iterator[TensorEntry]:
    try:
        document = canonical.parse(header, MOST_HEADER_BYTES)
    except CanonicalFormError as error:
        raise MalformedHeaderError(f"the header is not a JSON object: {error}") from error
    if not isinstance(document, dict):
        raise MalformedHeaderError("expected the header as a JSON object, found another value")
    for name, value in document.items():
        if name == METADATA:
            _check_metadata(value)
        else:
            yield _entry(name, value)


def _check_metadata(value: object) -> None:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise MalformedHeaderError("expected the metadata to map texts to texts")


def _entry(name: str, value: Any) -> TensorEntry:  # noqa: ANN401 - any JSON value
    label = repr(name[:80])
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise MalformedHeaderError(f"tensor {label}: expected dtype, shape and data_offsets")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise MalformedHeaderError(
            f"tensor {label}: expected a dtype out of {', '.join(ITEM_BYTES)}, found "
            f"{str(dtype)[:20]!r}"
        )
    if not _are_counts(shape) or len(shape) > MOST_DIMENSIONS:
        raise MalformedHeaderError(
            f"tensor {label}: expected at most {MOST_DIMENSIONS} sizes of dimensions"
        )
    if not _are_counts(offsets) or len(offsets) != 2:
        raise MalformedHeaderError(f"tensor {label}: expected two offsets")
    expected = math.prod(shape) * ITEM_BYTES[dtype]
    if offsets[1] - offsets[0] != expected:
        raise MalformedHeaderError(
            f"tensor {label}: its shape takes {expected} bytes, its offsets span "
            f"{offsets[1] - offsets[0]}"
        )
    return TensorEntry(name, dtype, tuple(shape), offsets[0], offsets[1])


def _are_counts(value: object) -> bool:
    # bool is an int in Python, and no count.
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _check_layout(tensors: tuple[TensorEntry, ...], data_bytes: int) -> None:
    if not tensors:
        raise MalformedHeaderError("the file holds no tensors")
    if tensors[0].begin != 0:
        raise MalformedHeaderError(f"{tensors[0].begin} bytes before the first tensor are unused")
    for before, after in pairwise(tensors):
        if after.begin != before.end:
            raise MalformedHeaderError(
                f"tensor {after.name[:80]!r} begins at {after.begin}, the one before it ends at "
                f"{before.end}: tensors must neither overlap nor leave holes"
            )
    end = max(tensor.end for tensor in tensors)
    if end > data_bytes:
        raise TruncatedWeightsError(
            f"the weights file is cut short: its tensors take {end} bytes, {data_bytes} are "
            "there; send the whole file"
        )
    if end < data_bytes:
        raise MalformedHeaderError(f"{data_bytes - end} bytes follow the last tensor")
