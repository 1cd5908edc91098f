"""Bringing a database's tables to those of this version, and back."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, inspect, text

from auditor_server.errors import DatabaseSchemaError
from auditor_server.store.engine import POSTGRESQL, reading
from auditor_server.store.models import Base, OrderRow

FIRST: Final = "base"
"""Before the first step: no table at all."""
HEAD: Final = "head"
"""After the last step."""

# Any number will do that nobody else locks in this database.
ADVISORY_LOCK: Final = 0x61756469746B6974


def upgrade(engine: Engine) -> None:
    """Bring the tables to those of this version; nothing is done where nothing is to do.

    Of several servers that start at once, one does it while the others wait. All steps are one
    transaction. A database from before there were steps is taken over as it is.

    Raises:
        DatabaseSchemaError: a newer version has made the tables, or one that is too old.
        sqlalchemy.exc.DBAPIError: the database can't be used.

    """
    with engine.begin() as connection:
        _lock(connection)
        adopted = MigrationContext.configure(connection).get_current_revision() is None and (
            inspect(connection).has_table(OrderRow.__tablename__)
        )
        _run(connection, lambda config: command.upgrade(config, HEAD))
        if adopted and (found := differences(connection)):
            raise DatabaseSchemaError(
                f"the database was made by a version of the server that this one can't follow; it "
                f"differs in {found}; open it with the version in between first"
            )


def check_current(engine: Engine) -> None:
    """Check that the tables stand where this version leaves them.

    Raises:
        DatabaseSchemaError: they stand elsewhere.
        sqlalchemy.exc.DBAPIError: the database can't be used.

    """
    with reading(engine).connect() as connection:
        found = MigrationContext.configure(connection).get_current_revision()
        expected = ScriptDirectory.from_config(configuration(connection)).get_current_head()
    if found != expected:
        raise DatabaseSchemaError(
            f"expected tables after step {expected}, found step {found}; start the server anew"
        )


def downgrade(engine: Engine, revision: str) -> None:
    """Take steps back, down to one of them. What only newer tables hold is lost.

    Raises:
        DatabaseSchemaError: there is no such step.
        sqlalchemy.exc.DBAPIError: the database can't be used.

    """
    with engine.begin() as connection:
        _lock(connection)
        _run(connection, lambda config: command.downgrade(config, revision))


def differences(connection: Connection) -> list[Any]:
    """Return how the tables differ from the models; nothing if they agree."""
    context = MigrationContext.configure(connection, opts={"compare_type": True})
    return list(compare_metadata(context, Base.metadata))


def configuration(connection: Connection) -> Config:
    """Return the tool's configuration, made here and not in a file."""
    config = Config()
    here = str(Path(__file__).parent)
    config.set_main_option("script_location", here.replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _lock(connection: Connection) -> None:
    # On SQLite the transaction itself has locked the database.
    if connection.dialect.name == POSTGRESQL:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})


def _run(connection: Connection, step: Callable[[Config], None]) -> None:
    try:
        step(configuration(connection))
    except CommandError as error:
        raise DatabaseSchemaError(
            f"{error}: the database was made by a newer version of the server; use that one"
        ) from error
