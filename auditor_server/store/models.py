"""Tables. Signed documents are kept as the exact bytes that were signed."""

from datetime import UTC, datetime

from sqlalchemy import (
    DateTime,
    Dialect,
    ForeignKey,
    LargeBinary,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from schemas.wire import SessionState


class UtcDateTime(TypeDecorator[datetime]):
    """Aware UTC times, also on databases that forget time zones."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Store in UTC."""
        del dialect
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Read as UTC."""
        del dialect
        return None if value is None else value.replace(tzinfo=UTC)


class Base(DeclarativeBase):
    """Registry of all tables."""

    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's own declaration
        datetime: UtcDateTime(),
        bytes: LargeBinary(),
        str: String(200),
    }


class TokenRow(Base):
    """A bearer token; only the hash of its secret half is kept."""

    __tablename__ = "tokens"

    id: Mapped[str] = mapped_column(primary_key=True)
    role: Mapped[str]
    secret_hash: Mapped[bytes]
    created_at: Mapped[datetime]


class OrderRow(Base):
    """An order as it was signed."""

    __tablename__ = "orders"

    order_id: Mapped[str] = mapped_column(primary_key=True)
    digest: Mapped[str] = mapped_column(unique=True)
    envelope: Mapped[bytes]
    received_at: Mapped[datetime]


class SessionRow(Base):
    """A session: its documents, and how far its log has grown.

    `code_secret` is what the membership codes come from. Nobody but the auditor may ever see it;
    NULL: the session trains without codes.
    """

    __tablename__ = "sessions"

    __table_args__ = (UniqueConstraint("order_id", "number"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    order_id: Mapped[str] = mapped_column(ForeignKey("orders.order_id"), index=True)
    number: Mapped[int]
    owner: Mapped[str] = mapped_column(ForeignKey("tokens.id"), index=True)
    request_digest: Mapped[str] = mapped_column(unique=True)
    request: Mapped[bytes]
    grant: Mapped[bytes]
    pool_leaves: Mapped[bytes] = mapped_column(deferred=True)
    test_leaves: Mapped[bytes] = mapped_column(deferred=True)
    code_secret: Mapped[bytes | None] = mapped_column(deferred=True)
    opened_at: Mapped[datetime]
    state: Mapped[SessionState] = mapped_column(String(20))
    frontier: Mapped[bytes]
    size: Mapped[int]
    step: Mapped[int]
    epoch: Mapped[int]
    continuations: Mapped[int] = mapped_column(default=0)


class SessionKeyRow(Base):
    """A key that signs a session's checkpoints: of its request, or of one of its continuations.

    One table for both, so that no key can ever serve twice.
    """

    __tablename__ = "session_keys"

    key: Mapped[str] = mapped_column(primary_key=True)
    session_id: Mapped[str] = mapped_column(ForeignKey("sessions.id"), index=True)


class ContinuationRow(Base):
    """A session that went on in a fresh container, whose key signs what exceeds `log_size`."""

    __tablename__ = "continuations"

    __table_args__ = (UniqueConstraint("session_id", "request_digest"),)

    session_id: Mapped[str] = mapped_column(ForeignKey("sessions.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    log_size: Mapped[int]
    session_key: Mapped[str] = mapped_column(ForeignKey("session_keys.key"))
    request_digest: Mapped[str]
    request: Mapped[bytes]
    envelope: Mapped[bytes]
    granted_at: Mapped[datetime]


class SegmentRow(Base):
    """One flush: `count` records from index `first` on, one per line, and the checkpoint over them.

    `cosigned` is NULL between the commit of the records and the cosignature.
    """

    __tablename__ = "segments"

    session_id: Mapped[str] = mapped_column(ForeignKey("sessions.id"), primary_key=True)
    first: Mapped[int] = mapped_column(primary_key=True)
    count: Mapped[int]
    records: Mapped[bytes]
    checkpoint: Mapped[str] = mapped_column(Text)
    cosigned: Mapped[str | None] = mapped_column(Text)
    received_at: Mapped[datetime]
    cosigned_at: Mapped[datetime | None]

    @property
    def end(self) -> int:
        """Index of the first record after this segment."""
        return self.first + self.count


class SubmissionRow(Base):
    """Digests of the three blobs that make up a submitted model."""

    __tablename__ = "submissions"

    session_id: Mapped[str] = mapped_column(ForeignKey("sessions.id"), primary_key=True)
    weights_digest: Mapped[str]
    description_digest: Mapped[str]
    scores_digest: Mapped[str]
    level: Mapped[int | None]
    received_at: Mapped[datetime]


class VerdictRow(Base):
    """A verdict as it was signed, in the order of signing."""

    __tablename__ = "verdicts"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    verdict_id: Mapped[str] = mapped_column(unique=True)
    session_id: Mapped[str] = mapped_column(ForeignKey("sessions.id"), index=True)
    envelope: Mapped[bytes]
    issued_at: Mapped[datetime]
