"""The auditor's server, as seen by the agent: one typed method per call that a training makes.

Whatever else asks a server does so through `auditkit.client`. This one also speaks to the relay,
over a Unix socket, and needs nothing that the closed image does not have.

Answers are checked against their schema before they are believed. Redirects are not followed, so
neither the token nor a record ever goes to another host; certificates are verified. Inside a closed
container the same calls go to the relay, over its Unix socket.
"""

import base64
from collections.abc import Mapping
from contextlib import ExitStack
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import quote, urlsplit

import requests
from pydantic import ValidationError
from requests.auth import AuthBase

from auditkit.evidence.canonical import to_bytes
from developer_agent.errors import (
    NotAuthorisedError,
    ServerRefusedError,
    ServerUnreachableError,
    UnexpectedAnswerError,
)
from developer_agent.relay_routes import LAUNCH_PATH
from developer_agent.unix_http import HOST_NAME, UnixSocketAdapter
from schemas import (
    AppendReceipt,
    AppendRequest,
    VerificationReport,
)
from schemas.base import Schema
from schemas.wire import SessionOpening, SessionStatus

CONNECT_TIMEOUT_SECONDS = 5.0
ANSWER_TIMEOUT_SECONDS = 30.0  # between two bytes of an answer
# The server hashes, loads and scores the model before it answers.
SLOW_ANSWER_TIMEOUT_SECONDS = 600.0
ERROR_TYPE_PREFIX = "urn:auditkit:error:"
_JSON = {"Content-Type": "application/json"}
_BINARY = {"Content-Type": "application/octet-stream"}

Timeout = float | tuple[float, float]
S = TypeVar("S", bound=Schema)


