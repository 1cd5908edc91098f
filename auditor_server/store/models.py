"""Tables. Signed documents are kept as the exact bytes that were signed."""

from datetime import UTC, datetime

from sqlalchemy import (
    BigInteger,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from schemas.custody import ExchangeKind
from schemas.registry import EntryKind
from schemas.wire import SessionState, TrailAction


class UtcDateTime(TypeDecorator[datetime]):
    """Aware UTC times on every database."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Store in UTC."""
        del dialect
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Read as UTC: SQLite forgets the zone, PostgreSQL gives its own."""
        del dialect
        if value is None or value.tzinfo is not None:
            return None if value is None else value.astimezone(UTC)
        return value.replace(tzinfo=UTC)


# What a log counts may be as large as a record can say; SQLite has one kind of integer only.
Count = BigInteger().with_variant(Integer(), "sqlite")


class Base(DeclarativeBase):
    """Registry of all tables."""

    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's own declaration
        datetime: UtcDateTime(),
        bytes: LargeBinary(),
        str: String(200),
    }


class OrganisationRow(Base):
    """Whom people and tokens belong to. `name` is the developer's name, as orders have it."""

    __tablename__ = "organisations"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime]


class TokenRow(Base):
    """A bearer token; only the hash of its secret half is kept.

    `organisation` refers to one, and `session_id` to a session, without the database's watching
    over it: SQLite can't add that to a table that others refer to. Neither is ever deleted.
    """

    __tablename__ = "tokens"

    id: Mapped[str] = mapped_column(primary_key=True)
    role: Mapped[str]
    secret_hash: Mapped[bytes]
    created_at: Mapped[datetime]
    organisation: Mapped[str]
    session_id: Mapped[str | None]
    note: Mapped[str] = mapped_column(Text, default="")
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class UserRow(Base):
    """A person who signs in to pages; see `auditor_server.access.passwords` for the hash."""

    __tablename__ = "users"

    name: Mapped[str] = mapped_column(primary_key=True)
    organisation: Mapped[str] = mapped_column(ForeignKey("organisations.id"), index=True)
    role: Mapped[str]
    password_hash: Mapped[str]
    created_at: Mapped[datetime]
    disabled_at: Mapped[datetime | None]


class SignInRow(Base):
    """A person who is signed in, by password or by token; of the cookie only the hash is kept."""

    __tablename__ = "sign_ins"

    cookie_hash: Mapped[str] = mapped_column(primary_key=True)
    user_name: Mapped[str | None] = mapped_column(ForeignKey("users.name"), index=True)
    token_id: Mapped[str | None] = mapped_column(ForeignKey("tokens.id"))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime] = mapped_column(index=True)


class SignInFailureRow(Base):
    """A wrong password. Of the name there is only a hash: people type passwords into that field."""

    __tablename__ = "sign_in_failures"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    name_hash: Mapped[str] = mapped_column(index=True)
    failed_at: Mapped[datetime]


class TrailRow(Base):
    """Something that somebody looked at or asked; `digests` are keyed, 32 bytes per picture."""

    __tablename__ = "audit_trail"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    at: Mapped[datetime] = mapped_column(index=True)
    principal: Mapped[str]
    role: Mapped[str]
    organisation: Mapped[str]
    action: Mapped[TrailAction] = mapped_column(String(20))
    session_id: Mapped[str | None] = mapped_column(index=True)
    purpose: Mapped[str | None] = mapped_column(Text)
    pictures: Mapped[int]
    digests: Mapped[bytes]


class OrderRow(Base):
    """An order as it was signed; `developer` is whom it names."""

    __tablename__ = "orders"

    __table_args__ = (Index("ix_orders_received_at", "received_at", "order_id"),)

    order_id: Mapped[str] = mapped_column(primary_key=True)
    digest: Mapped[str] = mapped_column(unique=True)
    developer: Mapped[str]
    envelope: Mapped[bytes]
    received_at: Mapped[datetime]


class SessionRow(Base):
    """A session: its documents, and how far its log has grown.

    `code_secret` is what the membership codes come from. Nobody but the auditor may ever see it;
    NULL: the session trains without codes.
    """

    __tablename__ = "sessions"

    __table_args__ = (
        UniqueConstraint("order_id", "number"),
        Index("ix_sessions_opened_at", "opened_at", "id"),
    )

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
    size: Mapped[int] = mapped_column(Count)
    step: Mapped[int] = mapped_column(Count)
    epoch: Mapped[int] = mapped_column(Count)
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
    log_size: Mapped[int] = mapped_column(Count)
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
    first: Mapped[int] = mapped_column(Count, primary_key=True)
    count: Mapped[int] = mapped_column(Count)
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
    """Digests of the three blobs that make up a submitted model.

    `weights_dropped_at` is NULL as long as the weights are kept.
    """

    __tablename__ = "submissions"

    session_id: Mapped[str] = mapped_column(ForeignKey("sessions.id"), primary_key=True)
    weights_digest: Mapped[str]
    description_digest: Mapped[str]
    scores_digest: Mapped[str]
    level: Mapped[int | None]
    received_at: Mapped[datetime]
    weights_dropped_at: Mapped[datetime | None]

    @property
    def kept_digests(self) -> tuple[str, ...]:
        """Digests of the blobs that must be there."""
        weights = () if self.weights_dropped_at else (self.weights_digest,)
        return (*weights, self.description_digest, self.scores_digest)


