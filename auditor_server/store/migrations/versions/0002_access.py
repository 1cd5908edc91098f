"""Organisations, people who sign in, and the trail of what was looked at and asked.

Tokens from before go on as they did. Those of developers saw the sessions that they had opened
themselves, so each gets an organisation of its own; the others saw all, as the auditor's own do.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

AUTHORITY = "auditor"
TOKEN_COLUMNS = ("organisation", "session_id", "note", "expires_at", "revoked_at")


def upgrade() -> None:
    """Take the step."""
    organisations = op.create_table(
        "organisations",
        sa.Column("id", sa.String(length=200), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name"),
    )
    # The default is what SQLite asks for; it names no organisation, and so shows nothing.
    op.add_column(
        "tokens",
        sa.Column("organisation", sa.String(length=200), nullable=False, server_default=""),
    )
    op.add_column("tokens", sa.Column("session_id", sa.String(length=200), nullable=True))
    op.add_column("tokens", sa.Column("note", sa.Text(), nullable=False, server_default=""))
    op.add_column("tokens", sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("tokens", sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True))
    op.create_table(
        "users",
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("organisation", sa.String(length=200), nullable=False),
        sa.Column("role", sa.String(length=200), nullable=False),
        sa.Column("password_hash", sa.String(length=200), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("disabled_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["organisation"], ["organisations.id"]),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_index("ix_users_organisation", "users", ["organisation"])
    op.create_table(
        "sign_ins",
        sa.Column("cookie_hash", sa.String(length=200), nullable=False),
        sa.Column("user_name", sa.String(length=200), nullable=True),
        sa.Column("token_id", sa.String(length=200), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["user_name"], ["users.name"]),
        sa.ForeignKeyConstraint(["token_id"], ["tokens.id"]),
        sa.PrimaryKeyConstraint("cookie_hash"),
    )
    op.create_index("ix_sign_ins_user_name", "sign_ins", ["user_name"])
    op.create_index("ix_sign_ins_expires_at", "sign_ins", ["expires_at"])
    op.create_table(
        "sign_in_failures",
        sa.Column("number", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("name_hash", sa.String(length=200), nullable=False),
        sa.Column("failed_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("number"),
    )
    op.create_index("ix_sign_in_failures_name_hash", "sign_in_failures", ["name_hash"])
    op.create_table(
        "audit_trail",
        sa.Column("number", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("principal", sa.String(length=200), nullable=False),
        sa.Column("role", sa.String(length=200), nullable=False),
        sa.Column("organisation", sa.String(length=200), nullable=False),
        sa.Column("action", sa.String(length=20), nullable=False),
        sa.Column("session_id", sa.String(length=200), nullable=True),
        sa.Column("purpose", sa.Text(), nullable=True),
        sa.Column("pictures", sa.Integer(), nullable=False),
        sa.Column("digests", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("number"),
    )
    op.create_index("ix_audit_trail_at", "audit_trail", ["at"])
    op.create_index("ix_audit_trail_session_id", "audit_trail", ["session_id"])

    tokens = sa.table(
        "tokens", *(sa.column(name, sa.String) for name in ("id", "role", "organisation"))
    )
    connection = op.get_bind()
    developers = connection.scalars(sa.select(tokens.c.id).where(tokens.c.role == "developer"))
    now = datetime.now(UTC)
    op.bulk_insert(
        organisations,
        [{"id": name, "name": name, "created_at": now} for name in (AUTHORITY, *developers.all())],
    )
    connection.execute(
        sa.update(tokens).where(tokens.c.role == "developer").values(organisation=tokens.c.id)
    )
    connection.execute(
        sa.update(tokens).where(tokens.c.role != "developer").values(organisation=AUTHORITY)
    )


def downgrade() -> None:
    """Take it back."""
    for table in ("audit_trail", "sign_in_failures", "sign_ins", "users"):
        op.drop_table(table)
    for column in TOKEN_COLUMNS:
        op.drop_column("tokens", column)
    op.drop_table("organisations")
