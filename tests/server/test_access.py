"""Tokens, bodies and errors; who may do what is in `test_role_matrix.py`."""

import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import pytest
from hand_built import Client, HandBuiltAgent, is_problem
from live import LiveServer, make_home

from auditor_server import tokens
from auditor_server.access.accounts import add_organisation
from auditor_server.home import Home
from auditor_server.settings import MOST_FLUSH_BYTES, MOST_ORDER_BYTES
from schemas import RoleName


def test_wrong_tokens_are_refused(live_server: LiveServer) -> None:
    token = live_server.home.tokens["auditor"]
    token_id, _, secret = token.partition(".")
    developer_id = live_server.home.tokens["developer"].partition(".")[0]
    for wrong in (
        token[:-1],
        f"{token_id}.",
        token_id,
        f"{developer_id}.{secret}",
        f"nobody.{secret}",
        "\N{SNOWMAN}".encode().decode("latin-1"),
    ):
        response = Client(live_server.url, wrong).get("/orders")
        assert is_problem(response, 401, "NotAuthenticatedError")


def test_a_developer_sees_no_other_developer_s_session(
    live_server: LiveServer, agent: HandBuiltAgent
) -> None:
    store = live_server.open_store()
    now = datetime.now(UTC)
    add_organisation(store, "another", "Another Developer Ltd", now)
    other = Client(live_server.url, tokens.issue(store, "developer", "another", now))
    store.close()
    foreign = other.get(agent.path)
    missing = other.get("/sessions/none")
    assert is_problem(foreign, 404, "SessionNotFoundError")
    assert (
        foreign.json()["detail"].replace(agent.grant.session_id, "none")
        == (missing.json()["detail"])
    )
    assert other.get("/sessions").json() == []
    for path in ("verification", "bundle", "report"):
        assert is_problem(other.get(f"{agent.path}/{path}"), 404, "SessionNotFoundError")
    agent.client = other
    assert is_problem(agent.send(agent.flush(0)), 404, "SessionNotFoundError")


def test_tokens_are_stored_hashed(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    database = b"".join(path.read_bytes() for path in home.path.glob("auditor.sqlite3*"))
    for token in home.tokens.values():
        token_id, _, secret = token.partition(".")
        assert token_id.encode() in database
        assert secret.encode() not in database


def test_private_keys_are_private(live_server: LiveServer) -> None:
    def mode(path: Path) -> int:
        return stat.S_IMODE(path.stat().st_mode)

    home: Home = live_server.home
    keys = list((home.path / "keys").iterdir())
    assert {key.name for key in keys} == {f"{role}.pem" for role in get_args(RoleName)}
    assert {mode(key) for key in keys} == {0o600}
    assert mode(home.path) == mode(home.path / "keys") == 0o700


@pytest.mark.parametrize(
    ("role", "path", "most_bytes"),
    [("auditor", "/orders", MOST_ORDER_BYTES), ("developer", "records", MOST_FLUSH_BYTES)],
)
def test_a_body_that_is_too_large_is_refused(
    live_server: LiveServer, agent: HandBuiltAgent, role: str, path: str, most_bytes: int
) -> None:
    path = path if path.startswith("/") else f"{agent.path}/{path}"
    client = live_server.client(role)  # type: ignore[arg-type]
    response = client.post(path, data=b" " * (most_bytes + 1))
    assert is_problem(response, 413, "BodyTooLargeError")


def test_a_body_of_unknown_length_is_counted_as_it_comes(live_server: LiveServer) -> None:
    """Sent in chunks there is no Content-Length that the server could believe."""
    chunks = (b" " * 2**16 for _ in range(MOST_ORDER_BYTES // 2**16 + 1))
    response = live_server.client("auditor").post("/orders", data=chunks)
    assert is_problem(response, 413, "BodyTooLargeError")


def test_too_many_records_in_a_flush_are_refused(agent: HandBuiltAgent) -> None:
    flush = agent.flush(0).model_copy(update={"records": ("{}",) * 10_001})
    assert is_problem(agent.send(flush), 413, "TooManyRecordsError")


def test_every_error_is_a_problem(live_server: LiveServer, agent: HandBuiltAgent) -> None:
    auditor = live_server.client("auditor")
    for response, status in (
        (auditor.get("/nowhere"), 404),
        (auditor.send("DELETE", "/orders"), 405),
        (auditor.post(f"{agent.path}/records", data=b"\xff\xfe"), 422),
        (auditor.post(f"{agent.path}/records", data=b"[" * 100_000), 422),
        (auditor.put(f"{agent.path}/submission", data=b"no form"), 422),
        (auditor.post(f"{agent.path}/queries?false_positive_rate=2", files={"images": b""}), 422),
        (auditor.post(f"{agent.path}/queries?false_positive_rate=nan", files={"images": b""}), 422),
    ):
        assert response.status_code == status, response.text
        assert response.headers["content-type"] == "application/problem+json"
        assert set(response.json()) == {"type", "title", "status", "detail"}
        assert response.json()["status"] == status


def test_an_unexpected_error_says_nothing_of_the_inside(own_server: LiveServer) -> None:
    own_server.start()
    (own_server.home.path / "trust-root.json").unlink()
    response = own_server.client(None).get("/trust-root")
    assert response.status_code == 500
    assert response.headers["content-type"] == "application/problem+json"
    assert "trust-root.json" not in response.text
    assert own_server.client(None).get("/health").json() == {"status": "ok"}
