"""Membership codes: to whom the server hands them, and how it computes them again for itself."""

from dataclasses import dataclass

import numpy as np

from auditkit.evidence import dsse
from auditkit.evidence.code_delivery import open_request, seal_codes
from auditkit.evidence.derivation import Indices, derive_split
from auditkit.evidence.membership_codes import (
    Codes,
    CodeSecretError,
    SessionCodes,
    check_secret,
    membership_codes,
)
from auditor_server.context import Auditor
from auditor_server.documents import parse, read_grant
from auditor_server.errors import (
    CodeSecretLostError,
    CodesHeldError,
    CodesNotUsedError,
    CodesRequestKeyError,
    CodesRequestMismatchError,
)
from auditor_server.records import check_open
from auditor_server.session_keys import SessionKeys
from auditor_server.store import SessionRow
from schemas import CodesRequest, SessionGrant, SessionRequest


def deliver(auditor: Auditor, session: SessionRow, data: bytes) -> bytes:
    """Return the session's codes, encrypted to the process that asks and to nobody else.

    The codes go to whoever holds the session key in force, which in a container is the agent
    alone: the relay, the host's files and an earlier container get ciphertext at most. Asking again
    is harmless, and gives the same codes under another encryption.

    Args:
        auditor: the server.
        session: one that the caller may see.
        data: a CodesRequest in a DSSE envelope, signed by the session key.

    Raises:
        CodesHeldError: T, and with it the codes, stay with the auditor.
        CodesNotUsedError: the session trains without codes.
        EnvelopeFormatError, PayloadTypeError, CodesRequestError: not such a request.
        CodesRequestKeyError: no key of this session has signed it.
        KeyNotInForceError: a key has signed it that was the session's in an earlier container.
        CodesRequestMismatchError: it is for another session.
        SessionSealedError, SessionExpiredError: nothing is left to train, or a key is revoked.
        EphemeralKeyError: nothing may be encrypted to its key.
        CodeSecretLostError: the store has another secret than the grant commits to.

    """
    grant, _ = read_grant(session.grant)
    if parse(SessionRequest, session.request).config.mint.custody == "auditor":
        raise CodesHeldError(
            f"the auditor holds the MINT Model of session {session.id}, and nobody else needs its "
            "codes; train with mint.custody = 'developer' to be handed them"
        )
    secret = committed_secret(auditor, session, grant)
    keys = SessionKeys.read(auditor.store, session, grant)
    request = _verified(dsse.Envelope.from_bytes(data), keys, session)
    if request.session_id != session.id:
        raise CodesRequestMismatchError(
            f"expected a request for the codes of session {session.id}, found one for "
            f"{request.session_id}; the request was sent to the wrong session"
        )
    keys.check_not_revoked(auditor.trust_root())
    check_open(session, grant, auditor.now())
    codes = session_codes(auditor, session, grant, secret)
    return seal_codes(
        codes.packed(), request.ephemeral_key, session.id, grant.code_commitment or ""
    )


def committed_secret(auditor: Auditor, session: SessionRow, grant: SessionGrant) -> bytes:
    """Return the secret that the session's grant commits to.

    Raises:
        CodesNotUsedError: the session trains without codes.
        CodeSecretLostError: the store has none, or another one.

    """
    if grant.code_commitment is None:
        raise CodesNotUsedError(
            f"session {session.id} was granted without membership codes; ask for a session whose "
            "configuration has mint.evidence = 'codes'"
        )
    secret = auditor.store.code_secret(session.id) or b""
    try:
        check_secret(secret, grant.code_commitment)
    except CodeSecretError as error:
        raise CodeSecretLostError(f"session {session.id}: {error}; restore the database") from error
    return secret


def session_codes(
    auditor: Auditor, session: SessionRow, grant: SessionGrant, secret: bytes
) -> SessionCodes:
    """Compute the codes of a session from its secret, its nonce and its pool's leaves."""
    return SessionCodes.derive(
        secret,
        auditor.store.pool_leaves(session.id),
        derive_split(bytes.fromhex(grant.nonce), grant.split),
        parse(SessionRequest, session.request).config.mint.code_length,
    )


@dataclass(frozen=True)
class CodeBook:
    """The codes of a session, to compare what T says with."""

    secret: bytes
    leaves: bytes
    indices: Indices
    """(K,) pool indices of all samples that T was told: told, then told only."""
    members: Codes
    """(K, length) their codes."""

    def own(self, index: int) -> Codes:
        """Return the code of one sample of the pool, told or not, (1, length)."""
        of_one = np.array([index], dtype=np.int64)
        return membership_codes(self.secret, self.leaves, of_one, self.members.shape[1])


def open_code_book(auditor: Auditor, session: SessionRow) -> CodeBook:
    """Compute the codes of a session again, to answer queries.

    Raises:
        CodesNotUsedError, CodeSecretLostError: see `committed_secret`.

    """
    grant, _ = read_grant(session.grant)
    secret = committed_secret(auditor, session, grant)
    split = derive_split(bytes.fromhex(grant.nonce), grant.split)
    return CodeBook(
        secret,
        auditor.store.pool_leaves(session.id),
        np.concatenate([split.told, split.told_only]),
        session_codes(auditor, session, grant, secret).members,
    )


def _verified(envelope: dsse.Envelope, keys: SessionKeys, session: SessionRow) -> CodesRequest:
    size = session.size + 1
    key = keys.signer(lambda public: open_request(envelope, public), size)
    if key is None:
        raise CodesRequestKeyError(
            f"expected a request for codes signed by session key {keys.in_force(size)}, found no "
            "signature by it; only the process that trains may have the codes"
        )
    return open_request(envelope, key)
