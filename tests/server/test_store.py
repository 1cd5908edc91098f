"""The store on both databases: what several servers do at once must come out as if one had."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier
from typing import TypeVar

import pytest
from sqlalchemy import make_url
from sqlalchemy.exc import IntegrityError

from auditkit.evidence import dsse, merkle, notes
from auditkit.evidence.canonical import sha256_hex
from auditkit.evidence.keys import SigningKey
from auditkit.evidence.subtrees import Span
from auditor_server.errors import DatabaseNotDurableError, DatabaseUrlError
from auditor_server.store import (
    ContinuationRow,
    OrderRow,
    Registration,
    RegistryHeadRow,
    ReplayRow,
    SegmentRow,
    SessionRow,
    Store,
    SubmissionRow,
    TokenRow,
    VerdictRow,
    VerificationRow,
    WitnessingRow,
)
from auditor_server.store.engine import make_engine
from auditor_server.store.registry import Tree
from tests.postgresql import PostgreSQL

NOW = datetime(2026, 3, 29, 0, 30, 0, 123456, tzinfo=UTC)
DIGEST = "ab" * 32
KEY = SigningKey.generate()
WRITERS = 8

T = TypeVar("T")


@pytest.fixture
def stores(database_url: str) -> Iterator[list[Store]]:
    """The same database, opened as often as there are writers, as by so many servers."""
    stores = [Store(make_engine(database_url)) for _ in range(WRITERS)]
    stores[0].prepare()
    stores[0].add_token(
        TokenRow(id="dev", role="developer", organisation="dev", secret_hash=b"1", created_at=NOW)
    )
    stores[0].add_order(
        OrderRow(
            developer="",
            order_id="order",
            digest=DIGEST,
            envelope=envelope(b"order"),
            received_at=NOW,
        )
    )
    yield stores
    for store in stores:
        store.close()


def at_once(stores: list[Store], work: Callable[[int, Store], T]) -> list[T]:
    """Let every store do something, all from the same moment on."""
    barrier = Barrier(len(stores))

    def run(number: int) -> T:
        barrier.wait()
        return work(number, stores[number])

    with ThreadPoolExecutor(len(stores)) as pool:
        return list(pool.map(run, range(len(stores))))


def envelope(payload: bytes) -> bytes:
    return dsse.sign(payload, [KEY]).to_bytes()


def open_session(store: Store, name: str, key: str | None = None) -> SessionRow:
    def make(number: int) -> SessionRow:
        return SessionRow(
            id=f"{name}-{number}",
            order_id="order",
            number=number,
            owner="dev",
            request_digest=sha256_hex(name.encode()),
            request=name.encode(),
            grant=envelope(f"{name} {number}".encode()),
            pool_leaves=bytes(range(256)) * 8192,
            test_leaves=b"",
            code_secret=None,
            opened_at=NOW,
            state="open",
            frontier=merkle.Frontier().to_bytes(),
            size=0,
            step=0,
            epoch=0,
        )

    return store.add_session(
        order_id="order",
        request_digest=sha256_hex(name.encode()),
        session_key=key or f"key of {name}",
        make=make,
    )


def append(store: Store, session_id: str, first: int, text: str, *, seal: bool = False) -> bool:
    checkpoint = notes.Checkpoint("origin", first + 1, merkle.root([text.encode()]))
    return store.append_segment(
        SegmentRow(
            session_id=session_id,
            first=first,
            count=1,
            records=text.encode() + b"\n",
            checkpoint=notes.sign(checkpoint.to_text(), "origin", KEY).to_bytes().decode(),
            cosigned=None,
            received_at=NOW,
            cosigned_at=None,
        ),
        continuations=0,
        frontier=text.encode(),
        state="sealed" if seal else "open",
        step=2**40 + first,
        epoch=0,
    )


def check_registry(store: Store) -> int:
    """Check that the registry is one tree without gaps; return its size."""
    size = store.registry.size()
    entries = store.registry.entries(0, size + 10)
    assert [entry.position for entry in entries] == list(range(size))
    (root,) = store.registry.nodes([Span(0, size)])
    assert root == merkle.root([entry.leaf for entry in entries])
    return size


def test_everything_comes_back_as_it_was_stored(stores: list[Store]) -> None:
    session = open_session(stores[0], "session")
    assert append(stores[0], session.id, 0, "record")
    other = stores[1]
    read = other.session_with_leaves(session.id)
    assert read is not None
    assert read.pool_leaves == bytes(range(256)) * 8192
    assert (read.opened_at, read.opened_at.tzinfo) == (NOW, UTC)
    assert (read.size, read.step) == (1, 2**40)
    assert other.cosign_segment(session.id, 0, "cosigned", NOW) == "cosigned"
    later = NOW + timedelta(hours=1)
    assert stores[2].cosign_segment(session.id, 0, "cosigned again", later) == "cosigned"
    assert other.last_cosigned_at(session.id) == NOW
    assert other.session("no such session") is None


def test_of_many_writers_of_one_record_one_wins(stores: list[Store]) -> None:
    session = open_session(stores[0], "session")
    for first in range(5):
        won = at_once(stores, lambda n, store: append(store, session.id, first, f"of {n}"))  # noqa: B023
        assert sum(won) == 1
        (segment,) = stores[0].segments(session.id, first)
        assert segment.records == f"of {won.index(True)}\n".encode()
    read = stores[0].session(session.id)
    assert read is not None
    assert read.size == 5


def test_what_is_sealed_at_once_is_registered_once(stores: list[Store]) -> None:
    sessions = [open_session(stores[0], f"session-{n}").id for n in range(WRITERS)]
    before = check_registry(stores[0])
    won = at_once(stores, lambda n, store: append(store, sessions[n], 0, f"of {n}", seal=True))
    assert all(won)
    assert check_registry(stores[0]) == before + WRITERS


def test_sessions_of_one_order_are_numbered_without_gap(stores: list[Store]) -> None:
    rows = at_once(stores, lambda n, store: open_session(store, f"session-{n}"))
    assert sorted(row.number for row in rows) == list(range(1, WRITERS + 1))
    assert check_registry(stores[0]) == WRITERS + 1


def test_one_request_opens_one_session(stores: list[Store]) -> None:
    rows = at_once(stores, lambda n, store: open_session(store, "session"))
    assert {row.id for row in rows} == {"session-1"}


def test_one_key_serves_one_session(stores: list[Store]) -> None:
    stores[0].add_order(
        OrderRow(
            developer="",
            order_id="other",
            digest="cd" * 32,
            envelope=envelope(b"other"),
            received_at=NOW,
        )
    )
    rows = at_once(stores, lambda n, store: open_session(store, f"session-{n}", "one key"))
    assert len({row.id for row in rows}) == 1


def test_a_key_goes_to_a_session_or_to_a_continuation(stores: list[Store]) -> None:
    sessions = [open_session(stores[0], f"session-{n}").id for n in range(WRITERS)]

    class KeyTakenError(Exception):
        pass

    def go_on(number: int, store: Store) -> bool:
        def make(
            session: SessionRow, _earlier: Sequence[ContinuationRow], taken: bool
        ) -> ContinuationRow:
            if taken:
                raise KeyTakenError
            return ContinuationRow(
                session_id=session.id,
                number=session.continuations + 1,
                log_size=0,
                session_key="one key",
                request_digest=DIGEST,
                request=b"",
                envelope=envelope(session.id.encode()),
                granted_at=NOW,
            )

        try:
            store.add_continuation(
                session_id=sessions[number],
                request_digest=DIGEST,
                session_key="one key",
                size=0,
                make=make,
            )
        except KeyTakenError:
            return False
        return True

    assert sum(at_once(stores, go_on)) == 1


def test_a_model_is_submitted_once(stores: list[Store]) -> None:
    session = open_session(stores[0], "session")

    def submit(number: int, store: Store) -> SubmissionRow:
        return store.add_submission(
            SubmissionRow(
                session_id=session.id,
                weights_digest=sha256_hex(bytes([number])),
                description_digest=DIGEST,
                scores_digest=DIGEST,
                level=None,
                received_at=NOW,
            )
        )

    before = check_registry(stores[0])
    assert len({row.weights_digest for row in at_once(stores, submit)}) == 1
    assert check_registry(stores[0]) == before + 1


def test_an_order_is_filed_once(stores: list[Store]) -> None:
    def file(number: int, store: Store) -> OrderRow:
        digest = sha256_hex(bytes([number]))
        signed = envelope(f"order {number}".encode())
        return store.add_order(
            OrderRow(developer="", order_id="new", digest=digest, envelope=signed, received_at=NOW)
        )

    assert len({row.digest for row in at_once(stores, file)}) == 1
    assert check_registry(stores[0]) == 2


def test_draws_are_numbered_without_gap(stores: list[Store]) -> None:
    session = open_session(stores[0], "session")

    def draw(number: int, store: Store) -> int:
        def make(drawn: int) -> ReplayRow:
            digest = sha256_hex(f"{number} {drawn}".encode())
            return ReplayRow(
                session_id=session.id, number=drawn, draw_digest=digest, draw=b"", drawn_at=NOW
            )

        return store.add_draw(session.id, make).number

    assert sorted(at_once(stores, draw)) == list(range(1, WRITERS + 1))


def test_a_verification_is_numbered_by_those_before_it(stores: list[Store]) -> None:
    session = open_session(stores[0], "session")
    seen: list[int] = []

    def verify(number: int, store: Store) -> None:
        def make(signed: Sequence[VerificationRow]) -> VerificationRow | None:
            seen.append(len(signed))
            if len(signed) == WRITERS - 1:
                return None
            signed_now = envelope(f"{number}".encode())
            return VerificationRow(session_id=session.id, envelope=signed_now, verified_at=NOW)

        store.add_verification(session.id, make)

    before = check_registry(stores[0])
    at_once(stores, verify)
    assert sorted(seen) == list(range(WRITERS))
    assert len(stores[0].verifications(session.id)) == WRITERS - 1
    assert check_registry(stores[0]) == before + WRITERS - 1


def verdict(session: SessionRow, name: str) -> VerdictRow:
    signed = envelope(name.encode())
    return VerdictRow(verdict_id=name, session_id=session.id, envelope=signed, issued_at=NOW)


def test_verdicts_of_many_servers_are_all_registered(stores: list[Store]) -> None:
    session = open_session(stores[0], "session")
    before = check_registry(stores[0])

    def decide(number: int, store: Store) -> None:
        names = [f"{number}-{k}" for k in range(3)]
        store.add_verdicts(session.id, lambda _stored: [verdict(session, name) for name in names])

    at_once(stores, decide)
    assert len(stores[0].verdicts(session.id)) == stores[0].count_verdicts(session.id)
    assert stores[0].count_verdicts(session.id) == 3 * WRITERS
    assert check_registry(stores[0]) == before + 3 * WRITERS


def test_verdicts_are_counted_before_others_are_added(stores: list[Store]) -> None:
    session = open_session(stores[0], "session")
    other = open_session(stores[0], "other")
    other_verdict = verdict(other, "of another session")
    stores[0].add_verdicts(other.id, lambda _stored: [other_verdict])
    counted: list[int] = []

    def decide(number: int, store: Store) -> None:
        def make(stored: int) -> list[VerdictRow]:
            counted.append(stored)
            return [verdict(session, f"{number}-{k}") for k in range(2)]

        store.add_verdicts(session.id, make)

    at_once(stores, decide)
    assert sorted(counted) == list(range(0, 2 * WRITERS, 2))


def test_no_size_of_the_registry_is_signed_twice(stores: list[Store]) -> None:
    """Each writer appends and signs in turn; every head must be one of a single growing tree."""

    def sign(tree: Tree, newest: RegistryHeadRow | None) -> RegistryHeadRow:
        if newest is not None and newest.size == tree.size:
            assert newest.root == tree.root
            return newest
        assert newest is None or newest.size < tree.size
        return RegistryHeadRow(size=tree.size, root=tree.root, note="head", cosigned_at=NOW)

    def work(number: int, store: Store) -> None:
        for turn in range(6):
            digest = sha256_hex(f"{number} {turn}".encode())
            store.registry.append([Registration("verdict", digest, "session")], NOW)
            store.registry.sign_head(sign)

    at_once(stores, work)
    size = check_registry(stores[0])
    assert size == 6 * WRITERS + 1
    leaves = [entry.leaf for entry in stores[0].registry.entries(0, size)]
    heads = stores[0].registry.roots_of_heads()
    assert heads == {signed: merkle.root(leaves[:signed]) for signed in heads}
    assert max(heads) == size


def test_the_cosignature_of_the_largest_tree_stays(stores: list[Store]) -> None:
    def put(number: int, store: Store) -> None:
        store.witnessings.put(
            WitnessingRow(
                log="log",
                witness="witness",
                size=number,
                root=b"",
                time=0,
                line="",
                frontier=b"",
            )
        )

    at_once(stores, put)
    row = stores[0].witnessings.get("log", "witness")
    assert row is not None
    assert row.size == WRITERS - 1


def test_what_two_transactions_may_not_both_do_is_refused(stores: list[Store]) -> None:
    """A conflict that is no race is told, not tried for ever."""
    stores[0].add_order(
        OrderRow(
            developer="",
            order_id="one",
            digest="cd" * 32,
            envelope=envelope(b"one"),
            received_at=NOW,
        )
    )
    with pytest.raises(IntegrityError):
        stores[1].add_order(
            OrderRow(
                developer="",
                order_id="two",
                digest="cd" * 32,
                envelope=envelope(b"two"),
                received_at=NOW,
            )
        )


def test_a_reader_sees_one_moment(stores: list[Store]) -> None:
    """A log that grows between two statements of a reader does not show in the second."""
    session = open_session(stores[0], "session")
    with stores[0]._read() as transaction:
        assert transaction.get_one(SessionRow, session.id).size == 0
        assert append(stores[1], session.id, 0, "record")
        transaction.expire_all()
        assert transaction.get_one(SessionRow, session.id).size == 0


def test_a_database_that_forgets_is_not_used(
    postgresql: PostgreSQL, new_postgresql_database: Callable[[], str]
) -> None:
    url = new_postgresql_database()
    name = make_url(url).database
    postgresql.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
    store = Store(make_engine(url))
    with pytest.raises(DatabaseNotDurableError, match="synchronous_commit = off"):
        store.prepare()
    store.close()


@pytest.mark.parametrize(
    "url", ["mysql://host/database", "postgresql+psycopg2://host/d", "auditor"]
)
def test_other_databases_are_refused_without_telling_a_password(url: str) -> None:
    with pytest.raises(DatabaseUrlError):
        make_engine(url)
    with pytest.raises(DatabaseUrlError) as refused:
        make_engine("mysql://auditor:secret-word@host/database")
    assert "secret-word" not in str(refused.value)
