"""The head of an auditor's registry: a checkpoint that its registry role has signed."""

from dataclasses import dataclass
from datetime import UTC, datetime

from auditkit.evidence import notes
from auditkit.evidence.document_checks import LAST_SECOND, cosignature_time
from auditkit.evidence.errors import EvidenceError, UnsignedNoteError
from auditkit.evidence.trust import role_threshold
from auditkit.evidence.trust_history import TrustHistory
from schemas import TrustRoot

REGISTRY_SUFFIX = "/registry"  # origin of the registry, and name of its key: `<origin><suffix>`


class RegistryError(EvidenceError):
    """Base of what can be wrong with an auditor's registry, or with what is said of it."""


class RegistryKeyError(RegistryError):
    """Too few keys that spoke for the registry then have signed its head."""


class RegistryOriginError(RegistryError):
    """The checkpoint is not of this auditor's registry."""


@dataclass(frozen=True)
class RegistryHead:
    """A verified head.

    Attributes:
        checkpoint: origin, size and root.
        cosigned_at: Unix seconds; the cosigner knew of no larger tree then.
    """

    checkpoint: notes.Checkpoint
    cosigned_at: int


def registry_origin(trusted: TrustRoot | TrustHistory) -> str:
    """Return the origin of an auditor's registry."""
    return f"{trusted.origin}{REGISTRY_SUFFIX}"


def open_head(note: bytes, history: TrustHistory) -> RegistryHead:
    """Verify a head by the keys that spoke for the auditor when it was cosigned, and return it.

    Raises:
        NoteFormatError, CheckpointFormatError: not a checkpoint.
        RegistryOriginError: a checkpoint of another log.
        RegistryKeyError: fewer keys of the registry role have signed than the trust root demands,
            for example because their key is unknown or was revoked.
        UnsignedNoteError, CosignatureThresholdError: likewise of the cosigner role.
        SignatureError: a signature by a known key is bad.
        TrustRootNotInForceError, TrustRootExpiredError, TrustRoleMissingError: no version of the
            trust root gives keys for the time of the cosignature.
    """
    origin = registry_origin(history)
    checkpoint = notes.parse_checkpoint(notes.parse(note).text)
    if checkpoint.origin != origin:
        raise RegistryOriginError(
            f"expected a checkpoint of {origin}, found one of {checkpoint.origin[:200]!r}; ask the "
            "server that the trust root is of"
        )
    cosigned_at = cosignature_time(history, note)
    time = datetime.fromtimestamp(min(cosigned_at, LAST_SECOND), UTC)
    in_force = history.keys_at("registry", time, known_by=time)
    expected = role_threshold(history.at(time), "registry")
    found = _signers(note, [notes.VerifierKey.ed25519(origin, key) for key in in_force.values()])
    if found < expected:
        lines = notes.parse(note).signatures
        signed = ", ".join(f"{line.name[:100]}+{line.key_hash.hex()}" for line in lines)
        raise RegistryKeyError(
            f"expected {expected} signatures by keys of the registry role in version "
            f"{history.at(time).version} of the trust root, found {found} among those by {signed}. "
            "If the auditor has a new key, update the trust root; if not, somebody else speaks in "
            "its name"
        )
    return RegistryHead(checkpoint, cosigned_at)


def _signers(note: bytes, keys: list[notes.VerifierKey]) -> int:
    try:
        return len(notes.verify(note, keys).signatures)
    except UnsignedNoteError:
        return 0
