"""Which key signs a session's checkpoints, by the auditor's own statements in the run folder."""

from dataclasses import dataclass
from typing import Self

from auditkit.evidence import statements
from auditkit.evidence.canonical import sha256_hex
from auditkit.evidence.continuations import key_for_size
from auditkit.evidence.dsse import Envelope
from auditkit.evidence.keys import PublicKey
from auditkit.evidence.notes import VerifierKey
from auditkit.evidence.trust_history import TrustHistory
from developer_agent.errors import ContinuationRefusedError, LogDamagedError
from developer_agent.run_folder import RunFolder
from schemas import ContinuationRequest, SessionContinuation, SessionGrant, TrustRoot


@dataclass(frozen=True)
class GrantedContinuation:
    """A continuation whose signature was verified, and what the log calls it by."""

    statement: SessionContinuation
    digest: str
    """SHA-256 of the DSSE payload."""


@dataclass(frozen=True)
class SessionKeys:
    """The grant's key, and from the log size of each continuation on, that one's."""

    grant: SessionGrant
    grant_digest: str
    continuations: tuple[GrantedContinuation, ...] = ()

    @classmethod
    def read(cls, folder: RunFolder, trust_root: TrustRoot | TrustHistory) -> Self:
        """Read and verify grant and continuations of a run.

        Raises:
            RunFileMissingError: no session was opened there, or a request has vanished.
            EvidenceError: one of them is not signed by the trust root's session role.
            ContinuationRefusedError, LogDamagedError: a continuation is not of this run, or out of
                order.
        """
        envelope = Envelope.from_bytes(folder.grant.read())
        grant = TrustHistory.of(trust_root).verify_statement(
            "session",
            envelope,
            statements.GRANT_PREDICATE,
            SessionGrant,
            dated=lambda grant: grant.valid_from,
        )
        keys = cls(grant, sha256_hex(envelope.payload))
        while (answer := folder.continuation(keys.next_number)).exists():
            request = folder.continuation_request(keys.next_number).read()
            keys = keys.continued(answer.read(), request, trust_root)
        return keys

    @property
    def next_number(self) -> int:
        """Number of the continuation that comes next."""
        return len(self.continuations) + 1

    @property
    def current(self) -> PublicKey:
        """The key that signs from now on."""
        last = self.continuations[-1].statement if self.continuations else self.grant
        return PublicKey.from_hex(last.session_key)

    def verifier_key(self, size: int) -> VerifierKey:
        """Return the key that signs checkpoints of this many records."""
        key = key_for_size(self.grant, [item.statement for item in self.continuations], size)
        return VerifierKey.ed25519(self.grant.origin, PublicKey.from_hex(key))

    def named(self, size: int) -> list[str]:
        """Return the digests that a log of this many records must name, in order.

        Of several continuations at one size only the last has signed anything, and is named.
        """
        sizes = [item.statement.log_size for item in self.continuations]
        return [
            item.digest
            for item, following in zip(self.continuations, [*sizes, None][1:], strict=True)
            if item.statement.log_size < size and item.statement.log_size != following
        ]

    def continued(
        self, envelope_bytes: bytes, request_bytes: bytes, trust_root: TrustRoot | TrustHistory
    ) -> Self:
        """Return the keys with one more continuation, which answers this request.

        Raises:
            EvidenceError: it is not signed by the trust root's session role.
            ContinuationRefusedError: it answers something else.
            LogDamagedError: its number or log size does not follow the last one's.
        """
        envelope = Envelope.from_bytes(envelope_bytes)
        statement = TrustHistory.of(trust_root).verify_statement(
            "session",
            envelope,
            statements.CONTINUATION_PREDICATE,
            SessionContinuation,
            dated=lambda continuation: continuation.granted_at,
        )
        request = ContinuationRequest.from_bytes(request_bytes)
        for what, found, expected in (
            ("session", statement.session_id, self.grant.session_id),
            ("grant", statement.grant_digest, self.grant_digest),
            ("request", statement.request_digest, sha256_hex(request_bytes)),
            ("session key", statement.session_key, request.session_key),
        ):
            if found != expected:
                raise ContinuationRefusedError(
                    f"continuation {self.next_number} is for {what} {found}, expected {expected}; "
                    "do not train under it, and tell the auditor"
                )
        least = self.continuations[-1].statement.log_size if self.continuations else 0
        if statement.number != self.next_number or statement.log_size < least:
            raise LogDamagedError(
                f"expected continuation {self.next_number} at {least} records or more, found "
                f"number {statement.number} at {statement.log_size}: the run folder lacks one or "
                "has another's; restore it, or start a new session"
            )
        granted = GrantedContinuation(statement, sha256_hex(envelope.payload))
        return type(self)(self.grant, self.grant_digest, (*self.continuations, granted))
