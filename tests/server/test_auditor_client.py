"""The client against a real server, and against one that must not be believed."""

import contextlib
import io
import re
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_story import ORDER, StoryServer
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from described import operation_of, operations
from hand_built import HandBuiltAgent, make_request, opening
from submitted import as_png, noise_image
from test_granting_continuations import make_request as make_continuation
from test_replays import answer

from auditkit.client import (
    _SESSIONS,
    MOST_NOTE_BYTES,
    AddressError,
    AuditorClient,
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
)
from auditkit.evidence import canonical, dsse, statements
from auditkit.evidence.bundle import read_bundle
from auditkit.evidence.canonical import sha256_hex
from auditkit.evidence.code_delivery import CodesReceiver, sign_request
from auditkit.evidence.keys import SigningKey
from schemas import AppendRequest, CodesRequest, DrawRequest, ReplayDraw, SessionGrant
from schemas.wire import SessionOpening

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "python.md"
PNG = as_png(noise_image(1))


@pytest.fixture
def auditor(story_server: StoryServer) -> Iterator[AuditorClient]:
    with AuditorClient(story_server.url + "/", story_server.home.tokens["auditor"]) as client:
        yield client


def test_there_is_a_method_for_every_route(
    story_server: StoryServer, auditor: AuditorClient, tmp_path: Path
) -> None:
    asked: set[str] = set()

    def note(response: httpx.Response) -> None:
        operation = operation_of(response.request.method, response.url.path)
        asked.add(operation.name if operation else "GET /v1/openapi.json")

    auditor._http.event_hooks["response"] = [note]
    auditor.health()
    auditor.ready()
    assert auditor.description()["openapi"].startswith("3.1")
    root = auditor.trust_root()
    assert auditor.trust_root(1) == root
    assert auditor.registry_checkpoint().startswith(b"audit.example.org/registry\n")
    page = auditor.registry_entries(1, 4, limit=2)
    assert auditor.registry_entry(1) == page.leaves[0].encode()
    assert auditor.inclusion_proof(index=1).leaf == page.leaves[0]
    assert auditor.consistency_proof(1, 4).new_size == 4

    order = auditor.order(ORDER)
    assert auditor.add_order(order).order_id == ORDER
    assert ORDER in [summary.order_id for summary in auditor.orders()]

    key = SigningKey.generate()
    request = make_request(sha256_hex(order.payload), key)
    wanted = SessionOpening(**opening(ORDER, request))
    envelope = auditor.open_session(wanted)
    assert auditor.open_session(wanted) == envelope
    grant = statements.parse(envelope.payload, statements.GRANT_PREDICATE, SessionGrant)
    assert auditor.session(grant.session_id) in list(auditor.sessions())
    with pytest.raises(InvalidRequestError, match="EmptyFlushError"):
        auditor.append(grant.session_id, AppendRequest(first=0, records=(), checkpoint=""))
    codes = CodesRequest(session_id=grant.session_id, ephemeral_key=CodesReceiver().public_key)
    with pytest.raises(ConflictError, match="CodesNotUsedError"):
        auditor.membership_codes(
            grant.session_id, dsse.Envelope.from_bytes(sign_request(codes, key))
        )
    with pytest.raises(InvalidRequestError, match="ExchangeFormatError"):
        auditor.exchange(grant.session_id, b"")
    agent = HandBuiltAgent(story_server.client("auditor"), grant, sha256_hex(envelope.payload), key)
    with pytest.raises(InvalidRequestError, match="NotInContainerError"):
        auditor.continue_session(grant.session_id, make_continuation(agent, SigningKey.generate()))
    (tmp_path / "description.json").write_bytes(b"{}")
    with pytest.raises(ConflictError, match="SessionNotSealedError"):
        auditor.submit(grant.session_id, *[tmp_path / "description.json"] * 3)

    session = story_server.submitted
    assert auditor.verification(session).session_id == session
    file = io.BytesIO()
    assert auditor.bundle(session, file) == len(file.getvalue())
    assert read_bundle(file).order == order.to_bytes()
    assert "<html" in auditor.report(session)
    found = auditor.query(session, [("a.png", PNG), ("b.png", PNG)], false_positive_rate=0.1)
    assert len(found.verdicts) == len(found.adjusted_p_values) == 2
    inquiry = auditor.inquire([session], [("a.png", PNG)], purpose="a complaint")
    assert auditor.inquiry(inquiry.inquiry.id) == inquiry
    (answered,) = inquiry.inquiry.models[0].answers
    signed = auditor.verdict(session, answered.verdict_id)
    assert canonical.to_bytes(inquiry.verdicts[0]) == signed.to_bytes()
    drawn = auditor.draw_segments(session, DrawRequest(uniform=1))
    assert canonical.to_bytes(list(auditor.draws(session))[-1].draw) == drawn.to_bytes()
    draw = statements.parse(drawn.payload, statements.REPLAY_DRAW_PREDICATE, ReplayDraw)
    with pytest.raises(NotFoundError, match="DrawNotFoundError"):
        auditor.add_replay(session, answer(draw, "00" * 32))
    assert next(auditor.audit_trail(session)).session_id == session
    assert asked == {operation.name for operation in operations()} | {"GET /v1/openapi.json"}


