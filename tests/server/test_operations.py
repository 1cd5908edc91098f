"""A server as those see it who keep it running: ready or not, its log, its numbers, its end."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from fastapi.testclient import TestClient
from hand_built import HandBuiltAgent, is_problem
from live import LiveServer, make_home
from prometheus_client.parser import text_string_to_metric_families

from auditkit.evidence.canonical import to_bytes
from auditor_server.app import create_app
from auditor_server.home import BLOBS_FOLDER
from auditor_server.readiness import LOOK_SECONDS
from auditor_server.settings import ServerSettings
from auditor_server.web.sign_ins import COOKIE
from schemas import AppendReceipt
from tests.postgresql import PostgreSQL

PATIENCE_SECONDS = 60


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.1)


class Watched(LiveServer):
    """A server whose log and whose numbers are read."""

    def begin(self, log: Path) -> None:
        self.log = log
        with log.open("wb") as file:
            self.start(stderr=file)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def numbers(self) -> dict[tuple[str, tuple[str, ...]], float]:
        text = requests.get(f"http://127.0.0.1:{self.ready['metrics_port']}/metrics", timeout=30)
        return {
            (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text.text)
            for sample in family.samples
        }


FLAGS = ("--log-format", "json", "--metrics-port", "0")


@pytest.fixture(name="watched", scope="module", params=[1, 2], ids=["one process", "two workers"])
def fixture_watched(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Watched]:
    """One server for both tests; the second one stops it."""
    folder = tmp_path_factory.mktemp("watched")
    server = Watched(make_home(folder), workers=request.param, flags=FLAGS)
    server.begin(folder / "log")
    yield server
    if server.process.poll() is None:
        server.stop()


def send(agent: HandBuiltAgent, step: int) -> AppendReceipt:
    first = len(agent.lines)
    if not agent.lines:
        agent.log_grant()
    agent.log_step(step)
    return agent.sent(agent.flush(first))


def test_log_and_numbers_tell_what_was_done_and_nothing_of_what_it_was(watched: Watched) -> None:
    digest = watched.add_order("digits-2026")
    agent = watched.open_session("digits-2026", digest)
    for step in range(1, 5):
        send(agent, step)
    developer = watched.client("developer")
    answer = developer.post(f"{agent.path}/queries", data={"purpose": "because of Ada"})
    assert is_problem(answer, 403, "NotAllowedError")
    named, unfit = (
        requests.get(f"{watched.url}/v1/health", headers={"X-Request-Id": name}, timeout=30)
        for name in ("from-the-proxy.1", 'forged" line')
    )
    assert named.headers["X-Request-Id"] == "from-the-proxy.1"
    assert unfit.headers["X-Request-Id"] != 'forged" line'
    requests.get(f"{watched.url}/no/such?page=secret-question", timeout=30)
    wait_until(lambda: "unmatched" in watched.log.read_text())

    numbers = watched.numbers()
    lines = [line for line in watched.lines() if line["message"] == "request"]
    routes = [(line["method"], line["route"], line["status"]) for line in lines]
    appended = ("POST", "/v1/sessions/{session_id}/records", 200)
    assert routes.count(appended) == 4
    assert ("GET", "unmatched", 404) in routes
    token = watched.home.tokens["developer"]
    (refused,) = [line for line in lines if line["error"] == "NotAllowedError"]
    assert refused["principal"] == token.partition(".")[0]
    assert {line["request"] for line in lines} >= {
        "from-the-proxy.1", unfit.headers["X-Request-Id"], answer.headers["X-Request-Id"]
    }  # fmt: skip
    assert all(line["seconds"] >= 0 for line in lines)
    text = watched.log.read_text()
    secrets = (token, token.partition(".")[2], "Ada", "secret-question", "forged", "digits-2026")
    assert not [secret for secret in (*secrets, agent.grant.session_id) if secret in text]

    route = "/v1/sessions/{session_id}/records"
    assert numbers["auditkit_requests_total", ("POST", route, "200")] == 4
    assert numbers["auditkit_request_seconds_count", ("POST", route)] == 4
    assert numbers["auditkit_records_appended_total", ()] == 5
    assert numbers["auditkit_checkpoints_cosigned_total", ()] == 4
    assert numbers["auditkit_refusals_total", ("NotAllowedError",)] == 1
    assert agent.grant.session_id not in str(numbers)


def test_metrics_are_nowhere_else(live_server: LiveServer) -> None:
    for path in ("/metrics", "/v1/metrics"):
        assert requests.get(live_server.url + path, timeout=30).status_code == 404


def test_ready_names_what_is_missing_and_says_when_to_ask_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = make_home(tmp_path)
    now = [0.0]
    monkeypatch.setattr("auditor_server.readiness.time.monotonic", lambda: now[0])
    with TestClient(create_app(ServerSettings(home=home.path))) as client:
        assert client.get("/v1/ready").json() == {"status": "ready"}
        assert list((home.path / BLOBS_FOLDER).iterdir()) == []
        (home.path / BLOBS_FOLDER).rename(home.path / "elsewhere")
        key = home.path / "keys" / "cosigner.pem"
        key.rename(key.with_suffix(".away"))
        assert client.get("/v1/ready").status_code == 200  # it has just looked
        now[0] += LOOK_SECONDS
        answer = client.get("/v1/ready")
        assert answer.status_code == 503
        assert answer.json()["type"] == "urn:auditkit:error:NotReadyError"
        assert "blobs, keys;" in answer.json()["detail"]
        assert str(tmp_path) not in answer.text
        assert int(answer.headers["Retry-After"]) > 0
        assert client.get("/v1/health").status_code == 200
        (home.path / "elsewhere").rename(home.path / BLOBS_FOLDER)
        key.with_suffix(".away").rename(key)
        client.app.state.auditor.store.close()  # type: ignore[attr-defined]
        now[0] += LOOK_SECONDS
        assert client.get("/v1/ready").status_code == 200


def sign_in(server: LiveServer) -> str:
    answer = requests.post(
        f"{server.url}/sign-in",
        data={"token": server.home.tokens["auditor"]},
        headers={"Sec-Fetch-Site": "same-origin"},
        allow_redirects=False,
        timeout=30,
    )
    cookie = answer.cookies.get(COOKIE)
    assert cookie, answer.text
    return cookie


def follow(server: LiveServer, agent: HandBuiltAgent, cookie: str) -> Iterator[str]:
    """Read the events of a live session as they come."""
    address = f"{server.url}/sessions/{agent.grant.session_id}/events"
    headers = {"Cookie": f"{COOKIE}={cookie}"}
    with requests.get(address, headers=headers, stream=True, timeout=60) as stream:
        yield from stream.iter_lines(decode_unicode=True)


def test_a_server_that_stops_ends_streams_at_once_and_finishes_what_it_does(
    watched: Watched,
) -> None:
    agent = watched.open_session("stopping", watched.add_order("stopping"))
    send(agent, 1)
    cookie = sign_in(watched)
    came, ended = threading.Event(), threading.Event()

    def read() -> None:
        for _ in follow(watched, agent, cookie):
            came.set()
        ended.set()

    follower = threading.Thread(target=read)
    follower.start()
    assert came.wait(PATIENCE_SECONDS)

    # A request that has begun: its body comes when the server was asked to stop already.
    agent.log_step(2)
    flush = agent.flush(2)
    asked_to_stop = threading.Event()

    def body() -> Iterator[bytes]:
        data = to_bytes(flush)
        yield data[:10]
        assert asked_to_stop.wait(PATIENCE_SECONDS)
        yield data[10:]

    answers: list[requests.Response] = []
    path = f"{watched.url}/v1{agent.path}/records"
    headers = {"Authorization": f"Bearer {watched.home.tokens['developer']}"}
    sender = threading.Thread(
        target=lambda: answers.append(requests.post(path, data=body(), headers=headers, timeout=60))
    )
    sender.start()
    time.sleep(1.0)
    watched.process.terminate()
    assert ended.wait(PATIENCE_SECONDS)
    assert watched.process.poll() is None  # the other request goes on
    asked_to_stop.set()
    sender.join()
    follower.join()
    assert [answer.status_code for answer in answers] == [200], answers[0].text
    watched.process.wait(PATIENCE_SECONDS)
    errors = [line for line in watched.lines() if line["level"] in {"error", "critical"}]
    assert errors == []


def test_agents_go_on_after_an_outage_of_the_database(
    tmp_path: Path, postgresql: PostgreSQL, new_postgresql_database: Callable[[], str]
) -> None:
    url = new_postgresql_database()
    server = Watched(make_home(tmp_path, url), database_url=url, workers=2, flags=FLAGS)
    server.begin(tmp_path / "log")
    try:
        digest = server.add_order("digits-2026")
        agents = [server.open_session("digits-2026", digest) for _ in range(3)]
        for agent in agents:
            send(agent, 1)
            agent.log_step(2)
        client = server.client("auditor")
        cookie = sign_in(server)
        stream = follow(server, agents[0], cookie)
        next(stream)
        postgresql.stop()
        try:
            assert "event: end" not in list(stream)  # it ends, and not as when the session has
            flushes = [agent.flush(2) for agent in agents]
            for agent, flush in zip(agents, flushes, strict=True):
                for answer in (agent.send(flush), client.get("/sessions")):
                    assert is_problem(answer, 503, "DatabaseUnavailableError"), answer.text
                    assert int(answer.headers["Retry-After"]) > 0
                    assert str(postgresql.folder) not in answer.text
            assert is_problem(client.get("/ready"), 503, "NotReadyError")
            assert client.get("/health").status_code == 200
            browser = {"Accept": "text/html", "Cookie": f"{COOKIE}={cookie}"}
            page = requests.get(server.url, headers=browser, timeout=30)
            assert (page.status_code, page.headers["Content-Type"][:9]) == (503, "text/html")
            assert "DatabaseUnavailableError" in page.text or "does not answer" in page.text
            assert int(page.headers["Retry-After"]) > 0
        finally:
            postgresql.start()
        for agent, flush in zip(agents, flushes, strict=True):
            assert agent.sent(flush) == agent.sent(flush)
            send(agent, 3)
            assert agent.status()["acknowledged_records"] == len(agent.lines) == 4
        wait_until(lambda: client.get("/ready").status_code == 200)
        assert server.numbers()["auditkit_records_appended_total", ()] == 12
    finally:
        server.stop()
    assert not [line for line in server.lines() if "exception" in line]
