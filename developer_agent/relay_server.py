"""The relay's inside: a Unix socket on one end, the auditor's server on the other."""

import contextlib
import hashlib
import socket
import socketserver
import tempfile
import threading
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO, cast

import requests
from pydantic import Field

from auditkit.evidence import dsse, statements
from auditkit.evidence.errors import EvidenceError
from developer_agent.client import (
    ANSWER_TIMEOUT_SECONDS,
    CONNECT_TIMEOUT_SECONDS,
    ERROR_TYPE_PREFIX,
    SLOW_ANSWER_TIMEOUT_SECONDS,
    BearerToken,
    unreachable,
)
from developer_agent.disk import PRIVATE_MODE, write_atomically
from developer_agent.errors import AgentError, ServerError, UnexpectedAnswerError
from developer_agent.relay_request import RequestBody, RequestBrokenOffError, RequestHead, read_head
from developer_agent.relay_routes import (
    Call,
    LaunchNotReadyError,
    OpenedSession,
    RelayRefusedError,
    Route,
    find_route,
    routes,
)
from schemas import SessionGrant
from schemas.base import Name, Schema
from schemas.wire import Problem

# The socket's folder lies in a private one; whoever has it mounted may connect.
SOCKET_MODE = 0o666
# The agent has two; connections beyond these are closed at once.
MOST_CONNECTIONS = 32
# A connection that is silent for so long is closed; the agent makes a new one.
SILENCE_SECONDS = 600.0
# A larger request for a session waits on disk.
MOST_OPENING_BYTES_IN_MEMORY = 2**20
_BLOCK_BYTES = 2**16

_PASSED_ON = ("Content-Type", "Accept")
_JSON_TYPE = "application/json"
_PROBLEM_TYPE = "application/problem+json"


class RelaySettings(Schema):
    """What a relay process is told, on its standard input."""

    socket: str = Field(description="path of the Unix socket to listen on")
    server_url: str
    token: str = Field(repr=False, description="the developer's bearer token")
    order_id: Name
    session_id: Name | None = Field(description="known when a training is resumed")
    launch_document: str = Field(description="path of a file that may not exist yet")
    opened_session: str = Field(description="path of the file that keeps which session was opened")


@dataclass(frozen=True)
class Answer:
    """An answer for the agent inside."""

    status: int
    content_type: str
    content: bytes


class Upstream:
    """The auditor's server, over connections of its own. Serves one thread."""

    def __init__(self, server_url: str, token: str) -> None:
        """Remember where the server is; nothing is sent yet."""
        self._url = server_url.rstrip("/")
        self._session = requests.Session()
        self._session.auth = BearerToken(token)
        self._session.headers["Accept-Encoding"] = "identity"

    def close(self) -> None:
        """Close idle connections."""
        self._session.close()

    def send(self, head: RequestHead, body: RequestBody, route: Route) -> Answer:
        """Pass a request on, with the token and with nothing else that the agent did not say.

        Raises:
            ServerUnreachableError: no whole answer came.
            UnexpectedAnswerError: a redirect, or an answer that is far too large.
            RequestBrokenOffError: the agent stopped within the body.
        """
        slow = route.call is Call.SLOW
        timeout = SLOW_ANSWER_TIMEOUT_SECONDS if slow else ANSWER_TIMEOUT_SECONDS
        try:
            with self._session.request(
                head.method,
                self._url + head.target,
                # An empty stream would be sent in chunks.
                data=body if len(body) else None,
                headers={
                    name: head.headers[name.lower()]
                    for name in _PASSED_ON
                    if name.lower() in head.headers
                },
                timeout=(CONNECT_TIMEOUT_SECONDS, timeout),
                stream=True,
                allow_redirects=False,
            ) as answer:
                return self._whole(answer, route.most_answer_bytes)
        except requests.RequestException as error:
            raise unreachable(self._url, error) from error

    def _whole(self, answer: requests.Response, most_bytes: int) -> Answer:
        if answer.is_redirect:
            raise UnexpectedAnswerError(
                f"{answer.url} redirects to {answer.headers.get('Location')}; redirects are not "
                "followed, so that the token stays here. Use the server's final address"
            )
        content = bytearray()
        for block in answer.iter_content(_BLOCK_BYTES):
            content += block
            if len(content) > most_bytes:
                raise UnexpectedAnswerError(
                    f"{answer.url} answered with more than {most_bytes} bytes; is it an "
                    "auditkit server, or does a proxy answer for it?"
                )
        kind = answer.headers.get("Content-Type", "application/octet-stream")
        return Answer(answer.status_code, kind, bytes(content))