class ServerClient:
    """Calls to one server with one token. Use one client per thread."""

    def __init__(
        self,
        base_url: str,
        token: str | None = None,
        timeout: Timeout = (CONNECT_TIMEOUT_SECONDS, ANSWER_TIMEOUT_SECONDS),
        socket: Path | None = None,
    ) -> None:
        """Remember where the server is; nothing is sent yet.

        Args:
            base_url: for example `https://audit.example.org`; may carry a path prefix.
            token: the bearer token from the auditor; None for the calls that need none.
            timeout: seconds to wait for a connection and between two bytes of an answer.
            socket: the relay's Unix socket; requests then go there as plain HTTP, without proxies,
                and `base_url` is only the name in messages.

        Raises:
            ServerUnreachableError: `base_url` is not an http or https URL.
        """
        if not _is_address(base_url):
            raise ServerUnreachableError(
                f"{base_url!r} is no server address; expected one like https://audit.example.org"
            )
        self.base_url = base_url.rstrip("/")
        self._root = self.base_url
        self._timeout = timeout
        self._session = requests.Session()
        if socket is not None:
            self._root = f"http://{HOST_NAME}"
            self._session.trust_env = False  # proxies of the environment lead elsewhere
            self._session.mount(self._root, UnixSocketAdapter(socket))
        if token is not None:
            # As `auth` and not as a header, which credentials in a .netrc file would replace.
            self._session.auth = BearerToken(token)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close idle connections."""
        self._session.close()

    # Every method below raises ServerUnreachableError, ServerRefusedError, NotAuthorisedError or
    # UnexpectedAnswerError.

    def trust_root(self, version: int | None = None) -> bytes:
        """Fetch a version of the trust root, a DSSE envelope; None: the newest.

        Pin one out of band; never trust it on sight.
        """
        path = "/v1/trust-root" if version is None else f"/v1/trust-root/{version}"
        return self._get(path).content

    def healthy(self) -> bool:
        """Ask whether the server is up."""
        return _object(self._get("/v1/health")).get("status") == "ok"

    def order(self, order_id: str) -> bytes:
        """Fetch one order, a DSSE envelope."""
        return self._get(f"/v1/orders/{_segment(order_id)}").content

    def open_session(
        self, order_id: str, request: bytes, pool_leaves: bytes, test_leaves: bytes
    ) -> bytes:
        """Ask for a session; return the grant, a DSSE envelope.

        Args:
            order_id: the order to train under.
            request: canonical bytes of the `SessionRequest`.
            pool_leaves: 32 bytes per sample of the pool.
            test_leaves: 32 bytes per fresh test sample.
        """
        opening = SessionOpening(
            order_id=order_id,
            request=request.decode(),
            pool_leaves=_base64(pool_leaves),
            test_leaves=_base64(test_leaves),
        )
        body = opening.model_dump_json().encode()
        return self._call("POST", "/v1/sessions", data=body, headers=_JSON).content

    def sessions(self) -> list[SessionStatus]:
        """List the sessions that this token may see."""
        answer = self._get("/v1/sessions")
        return [_validated(answer, to_bytes(item), SessionStatus) for item in _list(answer)]

    def status(self, session_id: str) -> SessionStatus:
        """Fetch how far a session is."""
        return _parsed(self._get(_session(session_id)), SessionStatus)

    def continue_session(self, session_id: str, request: bytes) -> bytes:
        """Ask to go on under a new session key; return the continuation, a DSSE envelope.

        Args:
            session_id: a session whose log was broken off.
            request: canonical bytes of the `ContinuationRequest`; the same bytes again get the
                same answer.
        """
        path = _session(session_id, "continuations")
        return self._call("POST", path, data=request, headers=_JSON).content

    def membership_codes(self, session_id: str, request: bytes) -> bytes:
        """Ask for the session's codes; return them encrypted to the key in the request.

        Args:
            session_id: a session that trains with codes and is not sealed.
            request: a `CodesRequest` in a DSSE envelope, signed by the session key.
        """
        path = _session(session_id, "membership-codes")
        timeout = SLOW_ANSWER_TIMEOUT_SECONDS
        return self._call("POST", path, data=request, headers=_JSON, timeout=timeout).content

    def exchange(self, session_id: str, message: bytes) -> bytes:
        """Send one message to the MINT Model that the server holds; return its answer.

        Args:
            session_id: a session that trains with `mint.custody = "auditor"`.
            message: as `auditkit.evidence.mint_exchange` writes it.
        """
        path = _session(session_id, "mint-exchanges")
        timeout = SLOW_ANSWER_TIMEOUT_SECONDS
        return self._call("POST", path, data=message, headers=_BINARY, timeout=timeout).content

    def append(self, session_id: str, request: AppendRequest) -> AppendReceipt:
        """Send one flush. Equal requests make equal bytes, so a repetition is recognised."""
        answer = self._call(
            "POST",
            _session(session_id, "records"),
            data=request.model_dump_json().encode(),
            headers=_JSON,
        )
        return _parsed(answer, AppendReceipt)

    def submit(
        self, session_id: str, weights: Path, description: Path, scores: Path
    ) -> VerificationReport:
        """Hand over M+; return what the verification found."""
        files = {"weights": weights, "description": description, "scores": scores}
        return self._submit(session_id, files)

    def submit_description(self, session_id: str, description: Path) -> VerificationReport:
        """Hand over M+ whose T the auditor holds: the server has put it together itself."""
        return self._submit(session_id, {"description": description})

    def verification(self, session_id: str) -> VerificationReport:
        """Have the stored session verified; return what was found."""
        path = _session(session_id, "verification")
        return _parsed(self._get(path, timeout=SLOW_ANSWER_TIMEOUT_SECONDS), VerificationReport)

    def launch_document(self) -> bytes | None:
        """Ask the relay for the launch document; None while the launcher has not published it.

        For the agent inside a container only: no auditor's server has such a document.
        """
        try:
            return self._get(LAUNCH_PATH).content
        except ServerRefusedError as error:
            if error.status == HTTPStatus.SERVICE_UNAVAILABLE:
                return None
            raise

    def _submit(self, session_id: str, files: Mapping[str, Path]) -> VerificationReport:
        with ExitStack() as opened:
            parts = {
                name: (path.name, opened.enter_context(path.open("rb")), _media_type(path))
                for name, path in files.items()
            }
            answer = self._call(
                "PUT",
                _session(session_id, "submission"),
                files=parts,
                timeout=SLOW_ANSWER_TIMEOUT_SECONDS,
            )
        return _parsed(answer, VerificationReport)

    def _get(
        self, path: str, *, timeout: Timeout | None = None, stream: bool = False
    ) -> requests.Response:
        return self._call("GET", path, timeout=timeout, stream=stream)

    def _call(
        self,
        method: str,
        path: str,
        *,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, float] | None = None,
        files: Any = None,  # noqa: ANN401 - the forms that requests accepts have no public type
        timeout: Timeout | None = None,
        stream: bool = False,
    ) -> requests.Response:
        try:
            answer = self._session.request(
                method,
                self._root + path,
                data=data,
                headers=headers,
                params=params,
                files=files,
                timeout=timeout or self._timeout,
                stream=stream,
                allow_redirects=False,
            )
        except requests.RequestException as error:
            raise unreachable(self.base_url, error) from error
        if answer.ok and not answer.is_redirect:
            return answer
        with answer:
            raise _refusal(answer)


class BearerToken(AuthBase):
    """Sets the Authorization header of every request (RFC 6750, section 2.1)."""

    def __init__(self, token: str) -> None:
        """Remember the token."""
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Set the header."""
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def unreachable(base_url: str, error: requests.RequestException) -> ServerUnreachableError:
    """Return the error that says why no answer came, and what to do."""
    if isinstance(error, requests.exceptions.SSLError):
        advice = "its certificate was not accepted; set REQUESTS_CA_BUNDLE to your CA's file"
    elif isinstance(error, requests.exceptions.Timeout):
        advice = "it did not answer in time; try again, or look at the server's load"
    else:
        advice = "check the address, the network, and that the server runs"
    return ServerUnreachableError(f"{base_url} was not reached: {advice} ({error})")


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:  # brackets that hold no IPv6 address
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def _session(session_id: str, part: str | None = None) -> str:
    path = f"/v1/sessions/{_segment(session_id)}"
    return path if part is None else f"{path}/{part}"


