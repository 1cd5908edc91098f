"""A developer against the auditor's real server: each attack is refused, and only by its own rule.

The attacker has everything that a developer has: a token, a session and its key. What is refused by
a rule would be taken in without it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest
from forge import STRANGER_KEY

from auditkit.evidence import dsse, merkle, notes, policy, statements
from auditkit.evidence.canonical import sha256_hex
from auditkit.evidence.keys import SigningKey
from auditkit.evidence.policy import PolicyError
from auditor_server import records, registry, sessions
from auditor_server.access.accounts import add_organisation
from auditor_server.context import Auditor
from auditor_server.documents import decode_base64
from auditor_server.errors import (
    CheckpointRootError,
    ForkError,
    GrantRecordError,
    LeavesError,
    RecordTimeError,
    SessionNotFoundError,
    SessionSealedError,
)
from auditor_server.home import create_home
from auditor_server.orders import add_order
from auditor_server.session_keys import SessionKeys
from auditor_server.sessions import open_session
from auditor_server.settings import ServerSettings
from auditor_server.tokens import Principal, authenticate, issue
from schemas import AppendRequest, SessionGrant, TrustRoot
from schemas.wire import SessionOpening
from tests.server.hand_built import (
    CONFIG,
    Client,
    HandBuiltAgent,
    make_order,
    make_request,
    opening,
    sign_order,
)

MOST_SESSIONS = 3
NO_SERVER = Client("http://localhost")


@dataclass
class Attacker:
    """A developer with a token and an order; and another one, whose sessions are not theirs."""

    auditor: Auditor
    order_id: str
    order_digest: str
    me: Principal
    other: Principal

    def open(
        self,
        *,
        tampered: dict[str, Any] | None = None,
        **changes: Any,
    ) -> HandBuiltAgent:
        """Open a session; its request and what is sent along can be falsified."""
        key = SigningKey.generate()
        request = make_request(self.order_digest, key, **changes)
        sent = SessionOpening.model_validate(
            {**opening(self.order_id, request), **(tampered or {})}
        )
        payload = dsse.Envelope.from_bytes(open_session(self.auditor, self.me, sent)).payload
        grant = statements.parse(payload, statements.GRANT_PREDICATE, SessionGrant)
        return HandBuiltAgent(NO_SERVER, grant, sha256_hex(payload), key)

    def begun(self) -> HandBuiltAgent:
        """Open a session whose first records are acknowledged."""
        agent = self.open()
        agent.log_grant()
        agent.log_step(1)
        self.send(agent, agent.flush(0))
        return agent

    def send(
        self, agent: HandBuiltAgent, flush: AppendRequest, sender: Principal | None = None
    ) -> None:
        session = self.auditor.session(agent.grant.session_id, sender or self.me)
        records.append(self.auditor, session, flush)


def second_history(attacker: Attacker) -> None:
    agent = attacker.begun()
    agent.lines.pop()
    agent.log_step(1, task_loss=0.1)
    attacker.send(agent, agent.flush(0))


def other_records(attacker: Attacker) -> None:
    agent = attacker.begun()
    agent.log_step(2)
    other = merkle.root([*agent.lines[:-1], b"what the developer keeps"])
    attacker.send(agent, agent.flush(2, root=other))


def strangers_checkpoint(attacker: Attacker) -> None:
    agent = attacker.begun()
    agent.log_step(2)
    attacker.send(agent, agent.flush(2, key=STRANGER_KEY))


def clock_ahead(attacker: Attacker) -> None:
    agent = attacker.begun()
    later = datetime.now(UTC) + timedelta(hours=3)
    agent.log_step(2, time_ms=int(later.timestamp() * 1000))
    attacker.send(agent, agent.flush(2))


def after_the_seal(attacker: Attacker) -> None:
    agent = attacker.begun()
    agent.log_seal()
    attacker.send(agent, agent.flush(2))
    agent.log_step(2)
    attacker.send(agent, agent.flush(3))


def foreign_grant(attacker: Attacker) -> None:
    agent, other = attacker.open(), attacker.open()
    agent.log_grant(grant_digest=other.grant_digest)
    attacker.send(agent, agent.flush(0))


def foreign_session(attacker: Attacker) -> None:
    agent = attacker.begun()
    agent.log_step(2)
    attacker.send(agent, agent.flush(2), sender=attacker.other)


def weak_request(attacker: Attacker) -> None:
    attacker.open(config=CONFIG.model_copy(update={"epochs": 10_000}))


def session_after_session(attacker: Attacker) -> None:
    for _ in range(MOST_SESSIONS + 1):
        attacker.open()


def exchanged_samples(attacker: Attacker) -> None:
    request = make_request(attacker.order_digest, STRANGER_KEY)
    leaves = opening(attacker.order_id, request)["pool_leaves"]
    attacker.open(tampered={"pool_leaves": "A" * 43 + leaves[43:]})


def nothing(*_args: Any, **_kwargs: Any) -> None:
    """A rule that is switched off."""


def any_root(session: Any, flush: Any) -> merkle.Frontier:
    frontier = merkle.Frontier.from_bytes(session.frontier)
    frontier.extend(merkle.leaf_hash(line) for line in flush.lines)
    return frontier


def any_signature(_keys: Any, note: bytes, _size: int) -> notes.Note:
    return notes.parse(note)


def any_history(auditor: Auditor, session: Any, _flush: Any) -> Any:
    return auditor.store.segments(session.id)[-1]


def any_leaves(text: str, _commitment: Any, what: str) -> bytes:
    return decode_base64(text, what)


@dataclass(frozen=True)
class ServerAttack:
    """What a developer tries, the error that answers, and the rule behind it.

    Attributes:
        name: what the attacker does.
        attempt: does it.
        error: what the server answers.
        rule: owner and name of the function that is the rule.
        without: stands in for the rule that is switched off.
    """

    name: str
    attempt: Callable[[Attacker], None]
    error: type[Exception]
    rule: tuple[Any, str]
    without: Any = nothing


ATTACKS = (
    ServerAttack(
        "the server is shown a second history of a log",
        second_history,
        ForkError,
        (records, "_stored_segment"),
        any_history,
    ),
    ServerAttack(
        "a checkpoint covers other records than those that are sent",
        other_records,
        CheckpointRootError,
        (records, "_grow"),
        any_root,
    ),
    ServerAttack(
        "records are sent under a key that is not the session's",
        strangers_checkpoint,
        notes.UnsignedNoteError,
        (SessionKeys, "verify"),
        any_signature,
    ),
    ServerAttack(
        "the agent's clock is set three hours ahead",
        clock_ahead,
        RecordTimeError,
        (records, "_check_times"),
    ),
    ServerAttack(
        "records are sent after the seal",
        after_the_seal,
        SessionSealedError,
        (records, "check_open"),
    ),
    ServerAttack(
        "a log is begun under the grant of another session",
        foreign_grant,
        GrantRecordError,
        (records, "_check_grant_record"),
    ),
    ServerAttack(
        "another developer writes into a session",
        foreign_session,
        SessionNotFoundError,
        (Principal, "sees_all"),
        property(lambda _principal: True),
    ),
    ServerAttack(
        "a session is asked for that the order does not allow",
        weak_request,
        PolicyError,
        (policy, "check_request"),
    ),
    ServerAttack(
        "one session after the other is opened, to choose among nonces",
        session_after_session,
        policy.TooManySessionsError,
        (policy, "check_session_number"),
    ),
    ServerAttack(
        "other samples are sent than the request commits to",
        exchanged_samples,
        LeavesError,
        (sessions, "_checked_leaves"),
        any_leaves,
    ),
)

every_attack = pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)


@pytest.fixture(scope="module")
def auditor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Auditor]:
    path = tmp_path_factory.mktemp("auditor") / "home"
    home = create_home(path, "The Auditor", "audit.example.org", datetime.now(UTC))
    auditor = Auditor.open(ServerSettings(home=home.path))
    registry.recover(auditor)
    yield auditor
    auditor.store.close()


ORDER_NUMBERS = count(1)


@pytest.fixture
def attacker(auditor: Auditor) -> Attacker:
    now = datetime.now(UTC)
    number = next(ORDER_NUMBERS)
    order = make_order(f"digits-{number}", now, most_sessions=MOST_SESSIONS)
    envelope = sign_order(auditor.home, order)
    add_order(auditor, envelope.to_bytes())
    me, other = (join(auditor, f"{name}-{number}") for name in ("me", "other"))
    return Attacker(auditor, order.order_id, sha256_hex(envelope.payload), me, other)


def join(auditor: Auditor, organisation: str) -> Principal:
    """A developer of an organisation of their own."""
    now = datetime.now(UTC)
    add_organisation(auditor.store, organisation, organisation, now)
    token = issue(auditor.store, "developer", organisation, now)
    return authenticate(auditor.store, f"Bearer {token}", now)


def test_an_honest_developer_is_served(attacker: Attacker) -> None:
    agent = attacker.begun()
    agent.log_step(2)
    attacker.send(agent, agent.flush(2))
    assert attacker.auditor.session(agent.grant.session_id, attacker.me).size == 3


@every_attack
def test_the_server_refuses(attack: ServerAttack, attacker: Attacker) -> None:
    with pytest.raises(attack.error):
        attack.attempt(attacker)


@every_attack
def test_without_its_rule_the_server_would_take_it(
    attack: ServerAttack, attacker: Attacker, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, name = attack.rule
    monkeypatch.setattr(owner, name, attack.without)
    attack.attempt(attacker)


def test_a_revoked_key_gets_nothing_more(
    attacker: Attacker, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = attacker.open()
    revoked = agent.grant.session_key

    def with_revocation(found: Callable[[Auditor], TrustRoot]) -> Callable[[Auditor], TrustRoot]:
        return lambda auditor: found(auditor).model_copy(
            update={"revoked_session_keys": (revoked,)}
        )

    monkeypatch.setattr(Auditor, "trust_root", with_revocation(Auditor.trust_root))
    agent.log_grant()
    with pytest.raises(records.SessionExpiredError):
        attacker.send(agent, agent.flush(0))
    monkeypatch.setattr(SessionKeys, "check_not_revoked", nothing)
    attacker.send(agent, agent.flush(0))
