"""The logs that witnesses follow: every session's, and the registry."""

from dataclasses import dataclass
from typing import Protocol

from auditkit.evidence import merkle, notes
from auditkit.evidence.subtrees import consistency_path
from auditor_server import registry
from auditor_server.context import Auditor
from auditor_server.records import split_lines
from auditor_server.store.witnessings import SESSION_PREFIX

REGISTRY_LOG = "registry"
# A witness that is far behind is brought up in steps, so that no step needs much memory.
RECORDS_PER_STEP = 2**15


class WitnessedLog(Protocol):
    """A log as a witness must be shown it."""

    def size(self) -> int:
        """Return the size of the log."""

    def checkpoint(self, least: int) -> notes.Note | None:
        """Return a signed checkpoint of at least this size; None: there is none yet."""

    def extend(self, old_size: int, frontier: bytes | None, size: int) -> "Extension":
        """Prove that the tree of `size` extends that of `old_size`.

        Args:
            old_size: of the tree that the witness has cosigned last.
            frontier: of that tree, if it is at hand.
            size: of the newer tree, at least `old_size`.
        """


@dataclass(frozen=True)
class Extension:
    """A consistency proof, and the frontier of the newer tree to go on from."""

    proof: list[bytes]
    frontier: bytes


@dataclass(frozen=True)
class SessionLog:
    """The log of one session."""

    auditor: Auditor
    session_id: str

    def size(self) -> int:
        """Return the number of records."""
        session = self.auditor.store.session(self.session_id)
        return session.size if session is not None else 0

    def checkpoint(self, least: int) -> notes.Note | None:
        """Return a cosigned checkpoint, about one step above the least size at most."""
        most = least + RECORDS_PER_STEP
        text = self.auditor.store.witnessings.checkpoint(self.session_id, max(least, 1), most)
        return None if text is None else notes.parse(text.encode())

    def extend(self, old_size: int, frontier: bytes | None, size: int) -> Extension:
        """Prove it from the new records; the older ones are read where no frontier is at hand."""
        if frontier is None:
            tree = merkle.Frontier()
            while tree.size < old_size:
                end = min(old_size, tree.size + RECORDS_PER_STEP)
                tree.extend(self._leaf_hashes(tree.size, end))
        else:
            tree = merkle.Frontier.from_bytes(frontier)
        added = self._leaf_hashes(old_size, size)
        proof = tree.consistency_proof(added)
        tree.extend(added)
        return Extension(proof, tree.to_bytes())

    def _leaf_hashes(self, first: int, end: int) -> list[merkle.LeafHash]:
        segments = self.auditor.store.segments(self.session_id, first, end)
        if not segments or first == end:
            return []
        start = first - segments[0].first
        lines = split_lines(segments)[start : start + end - first]
        return [merkle.leaf_hash(line) for line in lines]


@dataclass(frozen=True)
class RegistryLog:
    """The registry. It keeps its nodes, so it proves anything without reading its entries."""

    auditor: Auditor

    def size(self) -> int:
        """Return the number of entries."""
        return self.auditor.store.registry.size()

    def checkpoint(self, least: int) -> notes.Note | None:
        """Return the newest head, signed now if need be."""
        size = self.size()
        if not size or size < least or self.auditor.registry_key is None:
            return None
        return notes.parse(registry.head(self.auditor))

    def extend(self, old_size: int, frontier: bytes | None, size: int) -> Extension:
        """Prove it from the kept nodes."""
        del frontier
        return Extension(self.auditor.store.registry.nodes(consistency_path(old_size, size)), b"")


def find_log(auditor: Auditor, name: str) -> WitnessedLog:
    """Return the log of this name, which is its origin without the server's own name."""
    if name == REGISTRY_LOG:
        return RegistryLog(auditor)
    return SessionLog(auditor, name.removeprefix(SESSION_PREFIX))


def name_of(checkpoint: notes.Checkpoint, origin: str) -> str:
    """Return the name of the log that a checkpoint of this server is of."""
    return checkpoint.origin.removeprefix(f"{origin}/")
