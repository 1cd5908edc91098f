"""An auditor behind a bad network: keeps a log by the rules over real HTTP, fails on demand."""

import json
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from auditkit.evidence import dsse, notes, statements
from auditkit.evidence.keys import SigningKey
from auditkit.evidence.merkle import root
from auditkit.evidence.notes import VerifierKey
from schemas import AppendReceipt, AppendRequest, Role, SessionGrant, SplitSizes, TrustRoot

ORIGIN = "audit.example.org"
SESSION = "session-1"


class Fault(Enum):
    """What goes wrong with one request."""

    LOST_REQUEST = auto()
    LOST_ANSWER = auto()
    ERROR_BEFORE = auto()
    ERROR_AFTER = auto()
    DUPLICATED = auto()
    DELAYED = auto()
    LOGIN_PAGE = auto()
    TRUNCATED_ANSWER = auto()


class ForkError(Exception):
    """The agent has signed two histories."""


class FaultyAuditor:
    """Stores one session's log; `faults` are worked off one per request."""

    def __init__(self, clock: Callable[[], int] = lambda: int(time.time())) -> None:
        self.key = SigningKey.generate()
        self.records: list[bytes] = []
        self.flushes: dict[int, tuple[bytes, str]] = {}  # first -> (body, cosigned note)
        self.bodies: list[bytes] = []
        self.faults: deque[Fault] = deque()
        self.refusal: tuple[int, str] | None = None
        self.forge: Callable[[str], str] = lambda note: note
        self.down = False
        self._clock = clock
        self._lock = threading.Lock()
        self._session_key = SigningKey.generate()
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self) -> "FaultyAuditor":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def origin(self) -> str:
        return f"{ORIGIN}/sessions/{SESSION}"

    @property
    def cosigned_notes(self) -> tuple[bytes, ...]:
        return tuple(note.encode() for _, (_, note) in sorted(self.flushes.items()))

    @property
    def checkpoints(self) -> list[notes.Checkpoint]:
        return [notes.parse_checkpoint(notes.parse(note).text) for note in self.cosigned_notes]

    def trust_root(self) -> TrustRoot:
        now = datetime.now(UTC)
        role = Role(keyids=(self.key.public.keyid,))
        return TrustRoot(
            auditor="The Auditor",
            origin=ORIGIN,
            version=1,
            issued_at=now - timedelta(days=1),
            expires_at=now + timedelta(days=365),
            keys={self.key.public.keyid: self.key.public.hex},
            roles=dict.fromkeys(("root", "order", "session", "cosigner", "verdict"), role),
        )

    def grant(self, session_key: SigningKey) -> bytes:
        """A grant for the session, signed; later flushes must be signed by its key."""
        self._session_key = session_key
        now = datetime.now(UTC)
        grant = SessionGrant(
            session_id=SESSION,
            session_number=1,
            origin=self.origin,
            request_digest="1" * 64,
            order_digest="2" * 64,
            nonce="3" * 64,
            split=SplitSizes(told=8, silent=0, told_only=0, external=4, calibration=4),
            session_key=session_key.public.hex,
            valid_from=now - timedelta(minutes=1),
            valid_until=now + timedelta(hours=1),
        )
        subjects = statements.subject("grant", SESSION, grant)
        payload = statements.make(statements.GRANT_PREDICATE, grant, subjects)
        return dsse.sign(payload, [self.key]).to_bytes()

    def append(self, body: bytes) -> bytes:
        """Store a flush once and cosign it; refuse a second, different one at the same place."""
        with self._lock:
            request = AppendRequest.from_bytes(body)
            if request.first in self.flushes:
                known, cosigned = self.flushes[request.first]
                if known != body:
                    raise ForkError(request.first)
                return AppendReceipt(checkpoint=cosigned).model_dump_json().encode()
            if request.first != len(self.records):
                raise ForkError(request.first)
            records = [*self.records, *(line.encode() for line in request.records)]
            session = VerifierKey.ed25519(self.origin, self._session_key.public)
            verified = notes.verify(request.checkpoint.encode(), [session])
            checkpoint = notes.parse_checkpoint(verified.text)
            if (checkpoint.size, checkpoint.root) != (len(records), root(records)):
                raise ForkError(request.first)
            note = notes.parse(request.checkpoint.encode())
            cosigned = notes.cosign(note, f"{ORIGIN}/cosigner", self.key, self._clock())
            self.records = records
            self.flushes[request.first] = (body, cosigned.to_bytes().decode())
            return AppendReceipt(checkpoint=cosigned.to_bytes().decode()).model_dump_json().encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, auditor: FaultyAuditor) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.auditor = auditor

    def handle_error(self, *_: object) -> None:
        """Agents that are killed in the middle of a request are what the tests are about."""


class _Handler(BaseHTTPRequestHandler):
    server: "_Server"
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        body = self.rfile.read(length)
        cut_off = len(body) < length  # its sender was killed after the headers (RFC 9112 §8)
        if cut_off or self.server.auditor.down:
            self._hang_up()
            return
        self.server.auditor.bodies.append(body)
        if self.server.auditor.refusal is not None:
            self._refuse(*self.server.auditor.refusal)
            return
        fault = self.server.auditor.faults.popleft() if self.server.auditor.faults else None
        if fault is Fault.LOST_REQUEST:
            self._hang_up()
        elif fault is Fault.ERROR_BEFORE:
            self._refuse(503, "Overloaded")
        elif fault is Fault.LOGIN_PAGE:
            self._answer(200, b"<html>Please sign in to the guest network</html>", "text/html")
        else:
            self._process(body, fault)

    def _process(self, body: bytes, fault: Fault | None) -> None:
        if fault is Fault.DELAYED:
            time.sleep(0.3)
        try:
            answer = self.server.auditor.append(body)
            if fault is Fault.DUPLICATED:
                answer = self.server.auditor.append(body)
        except ForkError:
            self._refuse(409, "ForkError")
            return
        if fault is Fault.LOST_ANSWER:
            self._hang_up()
        elif fault is Fault.ERROR_AFTER:
            self._refuse(500, "Crashed")
        elif fault is Fault.TRUNCATED_ANSWER:
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer[: len(answer) // 2])
            self._hang_up()
        else:
            note = AppendReceipt.from_bytes(answer).checkpoint
            forged = AppendReceipt(checkpoint=self.server.auditor.forge(note))
            self._answer(200, forged.model_dump_json().encode(), "application/json")

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(2)

    def _refuse(self, status: int, name: str) -> None:
        problem = {
            "type": f"urn:auditkit:error:{name}",
            "title": name,
            "status": status,
            "detail": f"refused for {name}",
        }
        self._answer(status, json.dumps(problem).encode(), "application/problem+json")

    def _answer(self, status: int, body: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep the test output clean."""
