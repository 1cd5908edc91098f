"""Framed messages over a socket: a length, one JSON object, and raw bytes. Nothing is unpickled.

    4 bytes   length of the JSON text, big-endian
    8 bytes   length of the payload, big-endian
    ...       the JSON text, then the payload

Both lengths are checked before anything is read into memory: the other side may be in the hands of
whoever made the file that it opened.
"""

import socket
import struct
import time
from typing import TypeVar

from pydantic import BaseModel, ValidationError

LENGTHS = struct.Struct(">IQ")
# The longest message is a reply with a refusal in words.
MOST_HEADER_BYTES = 64 * 2**10
# A body of ample size, and still far below what a broken length could ask for.
MOST_RECEIVED_AT_ONCE = 2**20

M = TypeVar("M", bound=BaseModel)


class ChannelError(Exception):
    """Base of what can go wrong on a channel; it never leaves the server's own code."""


class ChannelClosedError(ChannelError):
    """The other side has gone."""


class ChannelFormatError(ChannelError):
    """The other side has sent something that is no such message."""


class Deadline:
    """A moment after which nothing is waited for any more."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def remaining(self) -> float:
        """Return the seconds that are left.

        Raises:
            TimeoutError: none are.

        """
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


class Channel:
    """One end of a connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def send(
        self, message: BaseModel, payload: bytes = b"", deadline: Deadline | None = None
    ) -> None:
        """Send a message.

        Raises:
            ChannelClosedError: the other side has gone.
            TimeoutError: the deadline has passed.

        """
        header = message.model_dump_json().encode()
        for part in (LENGTHS.pack(len(header), len(payload)) + header, payload):
            self._wait_until(deadline)
            try:
                self._connection.sendall(part)
            except TimeoutError:
                raise
            except OSError as error:
                raise ChannelClosedError(str(error)) from error

    def receive(
        self, model: type[M], most_payload_bytes: int, deadline: Deadline | None = None
    ) -> tuple[M, bytes]:
        """Wait for a message.

        Raises:
            ChannelClosedError: the other side has gone.
            ChannelFormatError: not such a message, or a longer one.
            TimeoutError: the deadline has passed.

        """
        lengths = self._read(LENGTHS.size, deadline)
        header_bytes, payload_bytes = LENGTHS.unpack(lengths)
        if header_bytes > MOST_HEADER_BYTES or payload_bytes > most_payload_bytes:
            raise ChannelFormatError(
                f"expected at most {MOST_HEADER_BYTES} and {most_payload_bytes} bytes, found "
                f"{header_bytes} and {payload_bytes} announced"
            )
        header = self._read(header_bytes, deadline)
        payload = self._read(payload_bytes, deadline)
        try:
            return model.model_validate_json(header), payload
        except ValidationError as error:
            raise ChannelFormatError(f"not a {model.__name__}: {error}") from error

    def close(self) -> None:
        """Let the other side know that nothing more will come."""
        self._connection.close()

    def _read(self, count: int, deadline: Deadline | None) -> bytes:
        received = bytearray()
        while len(received) < count:
            self._wait_until(deadline)
            try:
                part = self._connection.recv(min(count - len(received), MOST_RECEIVED_AT_ONCE))
            except TimeoutError:
                raise
            except OSError as error:
                raise ChannelClosedError(str(error)) from error
            if not part:
                raise ChannelClosedError("the connection was closed")
            received += part
        return bytes(received)

    def _wait_until(self, deadline: Deadline | None) -> None:
        self._connection.settimeout(None if deadline is None else deadline.remaining())
