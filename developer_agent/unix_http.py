"""HTTP over a Unix socket, for `requests`: the only network of a closed container."""

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool
from urllib3.exceptions import NewConnectionError

HOST_NAME = "relay"
"""Name of the host in requests. HTTP demands one (RFC 9112, section 3.2); a socket has none."""


class UnixSocketAdapter(HTTPAdapter):
    """Sends every request of a `requests` session to one Unix socket, whatever host it names."""

    def __init__(self, path: Path) -> None:
        """Remember where the socket is; nothing is connected yet."""
        super().__init__()
        self._pool = _UnixConnectionPool(HOST_NAME, socket_path=path)

    def get_connection_with_tls_context(
        self,
        request: requests.PreparedRequest,  # noqa: ARG002 - all requests go to one place
        verify: bool | str | None,  # noqa: ARG002
        proxies: Mapping[str, str] | None = None,  # noqa: ARG002
        cert: Any = None,  # noqa: ARG002, ANN401 - its type has no public name
    ) -> HTTPConnectionPool:
        """Return the pool of connections to the socket."""
        return self._pool

    def close(self) -> None:
        """Close idle connections."""
        self._pool.close()
        super().close()


class _UnixConnection(HTTPConnection):
    def __init__(self, *args: Any, socket_path: Path, **options: Any) -> None:  # noqa: ANN401
        super().__init__(*args, **options)
        self._socket_path = socket_path

    def connect(self) -> None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(self.timeout)
        try:
            connection.connect(str(self._socket_path))
        except OSError as error:
            connection.close()
            raise NewConnectionError(self, f"{self._socket_path}: {error}") from error
        self.sock = connection


class _UnixConnectionPool(HTTPConnectionPool):
    # What the pool is given beyond its own options, it hands to each new connection.
    ConnectionCls = _UnixConnection