def test_lists_are_whole_however_many_pages_they_have(
    auditor: AuditorClient, story_server: StoryServer
) -> None:
    whole = {status.id for status in auditor.sessions()}
    pages = auditor._pages("/sessions", _SESSIONS, {"limit": 1})
    assert {status.id for page in pages for status in page} == whole
    assert len(whole) > 2


@pytest.mark.parametrize(
    ("role", "ask", "kind", "name"),
    [
        (None, lambda c: list(c.orders()), NotAuthorisedError, "NotAuthenticatedError"),
        ("developer", lambda c: list(c.audit_trail()), NotAuthorisedError, "NotAllowedError"),
        ("auditor", lambda c: c.order("a b"), InvalidRequestError, "InvalidParameterError"),
        ("auditor", lambda c: c.session("none"), NotFoundError, "SessionNotFoundError"),
        ("auditor", lambda c: c.registry_entry(10**6), NotFoundError, "RegistryEntryNotFoundError"),
    ],
)
def test_what_the_server_refuses_is_a_typed_error(
    story_server: StoryServer, role: Any, ask: Any, kind: type[RefusedError], name: str
) -> None:
    token = story_server.home.tokens[role] if role else None
    with AuditorClient(story_server.url, token) as client, pytest.raises(kind) as caught:
        ask(client)
    assert caught.value.error_name == name
    assert caught.value.detail in str(caught.value)
    assert caught.value.problem is not None


@pytest.mark.parametrize("address", ["", "audit.example.org", "ftp://a", "http://", "http://[::x"])
def test_what_is_no_address_is_refused_at_once(address: str) -> None:
    with pytest.raises(AddressError, match="no server address"):
        AuditorClient(address)


@dataclass
class Answers:
    """A server that answers what it is told to, and notes what it was asked."""

    url: str = ""
    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    bad_answers: int = 10**6
    asked: list[tuple[str, str]] = field(default_factory=list)


@pytest.fixture
def answers() -> Iterator[Answers]:
    told = Answers()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            told.asked.append((self.command, self.path))
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            bad = len(told.asked) <= told.bad_answers
            body = told.body if bad else b'{"status":"ok"}'
            self.send_response(told.status if bad else 200)
            for name, value in told.headers.items() if bad else ():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = answer  # noqa: N815 - names that http.server asks for

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    told.url = f"http://127.0.0.1:{listener.server_address[1]}"
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    yield told
    listener.shutdown()
    listener.server_close()


@pytest.mark.parametrize("body", [b"", b"<html>Sign in</html>", b"[1]", b'{"status":"well"}'])
def test_an_answer_of_another_kind_is_not_believed(answers: Answers, body: bytes) -> None:
    answers.body = body
    client = AuditorClient(answers.url)
    for ask in (client.health, client.trust_root, lambda: list(client.orders())):
        with pytest.raises(UnexpectedAnswerError):
            ask()


