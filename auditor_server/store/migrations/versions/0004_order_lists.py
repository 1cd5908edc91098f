"""Orders say for whom they are in a column of their own, so that lists need not read them all."""

import base64
import json
from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    """Take the step."""
    # The default is what SQLite asks for; no order names a developer so.
    op.add_column(
        "orders", sa.Column("developer", sa.String(length=200), nullable=False, server_default="")
    )
    op.create_index("ix_orders_received_at", "orders", ["received_at", "order_id"])
    op.create_index("ix_sessions_opened_at", "sessions", ["opened_at", "id"])
    orders = sa.table(
        "orders",
        sa.column("order_id", sa.String),
        sa.column("envelope", sa.LargeBinary),
        sa.column("developer", sa.String),
    )
    connection = op.get_bind()
    for order_id in connection.scalars(sa.select(orders.c.order_id)).all():
        row = orders.c.order_id == order_id
        envelope = connection.scalars(sa.select(orders.c.envelope).where(row)).one()
        connection.execute(sa.update(orders).where(row).values(developer=_developer(envelope)))


def downgrade() -> None:
    """Take it back."""
    op.drop_index("ix_sessions_opened_at", "sessions")
    op.drop_index("ix_orders_received_at", "orders")
    op.drop_column("orders", "developer")


def _developer(envelope: bytes) -> str:
    """Return the developer that a signed order names; it was verified when it came."""
    statement = json.loads(base64.b64decode(json.loads(envelope)["payload"]))
    developer: str = statement["predicate"]["developer"]
    return developer
