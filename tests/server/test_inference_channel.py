"""Whoever has taken over a worker may send any bytes; none of them does harm to the server."""

import socket
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditor_server.errors import InferenceFailedError
from auditor_server.inference.channel import (
    LENGTHS,
    Channel,
    ChannelClosedError,
    ChannelError,
    ChannelFormatError,
    Deadline,
)
from auditor_server.inference.messages import Done, Refused, Reply
from auditor_server.inference.service import _array

DONE = Reply(outcome=Done(shape=(2,)))


@pytest.fixture(name="ends")
def fixture_ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


Ends = tuple[socket.socket, socket.socket]


def test_a_message_arrives_as_it_was_sent(ends: Ends) -> None:
    Channel(ends[1]).send(DONE, b"payload")
    assert Channel(ends[0]).receive(Reply, 7) == (DONE, b"payload")


def test_lengths_are_checked_before_anything_is_read(ends: Ends) -> None:
    Channel(ends[1]).send(DONE, b"payload")
    with pytest.raises(ChannelFormatError, match="7 announced"):
        Channel(ends[0]).receive(Reply, 6)


def test_a_length_that_no_memory_holds_is_refused(ends: Ends) -> None:
    ends[1].sendall(LENGTHS.pack(2**32 - 1, 2**64 - 1))
    with pytest.raises(ChannelFormatError, match="announced"):
        Channel(ends[0]).receive(Reply, 10)


def test_a_deadline_ends_the_wait(ends: Ends) -> None:
    ends[1].sendall(LENGTHS.pack(10, 0) + b"{")
    with pytest.raises(TimeoutError):
        Channel(ends[0]).receive(Reply, 0, Deadline(0.05))
    with pytest.raises(TimeoutError):
        Channel(ends[0]).send(DONE, bytes(2**24), Deadline(0.05))  # nobody reads it


def test_a_worker_that_has_gone_is_noticed_on_both_ways(ends: Ends) -> None:
    ends[1].close()
    with pytest.raises(ChannelClosedError):
        Channel(ends[0]).receive(Reply, 0)
    with pytest.raises(ChannelClosedError):
        Channel(ends[0]).send(DONE, bytes(2**20))


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_a_message_or_no_message(data: bytes, framed: bool) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            theirs.sendall(LENGTHS.pack(len(data), 0) + data if framed else data)
        with pytest.raises(ChannelError):
            Channel(ours).receive(Reply, 2**10)


@pytest.mark.parametrize(
    ("shape", "data"),
    [((2,), bytes(4)), ((1,), bytes(8)), ((), bytes(4)), ((1, 1), bytes(4)), ((1,), bytes(5))],
)
def test_an_array_of_another_shape_is_refused(shape: tuple[int, ...], data: bytes) -> None:
    assert _array(((1,), bytes(4)), np.float32, (1,), "asking").shape == (1,)
    with pytest.raises(InferenceFailedError, match="asking: expected an array"):
        _array((shape, data), np.float32, (1,), "asking")


def test_a_refusal_is_a_name_and_a_sentence() -> None:
    with pytest.raises(ValueError, match="at most 100"):
        Refused(error="E" * 101, detail="")
