"""Run by alembic, for `auditor_server.store.migrations.migrate`, on the connection given there."""

from typing import Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlalchemy import Connection

from auditor_server.store.models import Base, UtcDateTime


def _render(kind: str, item: object, _context: AutogenContext) -> str | Literal[False]:
    """Write what the database stores: a step must not change with our own classes."""
    if kind == "type" and isinstance(item, UtcDateTime):
        return "sa.DateTime(timezone=True)"
    return False


def _migrate(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        compare_type=True,
        # SQLite can do it too, since our transactions begin before its driver's own would.
        transactional_ddl=True,
        # SQLite changes a table by making it anew.
        render_as_batch=True,
        render_item=_render,
    )
    context.run_migrations()


_migrate(context.config.attributes["connection"])
