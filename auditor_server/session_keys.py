"""Which key signs a session's checkpoints: the granted one, until the session is continued."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from auditkit.evidence import notes
from auditkit.evidence.continuations import key_for_size
from auditkit.evidence.errors import ThresholdError, UnsignedNoteError
from auditkit.evidence.keys import PublicKey
from auditor_server.errors import KeyNotInForceError, SessionExpiredError
from auditor_server.store import ContinuationRow, SessionRow, Store
from schemas import SessionGrant, TrustRoot


@dataclass(frozen=True)
class SessionKeys:
    """The keys of one session: of its grant, and of each continuation in order."""

    grant: SessionGrant
    continuations: tuple[ContinuationRow, ...]

    @classmethod
    def read(cls, store: Store, session: SessionRow, grant: SessionGrant) -> "SessionKeys":
        """Return the keys that the session had when its row was read."""
        # One granted since then would not fit what the row says of the log.
        granted: Sequence[ContinuationRow] = store.continuations(session.id)
        return cls(grant, tuple(granted[: session.continuations]))

    @property
    def all(self) -> tuple[str, ...]:
        """Every key that has been certified for this session, in hex."""
        return (self.grant.session_key, *(row.session_key for row in self.continuations))

    def in_force(self, size: int) -> str:
        """Return the key that signs a checkpoint of `size`: of the last continuation before it."""
        return key_for_size(self.grant, self.continuations, size)

    def taking_over(self, size: int) -> ContinuationRow | None:
        """Return the continuation whose key takes over right after `size` records."""
        last = self.continuations[-1] if self.continuations else None
        return last if last is not None and last.log_size == size else None

    def is_revoked(self, root: TrustRoot) -> bool:
        """Say whether the auditor has revoked one of them, so that the session is void."""
        return not set(self.all).isdisjoint(root.revoked_session_keys)

    def check_not_revoked(self, root: TrustRoot) -> None:
        """Check that the auditor has revoked none of the keys; what such a key signed is void.

        Raises:
            SessionExpiredError: one is revoked.

        """
        if self.is_revoked(root):
            raise SessionExpiredError(
                "the auditor has revoked this session's key; open a new session"
            )

    def verify(self, note_bytes: bytes, size: int) -> notes.Note:
        """Verify the checkpoint of `size` and return it without the signatures of others.

        Raises:
            KeyNotInForceError: another key of the session has signed it.
            NoteFormatError, UnsignedNoteError, SignatureError: not a note that the key in force
                has signed.

        """
        key = self._verifier(self.in_force(size))
        signatures = notes.parse(note_bytes).signatures
        try:
            text = notes.verify(note_bytes, [key]).text
        except UnsignedNoteError:
            others = [self._verifier(other) for other in self.all]
            if any(_made_by(other, signature) for other in others for signature in signatures):
                raise KeyNotInForceError(
                    f"expected the checkpoint of size {size} to be signed by session key "
                    f"{self.in_force(size)}, found another one's signature; the session goes on "
                    "in a fresh container, stop this one"
                ) from None
            raise
        return notes.Note(text, tuple(s for s in signatures if _made_by(key, s)))

    def signer(self, verify: Callable[[PublicKey], object], size: int) -> PublicKey | None:
        """Return the key in force for `size` if a document is signed by it; None: by no key.

        Args:
            verify: raises ThresholdError if the key that it is given has not signed.
            size: that the log will have at least.

        Raises:
            KeyNotInForceError: another key of the session has signed it.

        """
        in_force = self.in_force(size)
        for key in (in_force, *(other for other in self.all if other != in_force)):
            public = PublicKey.from_hex(key)
            try:
                verify(public)
            except ThresholdError:
                continue
            if key == in_force:
                return public
            raise KeyNotInForceError(
                f"expected a request signed by session key {in_force}, found another container's "
                "signature; the session goes on in a fresh container, stop this one"
            )
        return None

    def _verifier(self, key: str) -> notes.VerifierKey:
        return notes.VerifierKey.ed25519(self.grant.origin, PublicKey.from_hex(key))


def _made_by(key: notes.VerifierKey, signature: notes.NoteSignature) -> bool:
    return (signature.name, signature.key_hash) == (key.name, key.key_hash)
