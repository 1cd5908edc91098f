"""Who asked what and why is on record before it is answered, and no longer than it may be."""

import hashlib
import hmac
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hand_built import DEVELOPER, make_order, make_request, opening, sign_order
from httpx import Response
from live import make_home

from auditkit.evidence import canonical, dsse, statements
from auditkit.evidence.keys import SigningKey
from auditor_server.access import questions, trail
from auditor_server.access.principals import AUTHORITY, Principal
from auditor_server.access.rate_limits import MOST_BUCKETS, Rate, RateLimiter
from auditor_server.app import create_app
from auditor_server.context import Auditor
from auditor_server.errors import RateLimitError
from auditor_server.home import Home
from auditor_server.keys import shared_secret
from auditor_server.settings import ServerSettings
from auditor_server.tokens import TokenRole
from schemas import SessionGrant
from schemas.wire import TrailEntry, TrailPage

PICTURES = [b"first picture", b"second picture"]
ORDER_PURPOSE = "check a classifier of handwritten digits"


class Server:
    """A server in this process, with one session that has no model yet."""

    def __init__(self, client: TestClient, home: Home) -> None:
        self.client = client
        self.home = home
        self.auditor: Auditor = client.app.state.auditor  # type: ignore[attr-defined]
        now = datetime.now(UTC)
        envelope = sign_order(home, make_order("order", now, developer=DEVELOPER))
        self.send("auditor", "POST", "/orders", content=envelope.to_bytes())
        request = make_request(canonical.sha256_hex(envelope.payload), SigningKey.generate())
        granted = self.send("developer", "POST", "/sessions", json=opening("order", request))
        payload = dsse.Envelope.from_bytes(granted.content).payload
        grant = statements.parse(payload, statements.GRANT_PREDICATE, SessionGrant)
        self.session = grant.session_id

    def send(self, role: TokenRole, method: str, path: str, **options: Any) -> Response:
        headers = {"Authorization": f"Bearer {self.home.tokens[role]}"}
        return self.client.request(method, f"/v1{path}", headers=headers, **options)

    def ask(self, role: TokenRole, purpose: str | None) -> Response:
        files = [("images", (f"{n}.png", data)) for n, data in enumerate(PICTURES)]
        data = {} if purpose is None else {"purpose": purpose}
        path = f"/sessions/{self.session}/queries"
        return self.send(role, "POST", path, files=files, data=data)

    def page(self, **parameters: Any) -> TrailPage:
        response = self.send("auditor", "GET", "/audit-trail", params=parameters)
        assert response.status_code == 200, response.text
        return TrailPage.from_bytes(response.content)

    def queries(self) -> list[TrailEntry]:
        return [entry for entry in self.page().entries if entry.action == "query"]

    def latest(self) -> TrailEntry:
        """The newest entry but that one of being read."""
        return self.page(limit=2).entries[1]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = make_home(tmp_path_factory.mktemp("trail"))
    with TestClient(create_app(ServerSettings(home=home.path))) as client:
        yield Server(client, home)


def is_problem(response: Response, status: int, error: str) -> bool:
    found = (response.status_code, response.json()["type"])
    assert found == (status, f"urn:auditkit:error:{error}"), response.text
    return True


@pytest.mark.parametrize("role", ["compliance-officer", "data-subject-desk"])
def test_a_question_is_on_record_before_it_is_answered(server: Server, role: TokenRole) -> None:
    """Here there is no model that could answer, and the question was asked all the same."""
    response = server.ask(role, " complaint 2026/7 ")
    assert is_problem(response, 409, "SessionNotSubmittedError")
    entry = server.latest()
    assert (entry.action, entry.role, entry.organisation) == ("query", role, AUTHORITY)
    assert entry.principal == server.home.tokens[role].partition(".")[0]
    assert (entry.session_id, entry.purpose) == (server.session, "complaint 2026/7")
    assert abs(entry.at - datetime.now(UTC)) < timedelta(minutes=1)

    key = (server.home.path / "trail.key").read_bytes()
    assert entry.pictures == len(PICTURES)
    assert entry.picture_digests == tuple(
        hmac.digest(key, hashlib.sha256(data).digest(), "sha256").hex() for data in PICTURES
    )


@pytest.mark.parametrize("role", ["compliance-officer", "data-subject-desk"])
@pytest.mark.parametrize("purpose", [None, "", " \n "])
def test_a_question_says_what_it_is_for(
    server: Server, role: TokenRole, purpose: str | None
) -> None:
    before = server.queries()
    assert is_problem(server.ask(role, purpose), 422, "PurposeMissingError")
    assert server.queries() == before


@pytest.mark.parametrize("purpose", ["x" * (questions.MOST_PURPOSE_CHARACTERS + 1), "a\x1b[2Jb"])
def test_a_purpose_is_a_text_that_can_be_shown(server: Server, purpose: str) -> None:
    response = server.ask("compliance-officer", purpose)
    assert is_problem(response, 422, "InvalidDocumentError")


