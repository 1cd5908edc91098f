"""Model files come from the audited party: no byte of them is believed."""

import io
import json
import pickle
import zipfile
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save

from auditor_server.errors import (
    MalformedHeaderError,
    NotSafetensorsError,
    TruncatedWeightsError,
    WeightsError,
)
from auditor_server.weights_file import TensorEntry, read_header

GENUINE = save(
    {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.ones(4, dtype=np.int64)},
    {"made": "by hand"},
)


def read(data: bytes) -> tuple[TensorEntry, ...]:
    return read_header(io.BytesIO(data), len(data))


def with_header(header: Any, data: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def tensor(dtype: Any = "F32", shape: Any = (1,), offsets: Any = (0, 4)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def test_a_genuine_file_is_read() -> None:
    found = {entry.name: (entry.dtype, entry.shape) for entry in read(GENUINE)}
    assert found == {"a": ("I64", (4,)), "b": ("F32", (2, 3))}


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=20).filter(lambda name: name != "__metadata__"),
        st.tuples(
            st.sampled_from(["<f4", "<f8", "<f2", "<i8", "|u1", "|b1"]),
            st.lists(st.integers(0, 4), max_size=3),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_all_that_safetensors_writes_is_read(kinds: dict[str, tuple[str, list[int]]]) -> None:
    data = save({name: np.zeros(shape, dtype) for name, (dtype, shape) in kinds.items()})
    assert {entry.name: entry.shape for entry in read(data)} == {
        name: tuple(shape) for name, (_, shape) in kinds.items()
    }


@given(st.data())
def test_a_damaged_file_is_refused_or_still_whole(data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(GENUINE) - 1))
    value = data.draw(st.integers(0, 255))
    damaged = GENUINE[:position] + bytes([value]) + GENUINE[position + 1 :]
    try:
        entries = read(damaged)
    except WeightsError:
        return
    # What passes here is what the library, too, takes for a whole file of the same tensors.
    assert {entry.name for entry in entries} == set(load(damaged))


@given(st.integers(0, len(GENUINE) - 1))
def test_every_cut_is_noticed(length: int) -> None:
    with pytest.raises(TruncatedWeightsError):
        read(GENUINE[:length])


@given(st.binary(max_size=200))
def test_noise_is_refused(noise: bytes) -> None:
    with pytest.raises(WeightsError):
        read(noise)


def test_a_pickle_is_named_and_not_opened() -> None:
    with pytest.raises(NotSafetensorsError, match="pickle file; auditkit never unpickles"):
        read(pickle.dumps({"weights": [0.0] * 10}, protocol=4))


def test_a_torch_archive_is_named_and_not_opened() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps([1, 2, 3]))
    with pytest.raises(NotSafetensorsError, match="zip file"):
        read(file.getvalue())


def test_a_header_may_begin_as_a_pickle_does() -> None:
    """A header of 640 bytes begins with 80 02, the opening of a pickle of protocol 2."""
    text = json.dumps({"a": tensor()}).encode().ljust(0x280)
    assert with_header(text, bytes(4)).startswith(b"\x80\x02")
    assert len(read(with_header(text, bytes(4)))) == 1


@pytest.mark.parametrize(
    ("header", "data"),
    [
        ({"a": tensor(), "b": tensor()}, 4),  # overlap
        ({"a": tensor(), "b": tensor(offsets=(2, 6))}, 6),  # partial overlap
        ({"a": tensor(), "b": tensor(offsets=(8, 12))}, 12),  # hole
        ({"a": tensor(offsets=(4, 8))}, 8),  # hole at the beginning
        ({"a": tensor()}, 5),  # bytes at the end
        ({"a": tensor(offsets=(4, 0))}, 4),
        ({"a": tensor(offsets=(-4, 0))}, 4),
        ({"a": tensor(offsets=(0, 4, 8))}, 8),
        ({"a": tensor(offsets=(False, 4))}, 4),
        ({"a": tensor(shape=(2,))}, 4),
        ({"a": tensor(shape=(-1,))}, 4),
        ({"a": tensor(shape=(2**40, 2**40))}, 4),
        ({"a": tensor(shape=(1,) * 9)}, 4),
        ({"a": tensor(dtype="OBJECT")}, 4),
        ({"a": tensor(dtype=["F32"])}, 4),
        ({"a": {**tensor(), "more": 1}}, 4),
        ({"a": 1}, 4),
        ({"__metadata__": {"a": 1}, "a": tensor()}, 4),
        ({}, 0),
        (b'{"a":' + b"[" * 50_000, 0),
        (b'{"a":1,"a":1}', 0),
        (b"{\xff}", 0),
    ],
)
def test_a_header_that_contradicts_itself_is_refused(header: Any, data: int) -> None:
    with pytest.raises(MalformedHeaderError):
        read(with_header(header, bytes(data)))
