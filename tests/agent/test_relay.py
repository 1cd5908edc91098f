"""The relay process: what it lets through, what it refuses, and that it is hard to get rid of."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import NoneType
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from relay_world import (
    ORDER,
    SESSION,
    TOKEN,
    Upstream,
    exchange,
    grant,
    launch_document,
    problem_of,
    relay_to,
    status_of,
    upstream_server,
)

from developer_agent.client import ServerClient
from developer_agent.errors import ServerError, ServerRefusedError, ServerUnreachableError
from developer_agent.launch_document import LaunchDocument
from developer_agent.relay import Relay, RelayStartError
from developer_agent.relay_server import MOST_CONNECTIONS, RelaySettings
from schemas import AppendRequest

MEBIBYTE = 2**20
WAIT_SECONDS = 60  # for what must come; far above what a loaded machine needs
RECORDS = AppendRequest(first=0, records=("{}",), checkpoint="note")
ALLOWED = {
    ("GET", f"/v1/orders/{ORDER}"),
    ("GET", "/v1/trust-root"),
    ("GET", "/v1/trust-root/2"),
    ("GET", f"/v1/sessions/{SESSION}"),
    ("POST", f"/v1/sessions/{SESSION}/records"),
    ("POST", f"/v1/sessions/{SESSION}/continuations"),
    ("POST", f"/v1/sessions/{SESSION}/membership-codes"),
    ("PUT", f"/v1/sessions/{SESSION}/submission"),
    ("GET", f"/v1/sessions/{SESSION}/verification"),
}


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with upstream_server() as upstream:
        yield upstream


@pytest.fixture
def relay(upstream: Upstream) -> Iterator[Relay]:
    """A relay that goes on with a session."""
    with relay_to(upstream.url, session_id=SESSION) as relay:
        yield relay


@pytest.fixture
def fresh(upstream: Upstream) -> Iterator[Relay]:
    """A relay in front of a session."""
    with relay_to(upstream.url) as relay:
        yield relay


def answered(call: Callable[[], bytes]) -> bool:
    try:
        call()
    except ServerError as error:
        if not error.temporary:
            raise
        return False
    return True


@pytest.fixture(scope="module")
def lasting() -> Iterator[tuple[Upstream, Relay]]:
    with upstream_server() as upstream, relay_to(upstream.url, session_id=SESSION) as relay:
        yield upstream, relay


@pytest.fixture
def standing(lasting: tuple[Upstream, Relay]) -> tuple[Upstream, Relay]:
    """A relay that goes on with a session, for tests that leave it as it is."""
    lasting[0].arrivals.clear()
    return lasting


def client_of(relay: Relay) -> ServerClient:
    return ServerClient("http://relay", socket=relay.socket)


def request(method: str, target: str, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: relay", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(("method", "target"), sorted(ALLOWED))
def test_what_a_training_needs_goes_through(
    standing: tuple[Upstream, Relay], method: str, target: str
) -> None:
    upstream, relay = standing
    body = b"" if method == "GET" else b'{"some": "body"}'
    answer = exchange(relay.socket, request(method, target, body, "Content-Type: application/json"))
    assert status_of(answer) == 200
    assert answer.endswith(upstream.body)
    (arrival,) = upstream.arrivals
    assert (arrival.method, arrival.target, arrival.body_bytes) == (method, target, len(body))
    assert arrival.headers["Content-Type"] == "application/json"


REFUSED_TARGETS = [
    "/",
    "/v1/trust-root/",
    "/v1/trust-root/0",
    "/v1/trust-root/x",
    "/v1/health",
    "/v1/orders",
    "/v1/orders/another-order",
    f"/v1/orders/{ORDER}/",
    f"/v1/orders/{ORDER}?all=1",
    f"/v1/orders/{ORDER}#part",
    f"//v1/orders/{ORDER}",
    f"/v1//orders/{ORDER}",
    f"/v1/orders/./{ORDER}",
    f"/v1/sessions/../orders/{ORDER}",
    "/v1/orders/%64igits-2026",
    f"/V1/orders/{ORDER}",
    f"/v1/orders/{ORDER.upper()}",
    f"http://audit.example.org/v1/orders/{ORDER}",
    f"relay/v1/orders/{ORDER}",
    "*",
    "audit.example.org:443",
    f"/v1/orders/{ORDER}\\",
    f"/v1/orders/{ORDER};x",
    f"/v1/orders/{ORDER}\u00e4",
    "/v1/sessions",
    "/v1/sessions/another-session",
    f"/v1/sessions/{SESSION}/bundle",
    f"/v1/sessions/{SESSION}/queries",
    f"/v1/sessions/{SESSION}/report",
    f"/v1/sessions/{SESSION}/records",
    f"/v1/sessions/{SESSION}/membership-codes",
    f"/v1/sessions/{SESSION}/../another-session",
    "/launch/",
    "/launch?",
    "//launch",
]


@pytest.mark.parametrize("target", REFUSED_TARGETS)
def test_every_other_target_is_refused(standing: tuple[Upstream, Relay], target: str) -> None:
    upstream, relay = standing
    problem = problem_of(exchange(relay.socket, request("GET", target)))
    assert problem["status"] == 403
    assert problem["type"] == "urn:auditkit:error:RelayRefusedError"
    assert upstream.arrivals == []


@pytest.mark.parametrize(
    "target",
    [
        "/v1/sessions/another-session/membership-codes",
        f"/v1/sessions/{SESSION}/membership-codes/",
        f"/v1/sessions/{SESSION}/membership-codes?all=1",
        f"/v1/sessions/{SESSION}/membership_codes",
        f"/v1/sessions/{SESSION}//membership-codes",
        f"/v1/sessions/{SESSION}/records/../membership-codes",
        "/v1/membership-codes",
    ],
)
def test_codes_are_asked_for_in_one_form_alone(
    standing: tuple[Upstream, Relay], target: str
) -> None:
    upstream, relay = standing
    problem = problem_of(exchange(relay.socket, request("POST", target, b"{}")))
    assert (problem["status"], problem["type"]) == (403, "urn:auditkit:error:RelayRefusedError")
    exact = f"/v1/sessions/{SESSION}/membership-codes"
    for method in ("GET", "PUT", "DELETE"):
        assert status_of(exchange(relay.socket, request(method, exact))) == 403
    assert upstream.arrivals == []


@pytest.mark.parametrize(
    "method", ["HEAD", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "get"]
)
def test_every_other_method_is_refused(standing: tuple[Upstream, Relay], method: str) -> None:
    upstream, relay = standing
    for target in (f"/v1/orders/{ORDER}", f"/v1/sessions/{SESSION}"):
        assert status_of(exchange(relay.socket, request(method, target))) == 403
    assert upstream.arrivals == []


TARGET = f"/v1/orders/{ORDER}"


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (f"GET {TARGET}\r\n\r\n", 403),
        (f"GET {TARGET} HTTP/1.0\r\n\r\n", 403),
        (f"GET {TARGET} HTTP/2.0\r\n\r\n", 403),
        (f"GET  {TARGET} HTTP/1.1\r\n\r\n", 403),
        (f"GET\t{TARGET}\tHTTP/1.1\r\n\r\n", 403),
        (f"GET {TARGET} HTTP/1.1\n\n", 403),
        (f"\r\nGET {TARGET} HTTP/1.1\r\n\r\n", 403),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 403),
        (f"GET {TARGET} HTTP/1.1\r\nUpgrade: websocket\r\n\r\n", 403),
        (f"GET {TARGET} HTTP/1.1\r\nExpect: 100-continue\r\n\r\n", 403),
        (f"GET {TARGET} HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (f"GET {TARGET} HTTP/1.1\r\nA: b\r\n folded: c\r\n\r\n", 400),
        (f"GET {TARGET} HTTP/1.1\r\nA: b\nC: d\r\n\r\n", 400),
        (f"GET {TARGET} HTTP/1.1\r\nA : b\r\n\r\n", 400),
        (f"GET {TARGET} HTTP/1.1\r\nA: \x00\r\n\r\n", 400),
        (f"GET {TARGET} HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (f"GET {TARGET} HTTP/1.1\r\nContent-Length: 1e3\r\n\r\n", 400),
        (f"GET {TARGET} HTTP/1.1\r\nContent-Length: {'9' * 400}\r\n\r\n", 400),
        (f"GET {TARGET} HTTP/1.1\r\nContent-Length: 1\r\n\r\nx", 413),
        (f"GET {TARGET} HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n", 431),
        (f"GET {TARGET} HTTP/1.1\r\nA: {'b' * 5000}\r\n\r\n", 431),
        (f"GET /{'a' * 5000} HTTP/1.1\r\n\r\n", 431),
        (f"GET {TARGET} HTTP/1.1\r\n" + "".join(f"A{i}: b\r\n" for i in range(51)) + "\r\n", 431),
    ],
)
def test_requests_of_another_form_are_refused(
    standing: tuple[Upstream, Relay], raw: str, status: int
) -> None:
    upstream, relay = standing
    assert problem_of(exchange(relay.socket, raw.encode()))["status"] == status
    assert upstream.arrivals == []


def test_a_chunked_body_is_refused(standing: tuple[Upstream, Relay]) -> None:
    upstream, relay = standing
    target = f"/v1/sessions/{SESSION}/records"
    for headers in (("Transfer-Encoding: chunked",), ("Transfer-Encoding: gzip", "X: y")):
        answer = exchange(relay.socket, request("POST", target, b"0\r\n\r\n", *headers))
        assert problem_of(answer)["status"] == 411
    assert upstream.arrivals == []


def test_a_body_that_is_too_large_is_refused_before_it_is_sent(
    standing: tuple[Upstream, Relay],
) -> None:
    upstream, relay = standing
    with client_of(relay) as client:
        for call in (
            lambda: client.continue_session(SESSION, bytes(65 * MEBIBYTE)),
            lambda: client.membership_codes(SESSION, bytes(MEBIBYTE)),
        ):
            with pytest.raises(ServerRefusedError, match="at most") as caught:
                call()
            assert caught.value.status == 413
            assert not caught.value.temporary
    assert upstream.arrivals == []


def test_a_request_behind_another_is_judged_by_itself(standing: tuple[Upstream, Relay]) -> None:
    upstream, relay = standing
    target = f"/v1/sessions/{SESSION}/records"
    hidden = request("GET", "/v1/orders")
    answers = exchange(relay.socket, request("POST", target, b"{}") + hidden)
    assert answers.count(b"HTTP/1.1 200") == 1
    assert answers.count(b"HTTP/1.1 403") == 1
    assert [arrival.target for arrival in upstream.arrivals] == [target]
    # As a body, the same bytes are a body.
    assert exchange(relay.socket, request("POST", target, hidden)).count(b"HTTP/1.1") == 1
    assert [arrival.target for arrival in upstream.arrivals] == [target, target]


PIECES = st.sampled_from(
    ["/", "//", "..", ".", "%2e", "%2F", "?", "#", "\\", "\t", "\r\n", "\0", "@", ":", "v1"]
) | st.sampled_from(["orders", "records", "bundle", "launch", "http://other", ORDER, SESSION])
METHODS = st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "CONNECT"])


@st.composite
def changed_targets(draw: st.DrawFn) -> str:
    """An allowed target with something put into it, in place of something."""
    target = draw(st.sampled_from(sorted(ALLOWED)))[1]
    start = draw(st.integers(0, len(target)))
    end = draw(st.integers(start, min(len(target), start + 3)))
    return target[:start] + draw(st.one_of(PIECES, st.text(max_size=3))) + target[end:]


@settings(max_examples=300, deadline=None)
@given(
    method=METHODS,
    target=st.one_of(changed_targets(), st.lists(PIECES, max_size=8).map("".join), st.text()),
)
def test_whatever_the_target_only_the_known_ones_arrive(
    lasting: tuple[Upstream, Relay], method: str, target: str
) -> None:
    upstream, relay = lasting
    upstream.arrivals.clear()
    raw = f"{method} {target} HTTP/1.1\r\nHost: relay\r\n\r\n".encode("utf-8", "surrogatepass")
    exchange(relay.socket, raw)
    expected = [(method, target)] if (method, target) in ALLOWED else []
    assert [(arrival.method, arrival.target) for arrival in upstream.arrivals] == expected


@settings(max_examples=100, deadline=None)
@given(raw=st.binary(max_size=200))
def test_noise_reaches_nobody_and_breaks_nothing(
    lasting: tuple[Upstream, Relay], raw: bytes
) -> None:
    upstream, relay = lasting
    upstream.arrivals.clear()
    answer = exchange(relay.socket, raw)
    assert answer == b"" or status_of(answer) in {400, 403, 431}
    assert upstream.arrivals == []


def test_the_relay_sets_the_token_whatever_the_agent_says(upstream: Upstream, relay: Relay) -> None:
    with ServerClient("http://relay", "another-token", socket=relay.socket) as client:
        client.order(ORDER)
    extra = ("Cookie: a=b", "X-Forwarded-For: 1.2.3.4", "Host: audit.example.org", "Accept: a/b")
    exchange(relay.socket, "\r\n".join(["GET " + TARGET + " HTTP/1.1", *extra, "", ""]).encode())
    for arrival in upstream.arrivals:
        assert arrival.headers["Authorization"] == f"Bearer {TOKEN}"
        assert not {"Cookie", "X-Forwarded-For"} & set(arrival.headers)
        assert arrival.headers["Host"] == upstream.url.removeprefix("http://")
    assert upstream.arrivals[-1].headers["Accept"] == "a/b"


def test_the_token_is_in_no_command_line_and_no_environment(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUDITKIT_TOKEN", TOKEN)
    monkeypatch.setenv("AUDITKIT_KEPT", "kept")
    with relay_to(upstream.url) as relay:
        process = Path(f"/proc/{relay.pid}")
        command, environment = ((process / name).read_bytes() for name in ("cmdline", "environ"))
        assert b"developer_agent.relay" in command
        assert b"AUDITKIT_KEPT=kept" in environment
        assert TOKEN.encode() not in command + environment
        for path in relay.socket_folder.parent.rglob("*"):
            assert path.is_socket() or path.is_dir() or TOKEN.encode() not in path.read_bytes()


def test_one_session_is_opened_and_only_that_one(upstream: Upstream, fresh: Relay) -> None:
    upstream.status, upstream.body = 201, grant()
    with client_of(fresh) as client:
        with pytest.raises(ServerRefusedError, match="RelayRefusedError"):
            client.status(SESSION)
        assert fresh.session_id is None
        assert client.open_session(ORDER, b'{"a":1}', b"\0" * 32, b"\1" * 32) == upstream.body
        assert fresh.session_id == SESSION
        # The answer may be lost; the server knows the same request again.
        assert client.open_session(ORDER, b'{"a":1}', b"\0" * 32, b"\1" * 32) == upstream.body
        with pytest.raises(ServerRefusedError, match=f"has its session, {SESSION}") as caught:
            client.open_session(ORDER, b'{"a":2}', b"\0" * 32, b"\1" * 32)
        assert not caught.value.temporary
        upstream.status = 200
        assert client.continue_session(SESSION, b"{}") == upstream.body
        with pytest.raises(ServerRefusedError, match="RelayRefusedError"):
            client.append("another-session", RECORDS)
    assert [arrival.target for arrival in upstream.arrivals] == [
        "/v1/sessions",
        "/v1/sessions",
        f"/v1/sessions/{SESSION}/continuations",
    ]


def test_two_openings_at_once_give_one_session(upstream: Upstream, fresh: Relay) -> None:
    upstream.status, upstream.body = 201, grant()
    outcomes: list[object] = []

    def open_session(number: int) -> None:
        with client_of(fresh) as client:
            try:
                outcomes.append(client.open_session(ORDER, b"%d" % number, b"", b""))
            except ServerRefusedError as error:
                outcomes.append(error.status)

    threads = [threading.Thread(target=open_session, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, outcomes)) == sorted([str(upstream.body), "403", "403", "403"])
    assert len(upstream.arrivals) == 1


def test_a_refused_opening_leaves_room_for_another(upstream: Upstream, fresh: Relay) -> None:
    upstream.status = 422
    with client_of(fresh) as client:
        with pytest.raises(ServerRefusedError, match="422"):
            client.open_session(ORDER, b"{}", b"", b"")
        upstream.status, upstream.body = 201, b'{"no": "grant"}'
        with pytest.raises(ServerRefusedError, match="no grant") as caught:
            client.open_session(ORDER, b"{}", b"", b"")
        assert caught.value.temporary
        upstream.body = grant()
        assert client.open_session(ORDER, b"{}", b"", b"") == upstream.body


def test_a_session_to_go_on_with_is_the_only_one(standing: tuple[Upstream, Relay]) -> None:
    upstream, relay = standing
    assert relay.session_id == SESSION
    with client_of(relay) as client, pytest.raises(ServerRefusedError, match="RelayRefused"):
        client.open_session(ORDER, b"{}", b"", b"")
    assert upstream.arrivals == []


def test_refusals_of_the_server_come_through(upstream: Upstream, relay: Relay) -> None:
    upstream.status = 409
    upstream.body = json.dumps(
        {"type": "urn:auditkit:error:ForkError", "detail": "record 7 differs"}
    ).encode()
    with client_of(relay) as client, pytest.raises(ServerRefusedError, match="record 7") as caught:
        client.append(SESSION, RECORDS)
    assert (caught.value.status, caught.value.error_name) == (409, "ForkError")


@pytest.mark.parametrize("problem", ["gone", "redirect", "broken", "large"])
def test_a_server_without_a_usable_answer_is_a_passing_trouble(
    upstream: Upstream, relay: Relay, problem: str
) -> None:
    with client_of(relay) as client:
        if problem == "redirect":
            upstream.status, upstream.headers = 307, {"Location": "http://audit.example.org/"}
        elif problem == "broken":  # stands in front of the true length: the body ends too early
            upstream.headers = {"Content-Length": "100", "Connection": "close"}
        elif problem == "large":
            upstream.body = bytes(65 * MEBIBYTE)
        else:
            with upstream_server() as gone:
                pass
            with relay_to(gone.url, session_id=SESSION) as lost, client_of(lost) as unlucky:
                with pytest.raises(ServerRefusedError, match="not reached") as caught:
                    unlucky.append(SESSION, RECORDS)
                assert (caught.value.status, caught.value.temporary) == (502, True)
            return
        with pytest.raises(ServerRefusedError) as caught:
            client.order(ORDER)
        assert (caught.value.status, caught.value.temporary) == (502, True)
        assert len(upstream.arrivals) == 1


def test_the_launch_document_is_there_when_it_is_published(fresh: Relay) -> None:
    document = launch_document()
    with client_of(fresh) as client:
        assert client.launch_document() is None
        assert client.launch_document() is None
        fresh.publish(document)
        received = client.launch_document()
    assert received is not None
    assert LaunchDocument.from_bytes(received) == document


def optional_fields(model: type[BaseModel]) -> Iterator[tuple[str, object]]:
    """Names and defaults of all fields that may be None, in nested documents too."""
    for name, field in model.model_fields.items():
        parts = [field.annotation, *get_args(field.annotation)]
        if NoneType in parts:
            yield name, field.default
        for part in parts:
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from optional_fields(part)


def test_what_is_left_out_of_a_launch_document_means_none() -> None:
    found = dict(optional_fields(LaunchDocument))
    assert {"signature", "container", "channels"} <= set(found)
    assert set(found.values()) == {None}


def most_memory(pid: int | None) -> int:
    """Most bytes of memory that the process has ever had in use."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM")


