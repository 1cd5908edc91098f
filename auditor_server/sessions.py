"""Opening a session: a request that fits its order is answered with a nonce and a certificate."""

import secrets
from datetime import datetime, timedelta

from auditkit.evidence import canonical, containment, dsse, merkle, policy, statements
from auditkit.evidence.bundle import MAX_REQUEST_BYTES
from auditkit.evidence.derivation import LEAF_BYTES
from auditkit.evidence.document_checks import check_distinct_leaves
from auditkit.evidence.keys import PublicKey
from auditkit.evidence.membership_codes import SECRET_BYTES, secret_commitment
from auditor_server.access.principals import Principal
from auditor_server.context import Auditor
from auditor_server.documents import decode_base64, parse, parse_canonical, read_grant
from auditor_server.errors import (
    BodyTooLargeError,
    LeavesError,
    OrderMismatchError,
    SessionKeyReusedError,
)
from auditor_server.orders import order_seen_by, read_order
from auditor_server.store import SessionRow
from schemas import AuditOrder, SampleCommitment, SessionGrant, SessionRequest
from schemas.wire import SessionOpening, SessionStatus

NONCE_BYTES = 32
SESSION_ID_RANDOM_BYTES = 6


def open_session(auditor: Auditor, principal: Principal, opening: SessionOpening) -> bytes:
    """Open a session and return its signed grant (DSSE JSON).

    The grant is stored before it is answered. A request holds a fresh session key, so the same
    request again is the same agent asking twice: it gets the same grant, and never a second nonce
    to choose from.

    Raises:
        OrderNotFoundError, OrderMismatchError: no such order, one for another organisation, or
            another one than requested for.
        PolicyError: the request does not fit the order.
        ContainmentError: the container breaks a rule; the subclass names it.
        KeyFormatError, WeakKeyError: a session key that can't be trusted.
        SessionKeyReusedError: the session key belongs to another session.
        LeavesError: the leaves do not add up to the commitments.
        RepeatedLeafError: a leaf comes twice.
        InvalidDocumentError: the request breaks its schema or is not in RFC 8785 form.
        BodyTooLargeError: the request is larger than an evidence bundle can hold.

    """
    request_bytes = opening.request.encode()
    if len(request_bytes) > MAX_REQUEST_BYTES:
        raise BodyTooLargeError(
            f"expected a session request of at most {MAX_REQUEST_BYTES} bytes, found "
            f"{len(request_bytes)}; no evidence bundle holds more"
        )
    request = parse_canonical(SessionRequest, request_bytes)
    request_digest = canonical.sha256_hex(request_bytes)
    stored = auditor.store.session_by_request(request_digest)
    if stored is None:
        order_row = order_seen_by(auditor, principal, opening.order_id)
        if request.order_digest != order_row.digest:
            raise OrderMismatchError(
                f"the request is for the order with digest {request.order_digest}, "
                f"{opening.order_id!r} has {order_row.digest}; fetch the order and ask again"
            )
        order = read_order(order_row)
        now = auditor.now()
        policy.check_request(order, request, now)
        if request.container is not None:
            containment.check_container(request.container)
        PublicKey.from_hex(request.session_key)
        pool_leaves = _checked_leaves(opening.pool_leaves, request.pool, "pool")
        test_leaves = _checked_leaves(opening.test_leaves, request.test, "test")

        uses_codes = request.config.mint.evidence == "codes"
        code_secret = secrets.token_bytes(SECRET_BYTES) if uses_codes else None

        def make(number: int) -> SessionRow:
            policy.check_session_number(order, number)
            grant = _grant(
                auditor,
                order,
                request,
                request_digest=request_digest,
                number=number,
                now=now,
                code_secret=code_secret,
            )
            return SessionRow(
                id=grant.session_id,
                order_id=order.order_id,
                number=number,
                owner=principal.name,
                request_digest=request_digest,
                request=request_bytes,
                grant=_sign(auditor, grant),
                pool_leaves=pool_leaves,
                test_leaves=test_leaves,
                code_secret=code_secret,
                opened_at=now,
                state="open",
                frontier=merkle.Frontier().to_bytes(),
                size=0,
                step=0,
                epoch=0,
            )

        stored = auditor.store.add_session(
            order_id=order.order_id,
            request_digest=request_digest,
            session_key=request.session_key,
            make=make,
        )
    if (stored.request_digest, stored.owner) != (request_digest, principal.name):
        raise SessionKeyReusedError(
            "this session key already serves another session; make a fresh key for every session"
        )
    return stored.grant


def status(auditor: Auditor, session: SessionRow) -> SessionStatus:
    """Return how far a session has come."""
    request = parse(SessionRequest, session.request)
    grant, _ = read_grant(session.grant)
    return SessionStatus(
        id=session.id,
        order_id=session.order_id,
        developer=request.developer,
        name=request.config.name,
        state=session.state,
        opened_at=session.opened_at,
        valid_until=grant.valid_until,
        acknowledged_records=session.size,
        continuations=session.continuations,
        last_cosigned_at=auditor.store.last_cosigned_at(session.id),
        step=session.step,
        epoch=session.epoch,
        epochs=request.config.epochs,
    )


def _checked_leaves(text: str, commitment: SampleCommitment, what: str) -> bytes:
    leaves = decode_base64(text, f"{what}_leaves")
    if len(leaves) != commitment.size * LEAF_BYTES:
        raise LeavesError(
            f"the request commits to {commitment.size} {what} samples of {LEAF_BYTES} bytes each, "
            f"{len(leaves)} bytes of leaves came"
        )
    table = [leaves[start : start + LEAF_BYTES] for start in range(0, len(leaves), LEAF_BYTES)]
    root = merkle.root(table).hex()
    if root != commitment.root:
        raise LeavesError(
            f"the {what} leaves hash to {root}, the request commits to {commitment.root}"
        )
    check_distinct_leaves(what, leaves)
    return leaves


def _grant(
    auditor: Auditor,
    order: AuditOrder,
    request: SessionRequest,
    *,
    request_digest: str,
    number: int,
    now: datetime,
    code_secret: bytes | None,
) -> SessionGrant:
    session_id = f"{now:%Y%m%d}-{secrets.token_hex(SESSION_ID_RANDOM_BYTES)}"
    return SessionGrant(
        session_id=session_id,
        session_number=number,
        origin=f"{auditor.trust_root().origin}/sessions/{session_id}",
        request_digest=request_digest,
        order_digest=request.order_digest,
        nonce=secrets.token_bytes(NONCE_BYTES).hex(),
        split=policy.split_sizes(order.split, request.pool.size),
        session_key=request.session_key,
        valid_from=now,
        valid_until=min(now + timedelta(hours=order.most_session_hours), order.expires_at),
        code_commitment=None if code_secret is None else secret_commitment(code_secret),
    )


def _sign(auditor: Auditor, grant: SessionGrant) -> bytes:
    subjects = statements.subject("grant", grant.session_id, grant)
    payload = statements.make(statements.GRANT_PREDICATE, grant, subjects)
    return dsse.sign(payload, [auditor.signing_key("session", grant.valid_from)]).to_bytes()