def test_an_auditor_asks_for_what_the_order_says(server: Server) -> None:
    assert is_problem(server.ask("auditor", None), 409, "SessionNotSubmittedError")
    assert server.latest().purpose == ORDER_PURPOSE
    server.ask("auditor", "file 12")
    assert server.latest().purpose == "file 12"


def test_no_picture_and_no_bare_digest_is_kept(server: Server) -> None:
    server.ask("compliance-officer", "complaint 8")
    kept = b"".join(path.read_bytes() for path in server.home.path.glob("auditor.sqlite3*"))
    assert b"complaint 8" in kept
    for data in PICTURES:
        digest = hashlib.sha256(data)
        assert data not in kept
        assert digest.digest() not in kept
        assert digest.hexdigest().encode() not in kept


def test_who_looks_is_on_record_too(server: Server) -> None:
    session = f"/sessions/{server.session}"
    for role in ("developer", "compliance-officer"):
        for action in ("verification", "bundle", "report"):
            server.send(role, "GET", f"{session}/{action}")
            entry = server.latest()
            assert (entry.action, entry.role) == (action, role)
            assert (entry.session_id, entry.pictures) == (server.session, 0)
    # What is not seen was not looked at.
    before = server.latest()
    server.send("developer", "GET", "/sessions/none/report")
    assert before in server.page(limit=3).entries


def test_the_trail_is_read_page_by_page(server: Server) -> None:
    desk = Principal("user/desk", "data-subject-desk", AUTHORITY)
    for _ in range(5):
        trail.record(server.auditor, desk, "report", "a-session")
    found, before = [], None
    while True:
        page = server.page(
            limit=2, session_id="a-session", **({"before": before} if before else {})
        )
        found += page.entries
        before = page.before
        if before is None:
            break
    assert [entry.action for entry in found] == ["trail", *["report"] * 5]
    numbers = [entry.number for entry in found]
    assert numbers == sorted(numbers, reverse=True)
    for wrong in ({"limit": 0}, {"limit": 10_000}, {"before": -1}, {"before": "x"}):
        response = server.send("auditor", "GET", "/audit-trail", params=wrong)
        assert is_problem(response, 422, "InvalidParameterError")


def test_what_is_older_than_may_be_is_gone_at_the_next_start(
    server: Server,
) -> None:
    trail.record(server.auditor, Principal("x", "auditor", AUTHORITY), "report", "kept-a-day")
    settings = ServerSettings(home=server.home.path, trail_days=1e-9)
    assert server.page(session_id="kept-a-day").entries
    with TestClient(create_app(settings)):
        pass
    assert {entry.action for entry in server.page().entries} == {"trail"}


def test_the_secret_of_the_trail_is_made_once(server: Server) -> None:
    path = server.home.path / "made.key"
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: shared_secret(path, 32), range(50)))
    assert len(found) == 1
    assert {len(secret) for secret in found} == {32}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(server.home.path.glob("made.key.*")) == []


def test_too_many_calls_are_told_when_to_come_again(tmp_path: Any) -> None:
    home = make_home(tmp_path)
    settings = ServerSettings(
        home=home.path,
        calls_burst=6,
        calls_per_second=0.01,
        queries_burst=1,
        queries_per_second=0.1,
    )
    with TestClient(create_app(settings)) as client:
        server = Server(client, home)
        assert is_problem(
            server.ask("compliance-officer", "file 1"), 409, "SessionNotSubmittedError"
        )
        many = server.ask("compliance-officer", "file 2")
        assert is_problem(many, 429, "RateLimitError")
        assert many.headers["content-type"] == "application/problem+json"
        assert 1 <= int(many.headers["Retry-After"]) <= 10
        answers = [server.send("compliance-officer", "GET", "/orders") for _ in range(5)]
        assert [answer.status_code for answer in answers] == [200] * 4 + [429]
        assert 90 <= int(answers[-1].headers["Retry-After"]) <= 100
        # One token's calls are nobody else's.
        assert server.send("data-subject-desk", "GET", "/sessions").status_code == 200


def test_a_bucket_fills_up_again() -> None:
    now = 0.0
    limiter = RateLimiter(Rate(burst=3, per_second=0.5), lambda: now)
    for _ in range(3):
        limiter.take("a")
    with pytest.raises(RateLimitError) as caught:
        limiter.take("a")
    assert caught.value.retry_after_seconds == 2
    limiter.take("b")
    now = 2.0
    limiter.take("a")
    with pytest.raises(RateLimitError):
        limiter.take("a")
    now = 1_000.0
    for _ in range(3):
        limiter.take("a")
    with pytest.raises(RateLimitError):
        limiter.take("a")


def test_full_buckets_are_forgotten() -> None:
    now = 0.0
    limiter = RateLimiter(Rate(burst=1, per_second=1.0), lambda: now)
    for number in range(MOST_BUCKETS):
        limiter.take(str(number))
    now = 5.0
    limiter.take("new")
    assert set(limiter._buckets) == {"new"}
