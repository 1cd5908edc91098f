"""The database's tables, brought from any older state to this version's, on both databases."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Final

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, bindparam, inspect, text
from sqlalchemy.orm import Session

from auditkit.evidence import canonical, dsse
from auditor_server.access.principals import AUTHORITY, Principal
from auditor_server.errors import DatabaseSchemaError
from auditor_server.store import SessionRow, Store
from auditor_server.store.engine import make_engine
from auditor_server.store.migrations import FIRST, HEAD, differences, downgrade, upgrade
from auditor_server.store.migrations.migrate import configuration
from auditor_server.store.models import Base, UtcDateTime
from auditor_server.tokens import authenticate

NOW = datetime(2026, 11, 21, tzinfo=UTC)
VERSIONS_TABLE = "alembic_version"
SERVERS = 6
OFFICER: Final = "compliance-officer"


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = make_engine(database_url)
    yield engine
    engine.dispose()


def tables(engine: Engine) -> set[str]:
    return set(inspect(engine).get_table_names())


def steps(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        scripts = ScriptDirectory.from_config(configuration(connection))
    return [script.revision for script in scripts.walk_revisions()][::-1]


def agrees(engine: Engine) -> bool:
    with engine.connect() as connection:
        assert differences(connection) == []
    return True


DEVELOPER = "Böse Imaging Ltd"
SIGNED = dsse.Envelope(
    canonical.to_bytes({"predicate": {"developer": DEVELOPER}}),
    dsse.IN_TOTO_PAYLOAD_TYPE,
    (dsse.EnvelopeSignature("", b""),),
).to_bytes()


def store_something(engine: Engine) -> None:
    with Session(engine) as session, session.begin():
        session.execute(
            text(
                "INSERT INTO tokens (id, role, secret_hash, created_at) "
                "VALUES ('dev', 'developer', :hash, :now)"
            ).bindparams(bindparam("now", type_=UtcDateTime())),
            {"hash": b"", "now": NOW},
        )
        session.execute(
            text(
                "INSERT INTO orders (order_id, digest, envelope, received_at) "
                "VALUES ('order', 'd', :envelope, :now)"
            ).bindparams(bindparam("now", type_=UtcDateTime())),
            {"envelope": SIGNED, "now": NOW},
        )


def make_without_steps(engine: Engine) -> None:
    """Make the tables as servers did that knew of no steps."""
    upgrade(engine)
    downgrade(engine, "0001")
    with engine.begin() as connection:
        connection.execute(text(f"DROP TABLE {VERSIONS_TABLE}"))


def test_the_steps_lead_to_the_models(engine: Engine) -> None:
    upgrade(engine)
    assert tables(engine) == {*Base.metadata.tables, VERSIONS_TABLE}
    assert agrees(engine)
    store_something(engine)
    upgrade(engine)
    assert Store(engine).order("order") is not None


def test_a_difference_would_be_found(engine: Engine) -> None:
    upgrade(engine)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE tokens ADD COLUMN colour VARCHAR(20)"))
        connection.execute(text("DROP INDEX ix_sessions_owner"))
        found = {difference[0] for difference in differences(connection)}
    assert found == {"remove_column", "add_index"}


def test_every_step_can_be_taken_back(engine: Engine) -> None:
    upgrade(engine)
    store_something(engine)
    for revision in (*steps(engine)[-2::-1], FIRST):
        downgrade(engine, revision)
        upgrade(engine)
        assert agrees(engine)
        downgrade(engine, revision)
    assert tables(engine) == {VERSIONS_TABLE}
    upgrade(engine)
    assert agrees(engine)
    assert Store(engine).order("order") is None


def test_a_database_from_before_there_were_steps_is_taken_over(engine: Engine) -> None:
    make_without_steps(engine)
    store_something(engine)
    assert VERSIONS_TABLE not in tables(engine)
    store = Store(engine)
    store.prepare()
    assert agrees(engine)
    assert VERSIONS_TABLE in tables(engine)
    stored = store.order("order")
    assert stored is not None
    assert (stored.envelope, stored.received_at) == (SIGNED, NOW)
    assert store.registry.size() == 0


def test_tables_that_came_later_are_added(engine: Engine) -> None:
    """As in a home from before there was a registry."""
    make_without_steps(engine)
    newer = [
        table
        for table in reversed(Base.metadata.sorted_tables)
        if table.name in tables(engine) - {"tokens", "orders", "sessions"}
    ]
    Base.metadata.drop_all(engine, newer)
    assert tables(engine) == {"tokens", "orders", "sessions"}
    store_something(engine)
    upgrade(engine)
    assert agrees(engine)
    assert Store(engine).order("order") is not None


def test_a_database_that_is_too_old_is_left_as_it_is(engine: Engine) -> None:
    make_without_steps(engine)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE sessions DROP COLUMN continuations"))
    with pytest.raises(DatabaseSchemaError, match="continuations"):
        upgrade(engine)
    assert VERSIONS_TABLE not in tables(engine)


def test_a_database_of_a_newer_version_is_refused(engine: Engine) -> None:
    upgrade(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(DatabaseSchemaError, match="9999"):
        upgrade(engine)
    with pytest.raises(DatabaseSchemaError):
        downgrade(engine, HEAD)


def test_servers_that_start_at_once_wait_for_one_another(database_url: str) -> None:
    stores = [Store(make_engine(database_url)) for _ in range(SERVERS)]
    with ThreadPoolExecutor(SERVERS) as pool:
        list(pool.map(lambda store: store.prepare(), stores))
    assert agrees(stores[0]._engine)
    assert [store.registry.size() for store in stores] == [0] * SERVERS
    for store in stores:
        store.close()


def test_a_step_that_fails_changes_nothing(engine: Engine) -> None:
    """Both databases take the creation of tables back."""
    with engine.begin() as connection:
        connection.execute(text("CREATE VIEW verdicts AS SELECT 1 AS number"))
    with pytest.raises(Exception, match="verdicts"):
        upgrade(engine)
    assert SessionRow.__tablename__ not in tables(engine)


def test_tokens_from_before_there_were_organisations_go_on(engine: Engine) -> None:
    """Developers saw what they had opened, and nobody else's; the others saw all."""
    upgrade(engine)
    downgrade(engine, "0001")
    tokens = {"dev-1": "developer", "dev-2": "developer", "aud": "auditor", "o": OFFICER}
    with engine.begin() as connection:
        for token_id, role in tokens.items():
            connection.execute(
                text(
                    "INSERT INTO tokens (id, role, secret_hash, created_at) "
                    "VALUES (:id, :role, :hash, :now)"
                ).bindparams(bindparam("now", type_=UtcDateTime())),
                {"id": token_id, "role": role, "hash": sha256(b"secret").digest(), "now": NOW},
            )
    store = Store(engine)
    store.prepare()
    much_later = NOW + timedelta(days=10_000)
    assert {
        token_id: authenticate(store, f"Bearer {token_id}.secret", much_later)
        for token_id in tokens
    } == {
        "dev-1": Principal("dev-1", "developer", "dev-1"),
        "dev-2": Principal("dev-2", "developer", "dev-2"),
        "aud": Principal("aud", "auditor", AUTHORITY),
        "o": Principal("o", OFFICER, AUTHORITY),
    }
    assert [row.id for row in store.access.organisations()] == [AUTHORITY, "dev-1", "dev-2"]


def test_orders_from_before_say_whom_they_are_for(engine: Engine) -> None:
    upgrade(engine)
    downgrade(engine, "0002")
    store_something(engine)
    upgrade(engine)
    (order,) = Store(engine).lists.orders(None, None, None, 2)
    assert order.developer == DEVELOPER