def test_a_large_submission_flows_through(upstream: Upstream, relay: Relay, tmp_path: Path) -> None:
    size = 192 * MEBIBYTE
    weights = tmp_path / "weights"
    with weights.open("wb") as file:
        file.truncate(size)
    with client_of(relay) as client:
        client.order(ORDER)
    before = most_memory(relay.pid)
    connection = http.client.HTTPConnection("relay", timeout=WAIT_SECONDS)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(relay.socket))
    target = f"/v1/sessions/{SESSION}/submission"
    with weights.open("rb") as file:
        connection.request("PUT", target, file, {"Content-Length": str(size)})
        assert connection.getresponse().status == 200
    connection.close()
    assert upstream.arrivals[-1].body_bytes == size
    assert "Transfer-Encoding" not in upstream.arrivals[-1].headers
    assert most_memory(relay.pid) - before < 16 * MEBIBYTE


def test_a_body_that_breaks_off_never_counts(upstream: Upstream, relay: Relay) -> None:
    raw = request("POST", f"/v1/sessions/{SESSION}/records", bytes(1000))
    assert exchange(relay.socket, raw[:-1]) == b""
    with client_of(relay) as client:
        client.order(ORDER)
    assert [arrival.method for arrival in upstream.arrivals] == ["GET"]


