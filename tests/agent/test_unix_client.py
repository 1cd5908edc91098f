"""The client over a Unix socket."""

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer

import pytest

from developer_agent.client import ServerClient
from developer_agent.errors import ServerRefusedError, ServerUnreachableError


class Server(ThreadingUnixStreamServer):
    daemon_threads = True
    block_on_close = False
    connections = 0
    status = 200
    body = b"{}"

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), Handler)
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append((self.command, self.path, dict(self.headers), body))
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    do_POST = do_GET  # noqa: N815 - a name that http.server prescribes

    def log_message(self, *_: object) -> None:
        """Keep the test output clean."""


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)  # the path of a socket is limited to some 100 characters
    return Path("s")


@pytest.fixture
def server(path: Path) -> Iterator[Server]:
    with Server(path) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def client(server: Server, path: Path) -> Iterator[ServerClient]:
    with ServerClient("https://audit.example.org/prefix", socket=path, timeout=5.0) as client:
        yield client


def test_calls_go_over_the_socket_whatever_the_address_and_the_proxies(
    server: Server, client: ServerClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine relay login someone password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    server.body = b"an order"
    assert client.order("one") == b"an order"
    assert client.continue_session("a session", b'{"exact": 1.0}') == b"an order"
    assert [(method, path, body) for method, path, _, body in server.asked] == [
        ("GET", "/v1/orders/one", b""),
        ("POST", "/v1/sessions/a%20session/continuations", b'{"exact": 1.0}'),
    ]
    for _, _, headers, _ in server.asked:
        assert "Authorization" not in headers
        assert headers["Host"] == "relay"
    assert server.asked[1][2]["Content-Type"] == "application/json"
    assert server.connections == 1, "an open connection is used again"


@pytest.mark.parametrize("status", [404, 403, 500])
def test_only_not_ready_means_no_launch_document_yet(
    server: Server, client: ServerClient, status: int
) -> None:
    server.status = 503
    assert client.launch_document() is None
    server.status = status
    with pytest.raises(ServerRefusedError):
        client.launch_document()
    server.status, server.body = 200, b"{}"
    assert client.launch_document() == b"{}"
    assert {asked[:2] for asked in server.asked} == {("GET", "/launch")}


def test_a_socket_that_nobody_serves_is_a_passing_trouble(path: Path) -> None:
    with ServerClient("http://relay", socket=path) as client:
        with pytest.raises(ServerUnreachableError, match="http://relay was not reached") as caught:
            client.order("one")
        assert caught.value.temporary
        with socket.socket(socket.AF_UNIX) as left_behind:
            left_behind.bind(str(path))
        with pytest.raises(ServerUnreachableError, match="refused") as caught:
            client.order("one")
        assert caught.value.temporary


def test_a_socket_that_is_silent_is_not_waited_for_long(path: Path) -> None:
    with (
        socket.socket(socket.AF_UNIX) as silent,
        ServerClient("http://relay", timeout=0.05, socket=path) as client,
    ):
        silent.bind(str(path))
        silent.listen()
        with pytest.raises(ServerUnreachableError, match="did not answer in time"):
            client.order("one")
