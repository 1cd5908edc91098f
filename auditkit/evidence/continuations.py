"""How a session goes on in a fresh container, under a session key that is new with it."""

from bisect import bisect_left
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from pydantic import ValidationError

from auditkit.evidence import bundle, dsse, statements
from auditkit.evidence.canonical import sha256_hex, to_bytes
from auditkit.evidence.errors import EvidenceError
from auditkit.evidence.keys import PublicKey
from auditkit.evidence.trust_history import TrustHistory
from schemas import (
    ContainerRun,
    ContinuationRequest,
    SessionContinuation,
    SessionGrant,
    SessionRequest,
)


class ContinuationFormError(EvidenceError):
    """A continuation cannot be read at all."""


class ContinuationBindingError(EvidenceError):
    """A continuation is of another session, or does not answer its request."""


class ContinuationOrderError(EvidenceError):
    """Continuations are not numbered, sized and dated in the order in which they were granted."""


class ContinuationKeyError(EvidenceError):
    """A continuation's session key is not the requested one, was revoked, or served before."""


class ContainerReusedError(EvidenceError):
    """A continuation comes from a container that the session ran in before."""


@dataclass(frozen=True)
class OpenContinuation:
    """A continuation as it can be read, before any signature is believed."""

    request: ContinuationRequest
    request_digest: str
    answer: SessionContinuation
    envelope: dsse.Envelope

    @property
    def digest(self) -> str:
        """SHA-256 of the continuation's payload: what its record in the log names."""
        return sha256_hex(self.envelope.payload)


def open_continuation(found: bundle.Continuation) -> OpenContinuation:
    """Read a request and its answer.

    Raises:
        ContinuationFormError: one of them is not even well-formed, or not in RFC 8785 form.
    """
    try:
        request = ContinuationRequest.from_bytes(found.request)
        envelope = dsse.Envelope.from_bytes(found.envelope)
        answer = statements.parse(
            envelope.payload, statements.CONTINUATION_PREDICATE, SessionContinuation
        )
        canonical = to_bytes(request) == found.request and envelope.to_bytes() == found.envelope
    except (EvidenceError, ValidationError) as error:
        raise ContinuationFormError(f"a continuation cannot be read: {error}") from error
    if not canonical:
        raise ContinuationFormError(
            "a continuation is not in RFC 8785 form; keep the exact bytes of request and answer"
        )
    return OpenContinuation(request, sha256_hex(found.request), answer, envelope)


class KeyHandover(Protocol):
    """What of a continuation says from which size of the log on its key signs."""

    @property
    def log_size(self) -> int:
        """Size of the log when the continuation was granted."""

    @property
    def session_key(self) -> str:
        """The key, in lower-case hexadecimal, that signs what is larger."""


def key_for_size(grant: SessionGrant, answers: Sequence[KeyHandover], size: int) -> str:
    """Return the session key (hexadecimal) that signs the log's checkpoint of this size.

    The grant's key signs until the first continuation; the key of a continuation signs every
    checkpoint that is larger than the log was when it was granted. `answers` must be in their
    order, in which log sizes do not fall; `check_continuations` sees to that.
    """
    earlier = bisect_left(answers, size, key=lambda answer: answer.log_size)
    return answers[earlier - 1].session_key if earlier else grant.session_key


def is_superseded(continuations: Sequence[OpenContinuation], position: int) -> bool:
    """Tell whether a continuation was followed by another before its container had written."""
    following = continuations[position + 1 : position + 2]
    size = continuations[position].answer.log_size
    return any(later.answer.log_size == size for later in following)


def check_fresh_container(container: ContainerRun, earlier: Collection[str]) -> None:
    """Check that a container is none of those that the session ran in before.

    Args:
        container: of a continuation.
        earlier: `container_id` of the session's request and of every earlier continuation.

    Raises:
        ContainerReusedError: it is one of them.
    """
    found = container.description.container_id
    if found in earlier:
        raise ContainerReusedError(
            f"container {found} has served this session before, expected was a fresh one; "
            "start a new container to go on"
        )


