"""Plain requests and answers between agent, command line and server. None of these is signed."""

from typing import Literal

from pydantic import AwareDatetime, Field

from schemas.base import Count, Name, Schema, Sha256

SessionState = Literal["open", "sealed", "submitted"]
TrailAction = Literal["query", "verification", "bundle", "report", "trail", "sign-in", "sign-out"]


class SessionOpening(Schema):
    """Body of `POST /v1/sessions`: the request, and the leaves that its two commitments cover."""

    order_id: Name
    request: str = Field(description="the exact RFC 8785 bytes of the SessionRequest, as text")
    pool_leaves: str = Field(description="base64 of the pool's leaves, 32 bytes each, in order")
    test_leaves: str = Field(description="base64 of the test samples' leaves, likewise")


class SessionStatus(Schema):
    """How far a session has come, as the server sees it."""

    id: Name
    order_id: Name
    developer: str
    name: Name = Field(description="name of the training configuration")
    state: SessionState
    opened_at: AwareDatetime
    valid_until: AwareDatetime
    acknowledged_records: Count = Field(description="records that the server holds for good")
    continuations: Count = Field(
        default=0, description="how often it went on in a fresh container, under a new session key"
    )
    last_cosigned_at: AwareDatetime | None
    step: Count = Field(description="last optimisation step in the log; 0 before the first")
    epoch: Count
    epochs: Count = Field(description="epochs that the configuration asks for")


class OrderSummary(Schema):
    """One order of the list; its signed envelope is at `/v1/orders/{order_id}`."""

    order_id: Name
    developer: str
    purpose: str
    expires_at: AwareDatetime


class TrailEntry(Schema):
    """Something that somebody looked at or asked."""

    number: Count = Field(description="rises from entry to entry; gaps are what was pruned")
    at: AwareDatetime
    principal: str = Field(description="name of the token, or user/<name>")
    role: str
    organisation: str
    action: TrailAction
    session_id: Name | None
    purpose: str | None = Field(description="what a query was for, in the words of who asked")
    pictures: Count = Field(description="how many were asked about")
    picture_digests: tuple[Sha256, ...] = Field(
        description="HMAC-SHA256 of each picture file's SHA-256 under the server's own key"
    )


class TrailPage(Schema):
    """A page of the audit trail, newest first."""

    entries: tuple[TrailEntry, ...]
    before: Count | None = Field(description="parameter of the next page; null: there is none")


class Problem(Schema):
    """An error answer (RFC 9457, section 3.1)."""

    type: str = Field(description="`urn:auditkit:error:<name of the error>`")
    title: str
    status: int
    detail: str
