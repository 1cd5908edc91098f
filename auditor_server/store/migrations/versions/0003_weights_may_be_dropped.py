"""The weights of a submitted model may be dropped, while everything that was signed stays."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    """Take the step."""
    with op.batch_alter_table("submissions") as batch_op:
        batch_op.add_column(
            sa.Column("weights_dropped_at", sa.DateTime(timezone=True), nullable=True)
        )


def downgrade() -> None:
    """Take it back."""
    with op.batch_alter_table("submissions") as batch_op:
        batch_op.drop_column("weights_dropped_at")
