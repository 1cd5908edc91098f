"""Opening the database, SQLite or PostgreSQL, so that commits are durable and writers queue."""

import sqlite3
from collections.abc import Callable
from typing import Any, Final, TypeVar

from sqlalchemy import URL, String, column, create_engine, event, make_url, select, table
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import ArgumentError, IntegrityError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnectionError

from auditor_server.errors import DatabaseNotDurableError, DatabaseUrlError

SQLITE: Final = "sqlite"
POSTGRESQL: Final = "postgresql"
DRIVERS: Final = {SQLITE: "sqlite+pysqlite", POSTGRESQL: "postgresql+psycopg"}

# How long a writer waits for another one before SQLite gives up.
BUSY_TIMEOUT_MILLISECONDS = 30_000
# Whoever waits for a machine that does not answer at all is told so.
CONNECT_SECONDS = 10
# What the driver, or the pool of connections, says of a database that gives no answer now.
NO_ANSWER = (OperationalError, InterfaceError, NoConnectionError)
# What a full disk is called: SQLite's result codes (of its write-ahead log's index, too), and
# PostgreSQL's state (its manual, appendix A).
SQLITE_FULL: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE})
POSTGRESQL_DISK_FULL: Final = "53100"
# With any of these off, PostgreSQL may lose or tear what it has said to have committed.
DURABILITY_SETTINGS = ("fsync", "full_page_writes", "synchronous_commit")

# Lets others refer to the row meanwhile, as a new segment does to its session.
ROW_LOCK: Final[dict[str, Any]] = {"key_share": True}

T = TypeVar("T")


def make_engine(database_url: str) -> Engine:
    """Open the database. No message of its errors shows values, which may be somebody's question.

    SQLite runs in WAL mode, synced to disk at every commit, and every writer locks it as a whole.
    On PostgreSQL a writer locks rows; each of its statements sees what was committed before it.

    Raises:
        DatabaseUrlError: the URL names neither SQLite nor PostgreSQL.

    """
    url = read_url(database_url)
    if url.get_backend_name() == SQLITE:
        engine = create_engine(url, hide_parameters=True)
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    # A server that was restarted must not cost anybody an answer.
    limits = {} if "connect_timeout" in url.query else {"connect_timeout": CONNECT_SECONDS}
    return create_engine(
        url,
        isolation_level="READ COMMITTED",
        pool_pre_ping=True,
        connect_args=limits,
        hide_parameters=True,
    )


def is_full(error: BaseException) -> bool:
    """Say whether this is what a database says whose disk has no room left."""
    said = getattr(error, "orig", None)
    return (
        getattr(said, "sqlite_errorcode", None) in SQLITE_FULL
        or getattr(said, "sqlstate", None) == POSTGRESQL_DISK_FULL
    )


def read_url(database_url: str) -> URL:
    """Read the URL of a database, and name its driver.

    Raises:
        DatabaseUrlError: the URL names neither SQLite nor PostgreSQL.

    """
    try:
        url = make_url(database_url)
    except ArgumentError as error:
        raise DatabaseUrlError(
            "the database's URL can't be read; expected for example "
            "postgresql+psycopg://USER:PASSWORD@HOST/DATABASE"
        ) from error
    driver = DRIVERS.get(url.get_backend_name())
    if driver is None or url.drivername not in {url.get_backend_name(), driver}:
        raise DatabaseUrlError(
            f"expected a database URL that begins with {' or '.join(DRIVERS.values())}, found "
            f"{url.drivername}"
        )
    return url.set(drivername=driver)


def reading(engine: Engine) -> Engine:
    """Return the engine for transactions that write nothing: each sees one moment only."""
    if engine.dialect.name == POSTGRESQL:
        return engine.execution_options(
            isolation_level="REPEATABLE READ", postgresql_readonly=True, reads_only=True
        )
    return engine.execution_options(reads_only=True)


def check_durable(engine: Engine) -> None:
    """Check that the database keeps what it has committed, be the power cut a moment later.

    Raises:
        DatabaseNotDurableError: it is set up to lose it.

    """
    if engine.dialect.name != POSTGRESQL:
        return  # `_prepare_sqlite` sees to it
    name, value = column("name", String), column("setting", String)
    statement = select(name).select_from(table("pg_settings", name, value))
    with reading(engine).connect() as connection:
        off = connection.scalars(
            statement.where(name.in_(DURABILITY_SETTINGS), value == "off").order_by(name)
        ).all()
    if off:
        raise DatabaseNotDurableError(
            f"expected a database that keeps what it commits, found {' = off, '.join(off)} = off; "
            "the server cosigns only what can't be lost, so switch it on"
        )


def settled(attempt: Callable[[], T]) -> T:
    """Run a transaction, and a second time if another writer has just stored what it would have.

    Args:
        attempt: looks first for what is stored; so its second run finds it.

    Raises:
        IntegrityError: that was not the reason.

    """
    try:
        return attempt()
    except IntegrityError:
        return attempt()


def _prepare_sqlite(connection: Any, _record: object) -> None:  # noqa: ANN401 - the driver's own
    # The driver must not open transactions by itself; `_begin_sqlite` does.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (
        f"busy_timeout = {BUSY_TIMEOUT_MILLISECONDS}",
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # A writer takes its lock at once: upgrading a read lock later can fail without waiting.
    reads_only = connection.get_execution_options().get("reads_only", False)
    connection.exec_driver_sql("BEGIN" if reads_only else "BEGIN IMMEDIATE")
