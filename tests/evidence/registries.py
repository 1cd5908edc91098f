"""A registry in memory, whose keeper may lie."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from auditkit.evidence import canonical, merkle, notes
from auditkit.evidence.canonical import sha256_hex
from auditkit.evidence.keys import SigningKey
from auditkit.evidence.registry_head import REGISTRY_SUFFIX
from auditkit.evidence.trust_history import COSIGNER_SUFFIX
from schemas import RegisteredEntry, RegistryEntry, RegistryExcerpt, Role, TrustRoot
from schemas.registry import EntryKind
from schemas.trust import RoleName

ORIGIN = "audit.example.org"
ISSUED = datetime(2026, 3, 1, 12, tzinfo=UTC)


def fixed_key(name: str) -> SigningKey:
    """The same key in every run."""
    seed = bytes.fromhex(sha256_hex(name.encode()))
    return SigningKey(Ed25519PrivateKey.from_private_bytes(seed))


ROLES: tuple[RoleName, ...] = ("root", "order", "session", "cosigner", "verdict", "registry")
KEYS = {role: fixed_key(role) for role in ROLES}


def trust_root(**changes: object) -> TrustRoot:
    """An auditor's trust root with a key for its registry."""
    return TrustRoot(
        **{
            "auditor": "The Auditor",
            "origin": ORIGIN,
            "version": 1,
            "issued_at": ISSUED - timedelta(days=1),
            "expires_at": ISSUED + timedelta(days=1000),
            "keys": {key.public.keyid: key.public.hex for key in KEYS.values()},
            "roles": {role: Role(keyids=(key.public.keyid,)) for role, key in KEYS.items()},
            **changes,
        }
    )


def digest_of(text: object) -> str:
    return sha256_hex(str(text).encode())


def milliseconds(time: datetime) -> int:
    return int(time.timestamp() * 1000)


@dataclass
class Registry:
    """The leaves of a registry, and keys that sign whatever they are given."""

    signer: SigningKey = KEYS["registry"]
    cosigner: SigningKey = KEYS["cosigner"]
    leaves: list[bytes] = field(default_factory=list)

    def add(
        self,
        digest: str,
        at: datetime,
        kind: EntryKind = "verdict",
        session_id: str | None = "session-1",
        **log: object,
    ) -> int:
        entry = RegistryEntry(
            kind=kind, session_id=session_id, digest=digest, time_ms=milliseconds(at), **log
        )
        self.leaves.append(canonical.to_bytes(entry))
        return len(self.leaves) - 1

    def grow(self, count: int, at: datetime) -> None:
        """Add entries, one a second."""
        for number in range(count):
            self.add(digest_of(len(self.leaves)), at + timedelta(seconds=number))

    def head(self, at: datetime, size: int | None = None, root: bytes | None = None) -> bytes:
        """Sign and cosign a head: of the first `size` leaves, unless another root is given."""
        size = len(self.leaves) if size is None else size
        computed = merkle.root(self.leaves[:size])
        origin = ORIGIN + REGISTRY_SUFFIX
        text = notes.Checkpoint(origin, size, computed if root is None else root).to_text()
        signed = notes.sign(text, origin, self.signer)
        name = ORIGIN + COSIGNER_SUFFIX
        return notes.cosign(signed, name, self.cosigner, int(at.timestamp())).to_bytes()

    def consistency(self, old: int, new: int) -> list[bytes]:
        return merkle.consistency_proof(self.leaves, old, new)

    def excerpt(
        self,
        indices: Iterable[int],
        edit: Callable[[RegisteredEntry], RegisteredEntry] = lambda found: found,
    ) -> bytes:
        size = len(self.leaves)
        return canonical.to_bytes(
            RegistryExcerpt(
                entries=tuple(
                    edit(
                        RegisteredEntry(
                            index=index,
                            entry=RegistryEntry.from_bytes(self.leaves[index]),
                            proof=tuple(
                                node.hex()
                                for node in merkle.inclusion_proof(self.leaves, index, size)
                            ),
                        )
                    )
                    for index in indices
                )
            )
        )
