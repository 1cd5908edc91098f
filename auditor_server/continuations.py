"""Going on in a fresh container: check, certify its key, store, answer, in that order."""

from collections.abc import Sequence

from auditkit.evidence import canonical, containment, dsse, statements
from auditkit.evidence.bundle import MAX_CONTINUATIONS
from auditkit.evidence.continuations import check_fresh_container
from auditkit.evidence.keys import PublicKey
from auditor_server.context import Auditor
from auditor_server.documents import parse, parse_canonical, read_grant
from auditor_server.errors import (
    ContinuationEnvironmentError,
    ContinuationImageError,
    ContinuationMismatchError,
    NotInContainerError,
    SessionExpiredError,
    SessionKeyReusedError,
    TooManyContinuationsError,
)
from auditor_server.records import check_open, cosign_end
from auditor_server.session_keys import SessionKeys
from auditor_server.store import ContinuationRow, SessionRow
from schemas import ContinuationRequest, SessionContinuation, SessionRequest


def continue_session(auditor: Auditor, session: SessionRow, data: bytes) -> bytes:
    """Certify the key of a fresh container and return the signed continuation (DSSE JSON).

    No session key ever leaves its container, so when a container is gone, its key is too. The
    agent in the next one asks here for the log to go on under a key of its own.

    The caller, an agent, MUST first send again what it had signed and not seen acknowledged, so
    that both sides agree on the size of the log; MUST make a fresh key for every request, inside
    the container that the request describes; MUST throw away what it recorded beyond `log_size`
    of the answer; and MUST name the continuation in a continuation record, which comes with
    the first flush and is the first record after `log_size` that is no receipt (in an empty log:
    the second, after the grant record). When no answer came it MUST send the identical request
    again.

    The server

    * MUST refuse a request that names another session or another grant, one for a session that
      was not granted for a container or has ended, another image or another environment than was
      granted, a container that breaks a rule of `auditkit.evidence.containment` or that the
      session ran in before, and a key that signs for any session already or is revoked;
    * MUST take `log_size` from the log in the very transaction that stores the continuation, so
      that no flush can come in between: a checkpoint of a larger size is from then on accepted
      under the new key only, one of at most this size under the key that was in force for it;
    * MUST have cosigned the checkpoint of this size before, so that both sides can prove where the
      new key takes over;
    * MUST commit the continuation durably before it answers, and MUST answer the same request
      with the same bytes each time, whatever became of the session since;
    * MUST NOT give a new nonce or more time, and MUST NOT change or drop an earlier continuation.

    Of several continuations at one size of the log, only the last can be named in it: the
    containers of the others are gone before they wrote anything.

    Args:
        auditor: the server.
        session: one that the caller may see.
        data: the exact RFC 8785 bytes of the ContinuationRequest.

    Raises:
        InvalidDocumentError: the request breaks its schema or is not in RFC 8785 form.
        ContinuationMismatchError: it names another session, or another grant.
        NotInContainerError: the session does not run in a container.
        ContinuationImageError, ContinuationEnvironmentError: another image, or another machine or
            software, than was granted.
        ContainmentError: the container breaks a rule; the subclass names it.
        ContainerReusedError: the session ran in this container before.
        KeyFormatError, WeakKeyError: a session key that can't be trusted.
        SessionKeyReusedError: the key signs for a session already.
        SessionSealedError, SessionExpiredError: the session has ended, or a key is revoked.
        TooManyContinuationsError: more than an evidence bundle can hold.

    """
    request = parse_canonical(ContinuationRequest, data)
    request_digest = canonical.sha256_hex(data)
    grant, grant_digest = read_grant(session.grant)
    _check_names(request, session.id, grant_digest)
    stored = auditor.store.continuation_by_request(session.id, request_digest)
    if stored is not None:
        return stored.envelope
    root = auditor.trust_root()
    SessionKeys.read(auditor.store, session, grant).check_not_revoked(root)
    if request.session_key in root.revoked_session_keys:
        raise SessionExpiredError("the auditor has revoked this key; make a fresh one")
    check_open(session, grant, auditor.now())
    began = parse(SessionRequest, session.request)
    _check_same_set_up(began, request)
    containment.check_container(request.container)
    PublicKey.from_hex(request.session_key)

    def make(
        current: SessionRow, earlier: Sequence[ContinuationRow], key_is_known: bool
    ) -> ContinuationRow:
        if key_is_known:
            raise SessionKeyReusedError(
                "this session key already serves a session; make a fresh key in every container"
            )
        check_fresh_container(request.container, _containers(began, earlier))
        now = auditor.now()
        check_open(current, grant, now)
        number = current.continuations + 1
        if number > MAX_CONTINUATIONS:
            raise TooManyContinuationsError(
                f"session {current.id} has been continued {MAX_CONTINUATIONS} times, and no "
                "evidence bundle holds more; open a new session"
            )
        continuation = SessionContinuation(
            session_id=current.id,
            number=number,
            request_digest=request_digest,
            grant_digest=grant_digest,
            log_size=current.size,
            session_key=request.session_key,
            granted_at=now,
        )
        return ContinuationRow(
            session_id=current.id,
            number=number,
            log_size=current.size,
            session_key=request.session_key,
            request_digest=request_digest,
            request=data,
            envelope=_sign(auditor, continuation),
            granted_at=now,
        )

    while stored is None:  # the old container may still be sending
        session = auditor.store.session(session.id) or session
        cosign_end(auditor, root, session)
        stored = auditor.store.add_continuation(
            session_id=session.id,
            request_digest=request_digest,
            session_key=request.session_key,
            size=session.size,
            make=make,
        )
    return stored.envelope


def _check_names(request: ContinuationRequest, session_id: str, grant_digest: str) -> None:
    for what, expected, found in (
        ("session", session_id, request.session_id),
        ("grant with digest", grant_digest, request.grant_digest),
    ):
        if found != expected:
            raise ContinuationMismatchError(
                f"expected a request to continue {what} {expected}, found {found}; "
                "the request was sent to the wrong session"
            )


def _check_same_set_up(granted: SessionRequest, request: ContinuationRequest) -> None:
    if granted.container is None:
        raise NotInContainerError(
            "the session was granted for a run outside a container, which keeps its session key; "
            "resume it without a container"
        )
    expected, found = granted.image_digest, request.container.image.config_digest
    if found != expected:
        raise ContinuationImageError(
            f"the session was granted for image {expected}, the fresh container runs {found}; "
            "resume it with the image that it began with"
        )
    differing = [
        f"{name} {getattr(request.environment, name)} instead of {value}"
        for name, value in granted.environment
        if getattr(request.environment, name) != value
    ]
    if differing:
        raise ContinuationEnvironmentError(
            f"the fresh container has {', '.join(differing)}; resume the session on the machine "
            "and with the settings that it began with"
        )


def _containers(began: SessionRequest, earlier: Sequence[ContinuationRow]) -> set[str]:
    """Return the identifiers of all containers that the session has run in."""
    asked = [parse(ContinuationRequest, row.request).container for row in earlier]
    runs = asked if began.container is None else [began.container, *asked]
    return {run.description.container_id for run in runs}


def _sign(auditor: Auditor, continuation: SessionContinuation) -> bytes:
    identifier = f"{continuation.session_id}/{continuation.number}"
    subjects = statements.subject("continuation", identifier, continuation)
    payload = statements.make(statements.CONTINUATION_PREDICATE, continuation, subjects)
    return dsse.sign(payload, [auditor.signing_key("session", continuation.granted_at)]).to_bytes()
