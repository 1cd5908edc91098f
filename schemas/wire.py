"""Plain requests and answers between agent, command line and server. None of these is signed."""

from typing import Literal

from pydantic import AwareDatetime, Field

from schemas.base import Count, Name, Schema

SessionState = Literal["open", "sealed", "submitted"]


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


class Problem(Schema):
    """An error answer (RFC 9457, section 3.1)."""

    type: str = Field(description="`urn:auditkit:error:<name of the error>`")
    title: str
    status: int
    detail: str
