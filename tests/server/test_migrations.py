"""The database's tables, brought from any older state to this version's, on both databases."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, inspect, text
from sqlalchemy.orm import Session

from auditor_server.errors import DatabaseSchemaError
from auditor_server.store import OrderRow, SessionRow, Store, TokenRow
from auditor_server.store.engine import make_engine
from auditor_server.store.migrations import FIRST, HEAD, differences, downgrade, upgrade
from auditor_server.store.migrations.migrate import configuration
from auditor_server.store.models import Base

NOW = datetime(2026, 11, 21, tzinfo=UTC)
VERSIONS_TABLE = "alembic_version"
SERVERS = 6


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


def store_something(engine: Engine) -> None:
    with Session(engine) as session, session.begin():
        session.add(TokenRow(id="dev", role="developer", secret_hash=b"", created_at=NOW))
        session.add(OrderRow(order_id="order", digest="d", envelope=b"signed", received_at=NOW))


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
    Base.metadata.create_all(engine)
    store_something(engine)
    assert VERSIONS_TABLE not in tables(engine)
    store = Store(engine)
    store.prepare()
    assert agrees(engine)
    assert VERSIONS_TABLE in tables(engine)
    stored = store.order("order")
    assert stored is not None
    assert (stored.envelope, stored.received_at) == (b"signed", NOW)
    assert store.registry.size() == 0


def test_tables_that_came_later_are_added(engine: Engine) -> None:
    """As in a home from before there was a registry."""
    Base.metadata.create_all(
        engine, tables=[Base.metadata.tables[name] for name in ("tokens", "orders", "sessions")]
    )
    store_something(engine)
    upgrade(engine)
    assert agrees(engine)
    assert Store(engine).order("order") is not None


def test_a_database_that_is_too_old_is_left_as_it_is(engine: Engine) -> None:
    Base.metadata.create_all(engine)
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