def test_a_killed_relay_comes_back_and_knows_its_session(upstream: Upstream, fresh: Relay) -> None:
    upstream.status, upstream.body = 201, grant()
    with client_of(fresh) as client:
        client.open_session(ORDER, b"{}", b"", b"")
        for _ in range(2):
            pid = fresh.pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            eventually(lambda pid=pid: fresh.pid != pid)
            eventually(lambda: answered(lambda: client.continue_session(SESSION, b"{}")))
        assert fresh.session_id == SESSION
        with pytest.raises(ServerRefusedError, match="has its session"):
            client.open_session(ORDER, b'{"other": 1}', b"", b"")


def test_the_socket_is_reachable_by_others_and_its_folder_is_not(fresh: Relay) -> None:
    modes = [
        path.stat().st_mode & 0o777
        for path in (fresh.socket_folder.parent, fresh.socket_folder, fresh.socket)
    ]
    assert [oct(mode) for mode in modes] == ["0o700", "0o755", "0o666"]


def test_the_end_leaves_no_process_no_thread_and_no_socket(upstream: Upstream) -> None:
    before = threading.enumerate()
    with relay_to(upstream.url) as relay:
        pid = relay.pid
        assert pid is not None
        idle = client_of(relay)
        idle.order(ORDER)  # leaves a connection open
    assert not alive(pid)
    assert not relay.socket.exists()
    left = set(threading.enumerate()) - set(before)
    assert "auditkit-relay" not in {thread.name for thread in left}
    with pytest.raises(ServerUnreachableError) as caught:
        idle.order(ORDER)
    assert caught.value.temporary
    idle.close()


