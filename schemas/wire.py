"""Plain requests and answers between agent, command line and server. None of these is signed."""

from typing import Literal

from pydantic import AwareDatetime, Field

from schemas.base import Count, Fraction, Name, Schema, Sha256

SessionState = Literal["open", "sealed", "submitted"]
TrailAction = Literal["query", "verification", "bundle", "report", "trail", "sign-in", "sign-out"]


class DocumentSignature(Schema):
    """One signature of a signed document."""

    keyid: str = Field(description="SHA-256 of the public key, lower-case hex; a mere hint")
    sig: str = Field(description="base64")


class SignedDocument(Schema):
    """A signed document: an envelope of DSSE, version 1. In an answer, it is in RFC 8785 form."""

    payload: str = Field(description="base64 of the exact bytes that are signed")
    payloadType: str = Field(  # noqa: N815 - the standard's own name
        max_length=1_000, description="`application/vnd.in-toto+json` for in-toto statements"
    )
    signatures: tuple[DocumentSignature, ...] = Field(min_length=1, max_length=100)


class Health(Schema):
    """The server answers."""

    status: Literal["ok"] = "ok"


class Readiness(Schema):
    """The server can do its work."""

    status: Literal["ready"] = "ready"


class OrderAdded(Schema):
    """The order is there."""

    order_id: Name


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


class QueryAnswer(Schema):
    """What the model says about each image, in the order of the images."""

    verdicts: tuple[SignedDocument, ...] = Field(description="each a signed MembershipVerdict")
    adjusted_p_values: tuple[Fraction, ...] = Field(
        description="for the different samples among these together (Benjamini and Hochberg)"
    )


class DrawnReplay(Schema):
    """A draw of segments, and what executing them again gave."""

    draw: SignedDocument = Field(description="a signed ReplayDraw")
    result: SignedDocument | None = Field(description="a signed ReplayResult; null: none yet")


class DrawPage(Schema):
    """A page of the draws of a session, in their order."""

    draws: tuple[DrawnReplay, ...]


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
