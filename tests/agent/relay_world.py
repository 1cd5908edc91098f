"""What the relay stands between: a server that keeps what reaches it, and raw requests."""

import hashlib
import json
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from auditkit.data.pools import DataSource
from auditkit.evidence import dsse, statements
from auditkit.evidence.keys import SigningKey
from developer_agent.launch_document import LaunchDocument
from developer_agent.relay import Relay
from developer_agent.run_config import RunConfig, ServerConfig
from schemas import ModelConfig, OptimiserConfig, SessionGrant, SplitSizes, TrainingConfig
from tests.evidence.contained import description, identity, image_key, signed_image

ORDER = "digits-2026"
SESSION = "20261121-0123456789ab"
TOKEN = "developer-1.a-secret-of-the-developer"
BLOCK = 2**16


@dataclass(frozen=True)
class Arrival:
    method: str
    target: str
    headers: dict[str, str]
    body_bytes: int
    body_digest: str


@dataclass
class Upstream:
    """A server that answers what the test says."""

    url: str = ""
    status: int = 200
    body: bytes = b'{"answered": true}'
    headers: dict[str, str] = field(default_factory=dict)
    arrivals: list[Arrival] = field(default_factory=list)


@contextmanager
def upstream_server() -> Iterator[Upstream]:
    upstream = Upstream()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            left = length = int(self.headers.get("Content-Length", 0))
            digest = hashlib.sha256()
            while left:
                block = self.rfile.read(min(BLOCK, left))
                if not block:
                    return
                digest.update(block)
                left -= len(block)
            upstream.arrivals.append(
                Arrival(self.command, self.path, dict(self.headers), length, digest.hexdigest())
            )
            self.send_response(upstream.status)
            for name, value in upstream.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(upstream.body)))
            self.end_headers()
            self.wfile.write(upstream.body)

        do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Keep the test output clean."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever, args=(0.02,))
    thread.start()
    upstream.url = f"http://127.0.0.1:{http.server_address[1]}"
    try:
        yield upstream
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


@contextmanager
def relay_to(url: str, token: str = TOKEN, session_id: str | None = None) -> Iterator[Relay]:
    # Not under pytest's folders: the path of a socket is limited to some 100 characters.
    with (
        tempfile.TemporaryDirectory(prefix="auditkit-") as folder,
        Relay(
            Path(folder), server_url=url, token=token, order_id=ORDER, session_id=session_id
        ) as relay,
    ):
        yield relay


def grant(session_id: str = SESSION) -> bytes:
    now = datetime.now(UTC)
    document = SessionGrant(
        session_id=session_id,
        session_number=1,
        origin=f"audit.example.org/sessions/{session_id}",
        request_digest="a" * 64,
        order_digest="b" * 64,
        nonce="c" * 64,
        split=SplitSizes(told=1, silent=0, told_only=0, external=1, calibration=1),
        session_key="d" * 64,
        valid_from=now,
        valid_until=now + timedelta(days=1),
    )
    subject = statements.subject("grant", session_id, document)
    payload = statements.make(statements.GRANT_PREDICATE, document, subject)
    return dsse.sign(payload, [SigningKey.generate()]).to_bytes()


def launch_document() -> LaunchDocument:
    return LaunchDocument(
        image=identity(),
        image_config='{"text": "exactly as found\\u00e4"}',
        signature=signed_image(image_key("signer")),
        description=description(),
        run=RunConfig(
            developer="Example Lab",
            output="/output",
            server=ServerConfig(url="http://relay", order=ORDER, trust_root="trust-root.json"),
            pool=DataSource(kind="digits"),
            test=DataSource(kind="digits"),
            training=TrainingConfig(
                name="digits",
                model=ModelConfig(
                    architecture="resnet18", classes=10, channels=1, height=8, width=8
                ),
                optimiser=OptimiserConfig(learning_rate=0.1),
                epochs=2,
                batch_size=16,
                external_batch_size=4,
            ),
        ),
        trust_root="{}",
        config_path="my run.toml",
        resume=False,
        json_output=True,
    )


def exchange(path: Path, request: bytes) -> bytes:
    """Send raw bytes and nothing more; return all that comes back."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        connection.connect(str(path))
        try:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # refused before the end: the answer is there already
        blocks = []
        while block := connection.recv(BLOCK):
            blocks.append(block)
        return b"".join(blocks)


def status_of(answer: bytes) -> int:
    version, status = answer.split(b" ", 2)[:2]
    assert version == b"HTTP/1.1"
    return int(status)


def problem_of(answer: bytes) -> dict[str, object]:
    head, body = answer.split(b"\r\n\r\n", 1)
    assert b"Content-Type: application/problem+json" in head
    problem = json.loads(body)
    assert problem["status"] == status_of(answer)
    return dict(problem)