def _segment(name: str) -> str:
    """One path segment, whatever the name holds."""
    return quote(name, safe="")


def _media_type(path: Path) -> str:
    return "application/json" if path.suffix == ".json" else "application/octet-stream"


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _refusal(answer: requests.Response) -> ServerRefusedError | UnexpectedAnswerError:
    if answer.is_redirect:
        return UnexpectedAnswerError(
            f"{answer.url} redirects to {answer.headers.get('Location')}; redirects are not "
            "followed, so that the token stays here. Use the server's final address"
        )
    problem = _problem(answer)
    error_name = str(problem.get("type", "")).removeprefix(ERROR_TYPE_PREFIX)
    detail = str(problem.get("detail") or problem.get("title") or answer.reason)
    # 403 also says that a session has expired, which another token would not heal.
    if answer.status_code == 401 or error_name == "NotAllowedError":
        return NotAuthorisedError(
            answer.status_code, error_name, f"{detail}; check the token the auditor gave you"
        )
    return ServerRefusedError(answer.status_code, error_name, detail)


def _problem(answer: requests.Response) -> dict[str, Any]:
    """Return the problem details of RFC 9457, or nothing when something else answered."""
    try:
        problem = answer.json()
    except (requests.RequestException, ValueError):
        return {}
    return problem if isinstance(problem, dict) else {}


def _json(answer: requests.Response) -> Any:  # noqa: ANN401 - any JSON value
    try:
        return answer.json()
    except requests.exceptions.JSONDecodeError as error:
        raise UnexpectedAnswerError(
            f"{answer.url} answered with something that is not JSON; is it an auditkit server, or "
            "does a proxy answer for it?"
        ) from error


def _object(answer: requests.Response) -> dict[str, Any]:
    value = _json(answer)
    if isinstance(value, dict):
        return value
    raise UnexpectedAnswerError(f"{answer.url} answered with JSON that is no object")


def _list(answer: requests.Response) -> list[dict[str, Any]]:
    value = _json(answer)
    if isinstance(value, list) and all(isinstance(item, dict) for item in value):
        return value
    raise UnexpectedAnswerError(f"{answer.url} answered with JSON that is no list of objects")


def _parsed(answer: requests.Response, model: type[S]) -> S:
    return _validated(answer, answer.content, model)


def _validated(answer: requests.Response, document: bytes, model: type[S]) -> S:
    try:
        return model.from_bytes(document)
    except ValidationError as error:
        raise _unlike(answer.url, model, error) from error


def _unlike(url: str, model: type[Schema], error: ValidationError) -> UnexpectedAnswerError:
    return UnexpectedAnswerError(
        f"{url} answered with something that is no {model.__name__}; is it an auditkit server of "
        f"this version? ({error.error_count()} fields differ)"
    )
