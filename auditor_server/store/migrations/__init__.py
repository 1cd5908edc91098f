"""The database's tables, step by step: what each version of the server has changed in them.

`python -m auditor_server.store.migrations MESSAGE` writes the next step from what `models` says.
A step is never changed once it was released. Each must work on SQLite and on PostgreSQL.
"""

from auditor_server.store.migrations.migrate import (
    FIRST,
    HEAD,
    check_current,
    differences,
    downgrade,
    upgrade,
)

__all__ = ["FIRST", "HEAD", "check_current", "differences", "downgrade", "upgrade"]
