"""Reading HTTP/1.1 requests (RFC 9112) as strictly as one known client allows.

Both ends are ours, so whatever two parsers might understand differently is refused instead: other
versions, other forms of target, chunked bodies, folded or repeated header fields, bare newlines.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import BinaryIO

from developer_agent.errors import AgentError
from developer_agent.relay_routes import RelayRefusedError

MOST_LINE_BYTES = 4096
MOST_HEADERS = 50

# Origin-form targets without query (RFC 9112, section 3.2.1), of the characters that our own paths
# are made of: no percent-encoding, no other host, no CONNECT.
_REQUEST_LINE = re.compile(rb"([A-Z]{1,20}) (/[A-Za-z0-9._/-]*) HTTP/1\.1\r\n")
# RFC 9110, sections 5.1 and 5.5, without obsolete characters.
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\x21-\x7e\t ]*?)[ \t]*\r\n")
_LENGTH = re.compile(r"[0-9]{1,15}")
_END_OF_HEAD = b"\r\n"


class RequestBrokenOffError(AgentError):
    """The connection ended within a request."""


@dataclass(frozen=True)
class RequestHead:
    """A request without its body; names of header fields are in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]

    @property
    def body_bytes(self) -> int:
        """Length of the body that follows."""
        return int(self.headers.get("content-length", "0"))

    @property
    def closes(self) -> bool:
        """True when the client will close the connection after the answer."""
        return self.headers.get("connection", "").lower() == "close"


def read_head(stream: BinaryIO) -> RequestHead | None:
    """Read the next request up to its body; None when the connection ends in front of it.

    Raises:
        RelayRefusedError: the head is not of the form above, or is too large.
        RequestBrokenOffError: the connection ends within the head.
    """
    line = _read_line(stream)
    if not line:
        return None
    found = _REQUEST_LINE.fullmatch(line)
    if found is None:
        raise RelayRefusedError(
            "expected a request line like `GET /v1/orders/one HTTP/1.1`, its target a plain path; "
            f"found {line!r:.200}"
        )
    headers: dict[str, str] = {}
    while (line := _read_line(stream)) != _END_OF_HEAD:
        field = _HEADER.fullmatch(line)
        if field is None:
            if not line:
                raise RequestBrokenOffError("the connection ended within a request's head")
            raise RelayRefusedError(
                f"expected a header field of printable characters, found {line!r:.200}",
                HTTPStatus.BAD_REQUEST,
            )
        name = field[1].decode("ascii").lower()
        if name in headers or len(headers) == MOST_HEADERS:
            raise RelayRefusedError(
                f"expected at most {MOST_HEADERS} header fields, each once; found another {name}",
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
            )
        headers[name] = field[2].decode("ascii")
    _check_framing(headers)
    return RequestHead(found[1].decode("ascii"), found[2].decode("ascii"), headers)


class RequestBody:
    """A body on its way through, read once and never held as a whole.

    Has the length and the methods by which `requests` streams a body of known length.
    """

    def __init__(self, stream: BinaryIO, length: int) -> None:
        """Read `length` bytes of a stream, as they are asked for."""
        self._stream = stream
        self._length = length
        self.remaining = length

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[bytes]:
        while block := self.read(MOST_LINE_BYTES):
            yield block

    def read(self, size: int) -> bytes:
        """Return the next `size` bytes, fewer at the end.

        Raises:
            RequestBrokenOffError: the connection ends, or stalls, before the body does.
        """
        wanted = min(size, self.remaining)
        try:
            block = self._stream.read(wanted)
        except OSError as error:
            raise RequestBrokenOffError(f"the body stalled or was cut off: {error}") from error
        if len(block) < wanted:
            raise RequestBrokenOffError(
                f"the body ended {self.remaining - len(block)} of {self._length} bytes too early"
            )
        self.remaining -= wanted
        return block


def _read_line(stream: BinaryIO) -> bytes:
    try:
        line = stream.readline(MOST_LINE_BYTES + 1)
    except OSError as error:
        raise RequestBrokenOffError(f"the request stalled or was cut off: {error}") from error
    if len(line) > MOST_LINE_BYTES:
        raise RelayRefusedError(
            f"expected lines of at most {MOST_LINE_BYTES} bytes in a request's head",
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
        )
    return line


def _check_framing(headers: Mapping[str, str]) -> None:
    if "transfer-encoding" in headers:
        raise RelayRefusedError(
            "expected a body with Content-Length, found Transfer-Encoding",
            HTTPStatus.LENGTH_REQUIRED,
        )
    for name in ("upgrade", "expect"):
        if name in headers:
            raise RelayRefusedError(f"the relay passes on plain requests, found {name}")
    length = headers.get("content-length", "0")
    if not _LENGTH.fullmatch(length):
        raise RelayRefusedError(
            f"expected a whole number of bytes as Content-Length, found {length!r:.50}",
            HTTPStatus.BAD_REQUEST,
        )
