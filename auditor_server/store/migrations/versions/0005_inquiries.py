"""Inquiries: what was asked at once, and which verdicts answer it."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    """Take the step."""
    op.create_table(
        "inquiries",
        sa.Column("number", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("id", sa.String(length=200), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("role", sa.String(length=200), nullable=False),
        sa.Column("organisation", sa.String(length=200), nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("number"),
        sa.UniqueConstraint("id"),
    )
    with op.batch_alter_table("inquiries") as batch_op:
        batch_op.create_index(batch_op.f("ix_inquiries_at"), ["at"], unique=False)
        batch_op.create_index(
            batch_op.f("ix_inquiries_organisation"), ["organisation"], unique=False
        )

    op.create_table(
        "inquiry_verdicts",
        sa.Column("verdict_id", sa.String(length=200), nullable=False),
        sa.Column("inquiry", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["inquiry"], ["inquiries.number"]),
        sa.ForeignKeyConstraint(
            ["verdict_id"],
            ["verdicts.verdict_id"],
        ),
        sa.PrimaryKeyConstraint("verdict_id"),
    )
    with op.batch_alter_table("inquiry_verdicts") as batch_op:
        batch_op.create_index(batch_op.f("ix_inquiry_verdicts_inquiry"), ["inquiry"], unique=False)


def downgrade() -> None:
    """Take it back."""
    with op.batch_alter_table("inquiry_verdicts") as batch_op:
        batch_op.drop_index(batch_op.f("ix_inquiry_verdicts_inquiry"))

    op.drop_table("inquiry_verdicts")
    with op.batch_alter_table("inquiries") as batch_op:
        batch_op.drop_index(batch_op.f("ix_inquiries_organisation"))
        batch_op.drop_index(batch_op.f("ix_inquiries_at"))

    op.drop_table("inquiries")
