"""The auditor's server from Python: one method per route, typed answers, typed errors.

    with AuditorClient("https://audit.example.org", token) as client:
        for session in client.sessions():
            print(session.id, session.state)

Answers are checked against their schemas before they are returned, and are never read beyond a
limit. Redirects are not followed, so the token stays with the server that was named. Signed
documents come as envelopes, whose signatures are *not* verified here: that takes the auditor's
trust root (`auditkit.evidence.trust_history`), pinned out of band.

Every method raises `ClientError`, and names of it only what is special.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import IO, Any, Self, TypeVar
from urllib.parse import quote

import httpx
from pydantic import TypeAdapter, ValidationError

from auditkit.client_errors import (
    AddressError,
    ClientError,
    ConflictError,
    InvalidRequestError,
    NotAuthorisedError,
    NotFoundError,
    RefusedError,
    ServerFaultError,
    TooManyRequestsError,
    UnexpectedAnswerError,
    UnreachableError,
    refused,
)
from auditkit.evidence import canonical
from auditkit.evidence.dsse import Envelope
from auditkit.evidence.errors import EnvelopeFormatError
from schemas import (
    AppendReceipt,
    AppendRequest,
    ConsistencyProof,
    ContinuationRequest,
    DrawRequest,
    InclusionProof,
    RegistryEntries,
    ReplayResult,
    VerificationReport,
)
from schemas.base import Schema
from schemas.inquiry import InquiryAnswer
from schemas.wire import (
    DrawnReplay,
    DrawPage,
    Health,
    OrderAdded,
    OrderSummary,
    Problem,
    QueryAnswer,
    Readiness,
    SessionOpening,
    SessionStatus,
    TrailEntry,
    TrailPage,
)

__all__ = [
    "AddressError",
    "AuditorClient",
    "ClientError",
    "ConflictError",
    "InvalidRequestError",
    "NotAuthorisedError",
    "NotFoundError",
    "RefusedError",
    "ServerFaultError",
    "TooManyRequestsError",
    "UnexpectedAnswerError",
    "UnreachableError",
]

CONNECT_TIMEOUT_SECONDS = 5.0
ANSWER_TIMEOUT_SECONDS = 30.0  # between two bytes of an answer
# The server hashes, loads, scores or verifies a model before it answers.
SLOW_ANSWER_TIMEOUT_SECONDS = 600.0
# After a failure that goes over by itself; only what was not begun, or changes nothing.
RETRIES = 2
FIRST_WAIT_SECONDS = 0.5
MOST_WAIT_SECONDS = 10.0
TEMPORARY_STATUSES = frozenset({429, 502, 503, 504})
# What is read of an answer at most: a note with many cosignatures; a page of a list, a document or
# a report. Bundles are written to a file as they come.
MOST_NOTE_BYTES = 1 << 20
MOST_ANSWER_BYTES = 1 << 26

BAD_CERTIFICATE = "CERTIFICATE_VERIFY_FAILED"  # OpenSSL's reason; httpx passes on its text alone

_JSON = {"Content-Type": "application/json"}
_BINARY = {"Content-Type": "application/octet-stream"}
_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_SLOW = httpx.Timeout(SLOW_ANSWER_TIMEOUT_SECONDS, connect=CONNECT_TIMEOUT_SECONDS)
_ORDERS = TypeAdapter(tuple[OrderSummary, ...])
_SESSIONS = TypeAdapter(tuple[SessionStatus, ...])

S = TypeVar("S", bound=Schema)
Item = TypeVar("Item", bound=Schema)


class AuditorClient:
    """One auditor's server, asked with one token. Threads may share it."""

    def __init__(
        self,
        base_url: str,
        token: str | None = None,
        *,
        timeout: float = ANSWER_TIMEOUT_SECONDS,
        retries: int = RETRIES,
    ) -> None:
        """Remember where the server is; nothing is sent yet.

        Args:
            base_url: for example `https://audit.example.org`; may carry a path prefix.
            token: the bearer token from the auditor; None for what anyone may read.
            timeout: seconds to wait between two bytes of an answer; slow calls wait longer.
            retries: how often a request is sent again that failed on the way.

        Raises:
            AddressError: `base_url` is not an http or https URL.

        """
        self.base_url = base_url.rstrip("/")
        self._retries = retries
        try:
            url = httpx.URL(self.base_url)
        except httpx.InvalidURL as error:
            raise _no_address(base_url) from error
        if url.scheme not in {"http", "https"} or not url.host:
            raise _no_address(base_url)
        self._http = httpx.Client(
            headers={} if token is None else {"Authorization": f"Bearer {token}"},
            timeout=httpx.Timeout(timeout, connect=CONNECT_TIMEOUT_SECONDS),
            follow_redirects=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close idle connections."""
        self._http.close()

    # What anyone may read

    def health(self) -> Health:
        """Ask whether the server answers."""
        return self._document("GET", "/health", Health)

    def ready(self) -> Readiness:
        """Ask whether the server can do its work; it is away for as long as it can't."""
        return self._document("GET", "/ready", Readiness)

    def description(self) -> dict[str, Any]:
        """Fetch the API's description (OpenAPI 3.1)."""
        path = "/openapi.json"
        found = _parsed(self, path, self._bytes("GET", path), TypeAdapter(dict[str, Any]))
        return dict(found)

    def trust_root(self, version: int | None = None) -> Envelope:
        """Fetch a version of the trust root; None: the newest. Pin one; never trust it on sight."""
        return self._envelope("GET", "/trust-root" if version is None else f"/trust-root/{version}")

    def registry_checkpoint(self) -> bytes:
        """Fetch the newest head of the registry, a cosigned C2SP checkpoint."""
        return self._bytes("GET", "/registry/checkpoint", most_bytes=MOST_NOTE_BYTES)

    def registry_entries(
        self, start: int = 0, end: int | None = None, limit: int | None = None
    ) -> RegistryEntries:
        """Fetch raw leaves from `start` up to `end`, as many as the server gives at once.

        Raises:
            UnexpectedAnswerError: also when they are not the leaves that were asked for.

        """
        asked = {"start": start, "end": end, "limit": limit}
        page = self._document("GET", "/registry/entries", RegistryEntries, params=asked)
        if page.start != start or (end is not None and len(page.leaves) > end - start):
            raise UnexpectedAnswerError(
                f"entries {start} to {end} of the registry were asked for, the answer has "
                f"{len(page.leaves)} from {page.start} on"
            )
        return page

    def registry_entry(self, index: int) -> bytes:
        """Fetch the exact bytes of one leaf, a RegistryEntry."""
        return self._bytes("GET", f"/registry/entries/{index}")

    def inclusion_proof(
        self, *, index: int | None = None, digest: str | None = None, size: int | None = None
    ) -> InclusionProof:
        """Fetch the proof that an entry is in the tree; name it by its index or its digest."""
        asked = {"index": index, "digest": digest, "size": size}
        return self._document("GET", "/registry/proof/inclusion", InclusionProof, params=asked)

    def consistency_proof(self, old: int, new: int | None = None) -> ConsistencyProof:
        """Fetch the proof that the newer tree of the registry begins with the older one."""
        asked = {"old": old, "new": new}
        return self._document("GET", "/registry/proof/consistency", ConsistencyProof, params=asked)

    # Orders

    def add_order(self, order: Envelope) -> OrderAdded:
        """File a signed AuditOrder. The same one again changes nothing."""
        return self._document(
            "POST", "/orders", OrderAdded, content=order.to_bytes(), headers=_JSON
        )

    def orders(self) -> Iterator[OrderSummary]:
        """Yield the orders that the token sees, oldest first; pages are fetched as needed."""
        return self._items("/orders", _ORDERS)

    def order(self, order_id: str) -> Envelope:
        """Fetch one signed AuditOrder."""
        return self._envelope("GET", f"/orders/{_segment(order_id)}")

    # Sessions

    def open_session(self, opening: SessionOpening) -> Envelope:
        """Open a session; return the signed SessionGrant. The same again gets the same grant."""
        return self._envelope(
            "POST", "/sessions", content=canonical.to_bytes(opening), headers=_JSON
        )

    def sessions(self) -> Iterator[SessionStatus]:
        """Yield the sessions that the token sees, oldest first; pages are fetched as needed."""
        return self._items("/sessions", _SESSIONS)

    def session(self, session_id: str) -> SessionStatus:
        """Fetch how far a session has come."""
        return self._document("GET", _session(session_id), SessionStatus)

    def continue_session(self, session_id: str, request: ContinuationRequest) -> Envelope:
        """Ask to go on under a new key; return the signed SessionContinuation."""
        content = canonical.to_bytes(request)
        return self._envelope(
            "POST", _session(session_id, "continuations"), content=content, headers=_JSON
        )

    def membership_codes(self, session_id: str, request: Envelope) -> bytes:
        """Ask for a session's codes, encrypted; `request` is a CodesRequest of the session key."""
        return self._bytes(
            "POST",
            _session(session_id, "membership-codes"),
            content=request.to_bytes(),
            headers=_JSON,
            slow=True,
        )

    def exchange(self, session_id: str, message: bytes) -> bytes:
        """Send one message to the MINT Model that the auditor holds; return its answer."""
        return self._bytes(
            "POST",
            _session(session_id, "mint-exchanges"),
            content=message,
            headers=_BINARY,
            slow=True,
        )

    def append(self, session_id: str, request: AppendRequest) -> AppendReceipt:
        """Append one flush to a session's log. The same again gets the same receipt."""
        return self._document(
            "POST",
            _session(session_id, "records"),
            AppendReceipt,
            content=canonical.to_bytes(request),
            headers=_JSON,
        )

    def submit(
        self,
        session_id: str,
        description: Path,
        weights: Path | None = None,
        scores: Path | None = None,
    ) -> VerificationReport:
        """Hand over M+, or its description alone where the auditor holds T.

        Raises:
            OSError: a file cannot be read.

        """
        named = {"description": description, "weights": weights, "scores": scores}
        with ExitStack() as opened:
            files = {
                name: (path.name, opened.enter_context(path.open("rb")))
                for name, path in named.items()
                if path is not None
            }
            return self._document(
                "PUT",
                _session(session_id, "submission"),
                VerificationReport,
                files=files,
                slow=True,
            )

    # What the evidence says

    def verification(self, session_id: str) -> VerificationReport:
        """Have the stored session verified; return what was found."""
        path = _session(session_id, "verification")
        return self._document("GET", path, VerificationReport, slow=True)

    def bundle(self, session_id: str, destination: IO[bytes]) -> int:
        """Write the session's evidence bundle to a file; return its size in bytes."""
        with self._sent("GET", _session(session_id, "bundle"), slow=True) as answer:
            return sum(destination.write(block) for block in answer.iter_bytes())

    def report(self, session_id: str) -> str:
        """Fetch the report, one HTML page."""
        return self._bytes("GET", _session(session_id, "report"), slow=True).decode()

    def query(
        self,
        session_id: str,
        images: Sequence[tuple[str, bytes]],
        *,
        false_positive_rate: float | None = None,
        openings: Sequence[bytes] = (),
        purpose: str | None = None,
    ) -> QueryAnswer:
        """Ask whether images were told to T as members.

        Args:
            session_id: a submitted session.
            images: file name and file content (PNG, JPEG, …) of each image.
            false_positive_rate: None: the order's.
            openings: a SampleOpening for each image, to ask for their own codes; or none.
            purpose: what is asked for; the server's audit trail keeps it. Only auditors may leave
                it out, who then ask for what the order says.

        Raises:
            UnexpectedAnswerError: also when there is not one verdict for each image.

        """
        answer = self._document(
            "POST",
            _session(session_id, "queries"),
            QueryAnswer,
            params={"false_positive_rate": false_positive_rate},
            data={} if purpose is None else {"purpose": purpose},
            files=[
                *(("images", image) for image in images),
                *(
                    ("openings", (f"{number}.json", opening))
                    for number, opening in enumerate(openings)
                ),
            ],
            slow=True,
        )
        if len(answer.verdicts) != len(images):
            raise UnexpectedAnswerError(
                f"{len(images)} images were asked about, and the answer has "
                f"{len(answer.verdicts)} verdicts; is {self.base_url} of this version?"
            )
        return answer

    def verdict(self, session_id: str, verdict_id: str) -> Envelope:
        """Fetch one signed MembershipVerdict."""
        return self._envelope("GET", _session(session_id, f"verdicts/{_segment(verdict_id)}"))

    def inquire(
        self,
        session_ids: Sequence[str],
        pictures: Sequence[tuple[str, bytes]],
        *,
        purpose: str | None = None,
        false_positive_rate: float | None = None,
        false_discovery_rate: float | None = None,
        openings: Sequence[bytes] = (),
        resize: bool = False,
    ) -> InquiryAnswer:
        """Ask several models about many pictures at once.

        Args:
            session_ids: submitted sessions.
            pictures: file name and file content of each image, or of ZIP archives of images.
            purpose: see `query`.
            false_positive_rate: of each verdict; None: what each model's order says.
            false_discovery_rate: of the whole; None: the server's.
            openings: SampleOpenings of pictures among these, to ask for their own codes.
            resize: take pictures of another size than a model's.
        """
        fields = {
            "model": list(session_ids),
            "purpose": purpose,
            "false_positive_rate": false_positive_rate,
            "false_discovery_rate": false_discovery_rate,
            "resize": "yes" if resize else None,
        }
        return self._document(
            "POST",
            "/inquiries",
            InquiryAnswer,
            data={name: value for name, value in fields.items() if value is not None},
            files=[
                *(("pictures", picture) for picture in pictures),
                *(
                    ("openings", (f"{number}.json", opening))
                    for number, opening in enumerate(openings)
                ),
            ],
            slow=True,
        )

    def inquiry(self, inquiry_id: str) -> InquiryAnswer:
        """Fetch what was answered to an inquiry."""
        return self._document("GET", f"/inquiries/{_segment(inquiry_id)}", InquiryAnswer)

    # Replays

    def draw_segments(self, session_id: str, asked: DrawRequest) -> Envelope:
        """Have segments of a sealed log drawn, anew each time; return the signed ReplayDraw."""
        return self._envelope(
            "POST",
            _session(session_id, "draws"),
            content=canonical.to_bytes(asked),
            headers=_JSON,
            slow=True,
        )

    def draws(self, session_id: str) -> Iterator[DrawnReplay]:
        """Yield the draws of a session in their order, each with its result if it has one."""
        for page in self._pages(_session(session_id, "draws"), TypeAdapter(DrawPage)):
            yield from page.draws

    def add_replay(self, session_id: str, result: ReplayResult) -> Envelope:
        """Hand in what a replay gave; return it signed. The same again changes nothing."""
        return self._envelope(
            "POST",
            _session(session_id, "replays"),
            content=canonical.to_bytes(result),
            headers=_JSON,
            slow=True,
        )

    # The audit trail

    def audit_trail(self, session_id: str | None = None) -> Iterator[TrailEntry]:
        """Yield who looked at and asked what, newest first; None: of all sessions and of none."""
        asked = {"session_id": session_id}
        for page in self._pages("/audit-trail", TypeAdapter(TrailPage), asked):
            yield from page.entries

    # How it is asked

    def _items(self, path: str, model: TypeAdapter[tuple[Item, ...]]) -> Iterator[Item]:
        for page in self._pages(path, model):
            yield from page

    def _pages(
        self, path: str, model: TypeAdapter[Any], asked: Mapping[str, Any] | None = None
    ) -> Iterator[Any]:
        """Yield the pages of a list, as its `Link` headers lead (RFC 8288)."""
        params: Mapping[str, Any] | None = asked
        while True:
            with self._sent("GET", path, params=params) as answer:
                content = _read(answer, MOST_ANSWER_BYTES)
            yield _parsed(self, path, content, model)
            if "next" not in answer.links:
                return
            # Of the address only the parameters count, so that it never leads elsewhere.
            params = dict(answer.url.join(answer.links["next"]["url"]).params)

    def _document(self, method: str, path: str, model: type[S], **options: Any) -> S:  # noqa: ANN401
        found: S = _parsed(self, path, self._bytes(method, path, **options), TypeAdapter(model))
        return found

    def _envelope(self, method: str, path: str, **options: Any) -> Envelope:  # noqa: ANN401
        content = self._bytes(method, path, **options)
        try:
            return Envelope.from_bytes(content)
        except EnvelopeFormatError as error:
            raise _unlike(self.base_url, path, "a signed document") from error

    def _bytes(
        self,
        method: str,
        path: str,
        *,
        most_bytes: int = MOST_ANSWER_BYTES,
        **options: Any,  # noqa: ANN401 - those of `_sent`
    ) -> bytes:
        with self._sent(method, path, **options) as answer:
            return _read(answer, most_bytes)

    @contextmanager
    def _sent(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        slow: bool = False,
        **content: Any,  # noqa: ANN401 - what httpx takes as a body
    ) -> Iterator[httpx.Response]:
        """Send a request, again if that is safe; the answer is good, and not read yet."""
        request = self._http.build_request(
            method,
            f"{self.base_url}/v1{path}",
            params={name: value for name, value in (params or {}).items() if value is not None},
            timeout=_SLOW if slow else httpx.USE_CLIENT_DEFAULT,
            **content,
        )
        try:
            answer = self._answer(request)
            try:
                yield answer
            finally:
                answer.close()
        except httpx.HTTPError as error:
            why = str(error) or type(error).__name__
            raise UnreachableError(
                f"{self.base_url} was not reached: {_advice(error)} ({why})"
            ) from error

    def _answer(self, request: httpx.Request) -> httpx.Response:
        """Return a good answer, not read yet; send the request again as often as that is safe."""
        left = self._retries
        wait = FIRST_WAIT_SECONDS
        while True:
            try:
                answer = self._http.send(request, stream=True)
            except httpx.TransportError as failure:
                safe = request.method == "GET" or isinstance(failure, _NEVER_SENT)
                if not left or not safe:
                    raise
            else:
                if answer.is_success:
                    return answer
                with closing(answer):
                    refusal = _refusal(answer)
                wait = max(wait, getattr(refusal, "retry_after_seconds", None) or 0.0)
                temporary = request.method == "GET" and answer.status_code in TEMPORARY_STATUSES
                if not left or not temporary or wait > MOST_WAIT_SECONDS:
                    raise refusal
            time.sleep(wait)
            left, wait = left - 1, 2 * wait


def _advice(error: httpx.HTTPError) -> str:
    if BAD_CERTIFICATE in str(error):
        return "its certificate was not accepted; set SSL_CERT_FILE to your CA's file"
    if isinstance(error, httpx.TimeoutException):
        return "it did not answer in time; try again, or look at the server's load"
    return "check the address, the network, and that the server runs"


def _read(answer: httpx.Response, most_bytes: int) -> bytes:
    content = bytearray()
    for block in answer.iter_bytes():
        content += block
        if len(content) > most_bytes:
            raise UnexpectedAnswerError(
                f"{answer.url} answered with more than {most_bytes} bytes; is it an auditkit "
                "server?"
            )
    return bytes(content)


def _refusal(answer: httpx.Response) -> ClientError:
    if answer.is_redirect:
        return UnexpectedAnswerError(
            f"{answer.url} redirects to {answer.headers.get('Location')}; redirects are not "
            "followed, so that the token stays here. Use the server's final address"
        )
    try:
        problem = Problem.from_bytes(_read(answer, MOST_NOTE_BYTES))
    except (ValidationError, UnexpectedAnswerError):
        problem = None
    after = answer.headers.get("Retry-After", "")
    return refused(answer.status_code, problem, float(after) if after.isdecimal() else None)


def _parsed(client: AuditorClient, path: str, content: bytes, model: TypeAdapter[Any]) -> Any:  # noqa: ANN401
    try:
        return model.validate_json(content)
    except ValidationError as error:
        what = f"what it should be ({error.error_count()} fields differ)"
        raise _unlike(client.base_url, path, what) from error


def _unlike(base_url: str, path: str, what: str) -> UnexpectedAnswerError:
    return UnexpectedAnswerError(
        f"{base_url}/v1{path} answered with something that is not {what}; is it an auditkit "
        "server of this version, or does a proxy answer for it?"
    )


def _no_address(base_url: str) -> AddressError:
    return AddressError(
        f"{base_url!r} is no server address; expected one like https://audit.example.org"
    )


def _session(session_id: str, part: str | None = None) -> str:
    path = f"/sessions/{_segment(session_id)}"
    return path if part is None else f"{path}/{part}"


def _segment(name: str) -> str:
    """One path segment, whatever the name holds."""
    return quote(name, safe="")