def test_redirects_are_not_followed(answers: Answers) -> None:
    answers.status, answers.headers = 307, {"Location": "https://elsewhere.example.org/"}
    with pytest.raises(UnexpectedAnswerError, match="elsewhere"):
        AuditorClient(answers.url, "secret").health()


def test_a_list_leads_to_no_other_server(answers: Answers) -> None:
    answers.body = b"[]"
    answers.headers = {"Link": '<https://elsewhere.example.org/v1/orders?cursor=x>; rel="next"'}
    pages = AuditorClient(answers.url, "secret")._pages("/orders", _SESSIONS)
    next(pages)
    next(pages)
    assert answers.asked == [("GET", "/v1/orders"), ("GET", "/v1/orders?cursor=x")]


def test_nobody_fills_the_memory(answers: Answers) -> None:
    answers.body = bytes(MOST_NOTE_BYTES + 1)
    with pytest.raises(UnexpectedAnswerError, match="more than"):
        AuditorClient(answers.url).registry_checkpoint()


def test_a_bundle_that_breaks_off_is_no_bundle(answers: Answers) -> None:
    answers.body, answers.headers = b"half", {"Content-Length": "100"}
    with pytest.raises(UnreachableError):
        AuditorClient(answers.url).bundle("s", io.BytesIO())


def test_what_goes_over_is_asked_again(answers: Answers) -> None:
    answers.status, answers.bad_answers = 503, 1
    assert AuditorClient(answers.url).health().status == "ok"
    assert len(answers.asked) == 2


def test_what_changes_something_is_not_sent_again(answers: Answers) -> None:
    answers.status = 503
    with pytest.raises(ServerFaultError):
        AuditorClient(answers.url).draw_segments("s", DrawRequest(uniform=1))
    assert len(answers.asked) == 1


def test_the_server_says_when_to_come_again(answers: Answers) -> None:
    answers.status, answers.headers = 429, {"Retry-After": "3600"}
    with pytest.raises(TooManyRequestsError) as caught:
        AuditorClient(answers.url).health()
    assert caught.value.retry_after_seconds == 3600
    assert len(answers.asked) == 1  # nobody waits for an hour


def test_nobody_is_there(answers: Answers) -> None:
    with pytest.raises(ClientError, match="was not reached"):
        AuditorClient("http://127.0.0.1:1", retries=0).health()


def test_the_guide_does_what_it_says(story_server: StoryServer, tmp_path: Path) -> None:
    """Every snippet of the guide, one after the other."""
    snippets = re.findall(r"```python\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)
    (tmp_path / "picture.png").write_bytes(PNG)
    (tmp_path / "trust-root.json").write_bytes(story_server.home.trust_root_bytes)
    names: dict[str, Any] = {
        "server": story_server.url,
        "token": story_server.home.tokens["compliance-officer"],
        "session_id": story_server.submitted,
        "order_id": ORDER,
        "folder": tmp_path,
        "picture": tmp_path / "picture.png",
        "trust_root": tmp_path / "trust-root.json",
    }
    for snippet in snippets:
        exec(compile(snippet, str(GUIDE), "exec"), names)
    names["client"].close()
    assert len(snippets) > 5
    assert names["order"].order_id == ORDER
    assert read_bundle((tmp_path / "evidence.bundle").open("rb")).order


def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path: Path) -> None:
    certificate = tmp_path / "certificate.pem"
    certificate.write_bytes(self_signed())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            with contextlib.suppress(OSError):
                context.wrap_socket(listener.accept()[0], server_side=True)

        greeting = threading.Thread(target=greet, daemon=True)
        greeting.start()
        address = f"https://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(UnreachableError, match="certificate was not accepted"):
            AuditorClient(address, retries=0).health()
        greeting.join()


def self_signed() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private + certificate.public_bytes(pem)