def check_continuations(
    history: TrustHistory,
    session: SessionRequest,
    grant: SessionGrant,
    grant_digest: str,
    continuations: Sequence[OpenContinuation],
    *,
    logged_by: Callable[[int], datetime | None],
) -> None:
    """Check that the auditor certified each key, for this session, and in this order.

    Args:
        history: names the keys of the `session` role of each time and the revoked session keys.
        session: the request that the session began with.
        grant: the auditor's answer to it.
        grant_digest: SHA-256 of the grant's payload.
        continuations: all continuations of the session, in their order.
        logged_by: tells by when the log is known to have had more than a number of records.

    Raises:
        ThresholdError, RevokedKeyError: too few keys of the `session` role have signed that spoke
            for it at the time.
        TrustRootError, PayloadTypeError: no version of the trust root was in force at the time; not
            a statement.
        ContinuationBindingError, ContinuationOrderError, ContinuationKeyError,
            ContainerReusedError: see there.
        KeyFormatError, WeakKeyError: a key that must not be trusted.
    """
    used = {grant.session_key}
    containers = {session.container.description.container_id} if session.container else set()
    size, time = 0, grant.valid_from
    for number, found in enumerate(continuations, start=1):
        answer = found.answer
        history.verify_statement(
            "session",
            found.envelope,
            statements.CONTINUATION_PREDICATE,
            SessionContinuation,
            dated=lambda continuation: continuation.granted_at,
            known_by=logged_by(answer.log_size),
        )
        _check_binding(session, grant, grant_digest, found)
        if answer.number != number:
            raise ContinuationOrderError(
                f"continuation {answer.number} stands where number {number} is expected; show all "
                "continuations, in their order"
            )
        if answer.log_size < size:
            raise ContinuationOrderError(
                f"continuation {number} begins at size {answer.log_size} of the log, the one "
                f"before it at {size}; a log never shrinks"
            )
        if not time <= answer.granted_at <= grant.valid_until:
            raise ContinuationOrderError(
                f"continuation {number} was granted at {answer.granted_at.isoformat()}, expected "
                f"was a time from {time.isoformat()} to {grant.valid_until.isoformat()}"
            )
        _check_key(history, found, used)
        check_fresh_container(found.request.container, containers)
        used.add(answer.session_key)
        containers.add(found.request.container.description.container_id)
        size, time = answer.log_size, answer.granted_at


def _check_binding(
    session: SessionRequest, grant: SessionGrant, grant_digest: str, found: OpenContinuation
) -> None:
    request, answer = found.request, found.answer
    if session.container is None:
        raise ContinuationBindingError(
            "a session outside a container keeps its key, and this one was given another; no "
            "auditor's server does that"
        )
    for what, expected, named in (
        ("session that the request names", grant.session_id, request.session_id),
        ("session that the answer names", grant.session_id, answer.session_id),
        ("grant that the request names", grant_digest, request.grant_digest),
        ("grant that the answer names", grant_digest, answer.grant_digest),
        ("request that the answer names", found.request_digest, answer.request_digest),
        ("environment", session.environment, request.environment),
    ):
        if expected != named:
            raise ContinuationBindingError(
                f"continuation {answer.number}, {what}: named is {named}, expected was {expected}"
            )


def _check_key(history: TrustHistory, found: OpenContinuation, used: set[str]) -> None:
    number, key = found.answer.number, found.answer.session_key
    if key != found.request.session_key:
        raise ContinuationKeyError(
            f"continuation {number} certifies another session key than was requested"
        )
    if key in history.revoked_session_keys:
        raise ContinuationKeyError(
            f"the auditor has revoked session key {key} of continuation {number}; what it signed "
            "is void"
        )
    if key in used:
        raise ContinuationKeyError(
            f"continuation {number} certifies session key {key} again; every container makes its "
            "own"
        )
    PublicKey.from_hex(key)
