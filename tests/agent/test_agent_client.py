"""The client against a server that answers what the test says."""

import base64
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from developer_agent.client import ServerClient
from developer_agent.errors import (
    NotAuthorisedError,
    ServerRefusedError,
    ServerUnreachableError,
    UnexpectedAnswerError,
)


@dataclass
class Answers:
    """What the server says next, and what it was asked."""

    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def server() -> Iterator[Answers]:
    answers = Answers()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            answers.asked.append((self.command, self.path, dict(self.headers), body))
            self.send_response(answers.status)
            for name, value in answers.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answers.body)))
            self.end_headers()
            self.wfile.write(answers.body)

        do_POST = do_PUT = do_GET  # noqa: N815 - names that http.server prescribes

        def log_message(self, *_: object) -> None:
            """Keep the test output clean."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever, args=(0.02,))
    thread.start()
    answers.url = f"http://127.0.0.1:{http.server_address[1]}"
    yield answers
    http.shutdown()
    http.server_close()
    thread.join()


@pytest.fixture
def client(server: Answers) -> Iterator[ServerClient]:
    with ServerClient(server.url + "/", "secret-token", timeout=5.0) as client:
        yield client


def test_the_token_goes_along_even_where_a_netrc_file_knows_the_host(
    server: Answers, client: ServerClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    client.order("order/../1")
    method, path, headers, _ = server.asked[0]
    assert (method, path) == ("GET", "/v1/orders/order%2F..%2F1")
    assert headers["Authorization"] == "Bearer secret-token"


def test_no_token_no_header(server: Answers) -> None:
    server.body = b'{"status": "ok"}'
    assert ServerClient(server.url).healthy()
    assert "Authorization" not in server.asked[0][2]


def test_problem_details_become_a_typed_error(server: Answers, client: ServerClient) -> None:
    server.status = 409
    server.body = json.dumps(
        {
            "type": "urn:auditkit:error:ForkError",
            "title": "Two histories",
            "status": 409,
            "detail": "record 7 differs",
        }
    ).encode()
    with pytest.raises(ServerRefusedError, match="record 7 differs") as caught:
        client.status("s")
    assert caught.value.status == 409
    assert caught.value.error_name == "ForkError"
    assert caught.value.detail == "record 7 differs"
    assert not caught.value.temporary


@pytest.mark.parametrize("body", [b"", b"<html>Bad gateway</html>", b"[1]", b"\xff\xfe"])
@pytest.mark.parametrize(
    ("status", "temporary"), [(502, True), (429, True), (408, True), (404, False), (413, False)]
)
def test_refusals_by_something_in_between(
    server: Answers, client: ServerClient, status: int, temporary: bool, body: bytes
) -> None:
    server.status, server.body = status, body
    with pytest.raises(ServerRefusedError) as caught:
        client.trust_root()
    assert caught.value.temporary is temporary


@pytest.mark.parametrize(
    ("status", "name", "authorised"),
    [
        (401, "NotAuthenticatedError", False),
        (403, "NotAllowedError", False),
        (403, "SessionExpiredError", True),
    ],
)
def test_a_wrong_token_is_told_from_a_session_that_is_over(
    server: Answers, client: ServerClient, status: int, name: str, authorised: bool
) -> None:
    server.status = status
    server.body = json.dumps({"type": f"urn:auditkit:error:{name}", "detail": "no"}).encode()
    with pytest.raises(ServerRefusedError) as caught:
        client.sessions()
    assert isinstance(caught.value, NotAuthorisedError) is not authorised
    assert not caught.value.temporary


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_are_not_followed(server: Answers, client: ServerClient, status: int) -> None:
    server.status = status
    server.headers = {"Location": server.url + "/elsewhere"}
    with pytest.raises(UnexpectedAnswerError, match="elsewhere"):
        client.trust_root()
    assert len(server.asked) == 1


def test_a_server_that_is_not_there_is_named_with_what_to_do() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as unused:
        url = f"http://127.0.0.1:{unused.server_address[1]}"
    with pytest.raises(ServerUnreachableError, match=f"{url} was not reached.*check") as caught:
        ServerClient(url, "token").healthy()
    assert caught.value.temporary


def test_a_plain_server_under_https_is_not_spoken_to(server: Answers) -> None:
    secure = server.url.replace("http:", "https:")
    with pytest.raises(ServerUnreachableError, match=secure):
        ServerClient(secure, "token").healthy()
    assert server.asked == []


@pytest.mark.parametrize(
    "url", ["", "audit.example.org", "ftp://audit.example.org", "https://", "http://[::"]
)
def test_what_is_no_address_is_refused_at_once(url: str) -> None:
    with pytest.raises(ServerUnreachableError, match="no server address"):
        ServerClient(url)


@pytest.mark.parametrize(
    "body", [b"<html>sign in</html>", b"", b"3", b'{"some": "thing"}', b"\xff"]
)
def test_an_answer_of_another_kind_is_not_believed(
    server: Answers, client: ServerClient, body: bytes
) -> None:
    server.body = body
    for call in (client.sessions, lambda: client.verification("s")):
        with pytest.raises(UnexpectedAnswerError):
            call()


def test_opening_a_session_sends_the_exact_request(server: Answers, client: ServerClient) -> None:
    server.status, server.body = 201, b"grant"
    assert client.open_session("order-1", b'{"a":1.0}', b"\0" * 64, b"\1" * 32) == b"grant"
    sent = json.loads(server.asked[0][3])
    assert sent["request"] == '{"a":1.0}'
    assert base64.b64decode(sent["pool_leaves"]) == b"\0" * 64
    assert base64.b64decode(sent["test_leaves"]) == b"\1" * 32


def test_submitting_streams_the_three_files(
    server: Answers, client: ServerClient, tmp_path: Path
) -> None:
    server.status = 422
    paths = [tmp_path / name for name in ("weights.safetensors", "description.json", "scores.st")]
    for path in paths:
        path.write_bytes(path.name.encode())
    with pytest.raises(ServerRefusedError):
        client.submit("s", *paths)
    method, path, _, body = server.asked[0]
    assert (method, path) == ("PUT", "/v1/sessions/s/submission")
    for part in (b'name="weights"', b'name="description"', b'name="scores"'):
        assert part in body