class RelayServer(socketserver.ThreadingUnixStreamServer):
    """Listens on the socket from its construction on; one thread for each connection."""

    daemon_threads = True
    block_on_close = False  # a request under way must not hold up the end of the process
    request_queue_size = MOST_CONNECTIONS

    def __init__(self, settings: RelaySettings) -> None:
        """Take the place of a relay that was killed, if there was one, and listen.

        Raises:
            OSError: the socket can't be made there.
        """
        self.settings = settings
        self._path = Path(settings.socket)
        self._connections = threading.Semaphore(MOST_CONNECTIONS)
        self._opening = threading.Lock()
        self._path.unlink(missing_ok=True)
        super().__init__(settings.socket, _Connection)
        self._path.chmod(SOCKET_MODE)

    def server_close(self) -> None:
        """Stop listening and remove the socket."""
        super().server_close()
        self._path.unlink(missing_ok=True)

    def verify_request(self, request: object, client_address: object) -> bool:  # noqa: ARG002
        """Tell whether there is room for one more connection."""
        return self._connections.acquire(blocking=False)

    def process_request_thread(
        self, request: socket.socket | tuple[bytes, socket.socket], client_address: object
    ) -> None:
        """Serve one connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._connections.release()

    def answer(self, head: RequestHead, body: RequestBody, upstream: Upstream) -> Answer:
        """Answer one request, or have the server answer it.

        Raises:
            RelayRefusedError: it is none of those that are let through.
            LaunchNotReadyError: the launch document is not there yet.
            ServerError: the server gave no answer that could be passed on.
            RequestBrokenOffError: the agent stopped within the body.
            DiskWriteError: which session was opened could not be kept.
        """
        known = routes(self.settings.order_id, self.opened_session())
        route = find_route(known, head.method, head.target, len(body))
        if route.call is Call.LAUNCH:
            return self._launch_document()
        if route.call is Call.OPENING:
            return self._open_session(head, body, upstream, route)
        return upstream.send(head, body, route)

    def opened_session(self) -> OpenedSession | None:
        """Return the session that this relay serves; None before one was granted."""
        if self.settings.session_id is not None:
            return OpenedSession(session_id=self.settings.session_id)
        return read_opened_session(Path(self.settings.opened_session))

    def _launch_document(self) -> Answer:
        try:
            content = Path(self.settings.launch_document).read_bytes()
        except FileNotFoundError as error:
            raise LaunchNotReadyError(
                "the launcher has not published the launch document yet; ask again"
            ) from error
        return Answer(HTTPStatus.OK, _JSON_TYPE, content)

    def _open_session(
        self, head: RequestHead, body: RequestBody, upstream: Upstream, route: Route
    ) -> Answer:
        """Pass on the first request for a session, and after its grant only that same request."""
        with (
            tempfile.SpooledTemporaryFile(MOST_OPENING_BYTES_IN_MEMORY) as file,
            self._opening,
        ):
            digest = hashlib.sha256()
            while block := body.read(_BLOCK_BYTES):
                digest.update(block)
                file.write(block)
            opening = digest.hexdigest()
            opened = self.opened_session()
            if opened is not None and opened.opening != opening:
                raise RelayRefusedError(
                    f"this launch has its session, {opened.session_id}, and the relay passes on "
                    "no request for another one; start a new launch for a new session"
                )
            file.seek(0)
            answer = upstream.send(head, RequestBody(cast(BinaryIO, file), len(body)), route)
            if answer.status == HTTPStatus.CREATED:
                granted = OpenedSession(session_id=_granted(answer), opening=opening)
                # First on disk: an answer that is lost can be asked for again, a session can't.
                write_atomically(
                    Path(self.settings.opened_session),
                    granted.model_dump_json().encode(),
                    PRIVATE_MODE,
                )
            return answer


def read_opened_session(path: Path) -> OpenedSession | None:
    """Return what a relay has kept about its session; None before one was granted."""
    try:
        return OpenedSession.from_bytes(path.read_bytes())
    except FileNotFoundError:
        return None


class _Connection(socketserver.StreamRequestHandler):
    """One connection from inside, with its own connection to the server."""

    timeout = SILENCE_SECONDS

    def handle(self) -> None:
        server = cast(RelayServer, self.server)
        stream = cast(BinaryIO, self.rfile)
        upstream = Upstream(server.settings.server_url, server.settings.token)
        # The agent inside may be gone at any moment; nobody is left to be told.
        with (
            contextlib.closing(upstream),
            contextlib.suppress(RequestBrokenOffError, ConnectionError, TimeoutError),
        ):
            while self._serve_one(server, stream, upstream):
                pass

    def _serve_one(self, server: RelayServer, stream: BinaryIO, upstream: Upstream) -> bool:
        """Answer the next request; tell whether another may follow."""
        try:
            head = read_head(stream)
        except RelayRefusedError as error:
            self._write(_problem(error), close=True)  # where the next one begins is unknown
            return False
        if head is None:
            return False
        body = RequestBody(stream, head.body_bytes)
        try:
            answer = server.answer(head, body, upstream)
        except RequestBrokenOffError:
            raise
        except AgentError as error:
            answer = _problem(error)
        close = head.closes or body.remaining > 0
        self._write(answer, close=close, content=head.method != "HEAD")
        return not close

    def _write(self, answer: Answer, *, close: bool, content: bool = True) -> None:
        head = (
            f"HTTP/1.1 {answer.status} {_phrase(answer.status)}\r\n"
            f"Content-Type: {answer.content_type}\r\n"
            f"Content-Length: {len(answer.content)}\r\n"
            f"Connection: {'close' if close else 'keep-alive'}\r\n\r\n"
        )
        self.wfile.write(head.encode("latin-1") + (answer.content if content else b""))


def _granted(answer: Answer) -> str:
    """Return the session that a grant opens. Whether the auditor signed it, the agent checks."""
    try:
        payload = dsse.Envelope.from_bytes(answer.content).payload
        return statements.parse(payload, statements.GRANT_PREDICATE, SessionGrant).session_id
    except EvidenceError as error:
        raise UnexpectedAnswerError(
            f"the server answered a request for a session with something that is no grant: {error}"
        ) from error


def _problem(error: AgentError) -> Answer:
    """Return an error as problem details (RFC 9457); the client takes 500 and above as passing."""
    if isinstance(error, RelayRefusedError):
        status = error.status
    elif isinstance(error, LaunchNotReadyError):
        status = HTTPStatus.SERVICE_UNAVAILABLE
    elif isinstance(error, ServerError):
        status = HTTPStatus.BAD_GATEWAY
    else:
        status = HTTPStatus.INTERNAL_SERVER_ERROR
    name = type(error).__name__
    problem = Problem(
        type=ERROR_TYPE_PREFIX + name,
        title=(type(error).__doc__ or name).strip().splitlines()[0],
        status=int(status),
        detail=str(error),
    )
    return Answer(int(status), _PROBLEM_TYPE, problem.model_dump_json().encode())


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