def test_a_terminal_interrupt_does_not_reach_the_relay(fresh: Relay) -> None:
    assert fresh.pid is not None
    assert os.getsid(fresh.pid) == fresh.pid != os.getsid(0)


LAUNCHER = """
import sys, time
from pathlib import Path
from developer_agent.launch_document import LaunchDocument
from developer_agent.relay import Relay
with Relay(Path(sys.argv[1]), server_url=sys.argv[2], token="t0ken", order_id="one") as relay:
    print(relay.pid, flush=True)
    time.sleep(600)
"""


def test_a_killed_launcher_leaves_no_relay(upstream: Upstream, tmp_path: Path) -> None:
    command = [sys.executable, "-c", LAUNCHER, str(tmp_path), upstream.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as launcher:
        assert launcher.stdout is not None
        pid = int(launcher.stdout.readline())
        path = tmp_path / "socket" / "relay.sock"
        assert alive(pid)
        assert path.exists()
        launcher.kill()
    eventually(lambda: not alive(pid))
    assert not path.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_process_says_when_it_listens_and_ends_when_asked(
    upstream: Upstream, tmp_path: Path, number: signal.Signals
) -> None:
    path = tmp_path / "r.sock"
    path.write_bytes(b"what an earlier one has left")
    told = RelaySettings(
        socket=str(path),
        server_url=upstream.url,
        token=TOKEN,
        order_id=ORDER,
        session_id=None,
        launch_document=str(tmp_path / "launch.json"),
        opened_session=str(tmp_path / "session.json"),
    )
    assert TOKEN not in repr(told)
    with subprocess.Popen(
        [sys.executable, "-m", "developer_agent.relay"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(told.model_dump_json().encode() + b"\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline()) == {"listening": str(path)}
        with ServerClient("http://relay", socket=path) as client:
            client.order(ORDER)
        process.send_signal(number)
        assert process.wait(WAIT_SECONDS) == 0
    assert not path.exists()


def test_a_relay_that_cannot_start_says_why(upstream: Upstream, tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    with (
        pytest.raises(RelayStartError, match="path too long"),
        Relay(folder, server_url=upstream.url, token=TOKEN, order_id=ORDER),
    ):
        pass


def test_more_connections_than_any_agent_makes_are_closed(relay: Relay) -> None:
    connections = [socket.socket(socket.AF_UNIX) for _ in range(MOST_CONNECTIONS)]
    for connection in connections:
        connection.connect(str(relay.socket))
        # Half a request keeps the connection busy.
        connection.sendall(b"GET ")
    with client_of(relay) as client:
        eventually(lambda: not answered(lambda: client.order(ORDER)))
        for connection in connections:
            connection.close()
        eventually(lambda: answered(lambda: client.order(ORDER)))