class VerdictRow(Base):
    """A verdict as it was signed, in the order of signing."""

    __tablename__ = "verdicts"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    verdict_id: Mapped[str] = mapped_column(unique=True)
    session_id: Mapped[str] = mapped_column(ForeignKey("sessions.id"), index=True)
    envelope: Mapped[bytes]
    issued_at: Mapped[datetime]


class InquiryRow(Base):
    """What somebody asked at once, and what was answered; it goes when its trail goes."""

    __tablename__ = "inquiries"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(unique=True)
    at: Mapped[datetime] = mapped_column(index=True)
    role: Mapped[str]
    organisation: Mapped[str] = mapped_column(index=True)
    document: Mapped[bytes]


class InquiryVerdictRow(Base):
    """Which inquiry a verdict answers."""

    __tablename__ = "inquiry_verdicts"

    verdict_id: Mapped[str] = mapped_column(ForeignKey("verdicts.verdict_id"), primary_key=True)
    inquiry: Mapped[int] = mapped_column(ForeignKey("inquiries.number"), index=True)


class VerificationRow(Base):
    """A verification summary as it was signed, in the order of signing."""

    __tablename__ = "verifications"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    session_id: Mapped[str] = mapped_column(ForeignKey("sessions.id"), index=True)
    envelope: Mapped[bytes]
    verified_at: Mapped[datetime]


class ReplayRow(Base):
    """A draw of segments to execute again, and its result as soon as there is one."""

    __tablename__ = "replays"

    session_id: Mapped[str] = mapped_column(ForeignKey("sessions.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    draw_digest: Mapped[str] = mapped_column(unique=True)
    draw: Mapped[bytes]
    drawn_at: Mapped[datetime]
    result: Mapped[bytes | None]


class RegistrySequencerRow(Base):
    """The registry's one and only sequencer: whoever appends or signs a head locks this row.

    `time_ms` is the latest time that was registered or signed; no later one may lie before it.
    """

    __tablename__ = "registry_sequencer"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    size: Mapped[int] = mapped_column(BigInteger)
    time_ms: Mapped[int] = mapped_column(BigInteger)


class RegistryEntryRow(Base):
    """A leaf of the registry."""

    __tablename__ = "registry_entries"

    position: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    document: Mapped[str] = mapped_column(unique=True)
    kind: Mapped[EntryKind] = mapped_column(String(20), index=True)
    digest: Mapped[str] = mapped_column(index=True)
    session_id: Mapped[str | None] = mapped_column(index=True)
    leaf: Mapped[bytes]


class RegistryNodeRow(Base):
    """Root of a complete subtree of the registry; see `auditkit.evidence.subtrees`."""

    __tablename__ = "registry_nodes"

    level: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    position: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    root: Mapped[bytes]


class RegistryHeadRow(Base):
    """A checkpoint of the registry that was signed; there can be one for each size only."""

    __tablename__ = "registry_heads"

    size: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    root: Mapped[bytes]
    note: Mapped[str] = mapped_column(Text)
    cosigned_at: Mapped[datetime]


class WitnessingRow(Base):
    """The latest cosignature of a witness over a log, and what goes on from there.

    `log` is the log's origin without the server's own name, `witness` the SHA-256 of the witness's
    verifier key, `line` its signature line, `time` in Unix seconds. `frontier` is that of the tree
    for a session's log; empty for the registry, which keeps its nodes.
    """

    __tablename__ = "witnessings"

    log: Mapped[str] = mapped_column(primary_key=True)
    witness: Mapped[str] = mapped_column(primary_key=True)
    size: Mapped[int] = mapped_column(BigInteger)
    root: Mapped[bytes]
    time: Mapped[int] = mapped_column(BigInteger)
    line: Mapped[str] = mapped_column(Text)
    frontier: Mapped[bytes]


class HeldMintRow(Base):
    """A session whose MINT Model T is held here. Nobody but the auditor may ever see the secret.

    T's initial weights and its dropout follow from `secret`; `shapes` is the TapShapes (JSON) that
    T was built for.
    """

    __tablename__ = "held_mints"

    session_id: Mapped[str] = mapped_column(ForeignKey("sessions.id"), primary_key=True)
    secret: Mapped[bytes]
    shapes: Mapped[bytes]


class MintExchangeRow(Base):
    """One exchange of a session whose T is held here: what came, what went back, what was kept.

    `received` and `sent` are digests of the payloads; `state_digest` and `weights_digest` are T's
    where its state after the step is kept.
    """

    __tablename__ = "mint_exchanges"

    session_id: Mapped[str] = mapped_column(ForeignKey("sessions.id"), primary_key=True)
    kind: Mapped[ExchangeKind] = mapped_column(String(20), primary_key=True)
    step: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    cohort: Mapped[str] = mapped_column(primary_key=True, default="")
    first: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False, default=0)
    received: Mapped[str]
    sent: Mapped[str]
    state_digest: Mapped[str | None]
    weights_digest: Mapped[str | None]
    exchanged_at: Mapped[datetime]


class MintRewindRow(Base):
    """T went back to an earlier state, since the training did."""

    __tablename__ = "mint_rewinds"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    session_id: Mapped[str] = mapped_column(ForeignKey("sessions.id"), index=True)
    step: Mapped[int] = mapped_column(BigInteger)
    discarded_steps: Mapped[int] = mapped_column(BigInteger)
    rewound_at: Mapped[datetime]
