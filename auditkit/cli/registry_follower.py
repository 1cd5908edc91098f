"""What `monitor` fetches and keeps: heads and entries from a server, and a mark on disk."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from auditkit.client import AuditorClient
from auditkit.evidence.document_checks import CosignatureThresholdError
from auditkit.evidence.errors import TrustRootError, UnsignedNoteError
from auditkit.evidence.monitoring import EntriesWithheldError, Mark, Reading
from auditkit.evidence.registry_head import RegistryKeyError, registry_origin
from auditkit.evidence.trust import read_trust_root
from auditkit.evidence.trust_history import TrustHistory
from auditor_server.trust_files import TrustFile, write_durably
from schemas import RegistryEntry

ENTRIES_PER_REQUEST = 1_000
# A newer trust root is fetched version by version.
MOST_TRUST_ROOT_VERSIONS = 1_000
UNKNOWN_KEYS = (RegistryKeyError, UnsignedNoteError, CosignatureThresholdError, TrustRootError)
ALARMS_SUFFIX = ".alarms"


@dataclass(frozen=True)
class NewEntry:
    """An entry that was checked, and where it stands."""

    index: int
    entry: RegistryEntry


@dataclass
class Follower:
    """Follows one registry from a mark on disk.

    Attributes:
        client: of the server; needs no token.
        trust_file: the pinned trust root; newer versions that follow from it are added to it.
        state: where the mark is kept.
        most_age_seconds: how old a head may be; None: any age.
        found: the head that was fetched last, to be kept as evidence when it raises an alarm.
    """

    client: AuditorClient
    trust_file: TrustFile
    state: Path
    most_age_seconds: float | None = None
    found: bytes = b""

    def mark(self) -> Mark | None:
        """Return how far was checked; None: nothing yet.

        Raises:
            MarkError: what is kept is damaged, or of another registry.
            TrustRootError: the trust root cannot be used.
            OSError: a file cannot be read.
        """
        if not self.state.exists():
            return None
        return Mark.from_bytes(self.state.read_bytes(), registry_origin(self.trust_file.read()))

    def follow(self, now: datetime) -> tuple[Mark, list[NewEntry]]:
        """Check the newest head and all new entries; then, and only then, move the mark.

        Returns:
            The new mark, and the entries since the one before.

        Raises:
            EvidenceError: an alarm; the mark stays where it was.
            ClientError: the server cannot be reached, or answers something else.
            OSError: the mark or the trust root cannot be read or written.
        """
        self.found = b""
        mark = self.mark()
        self.found = self.client.registry_checkpoint()
        history, reading = self._open(mark, now)
        proof: Sequence[bytes] = ()
        if 0 < reading.start < reading.end:
            found = self.client.consistency_proof(reading.start, reading.end)
            proof = [bytes.fromhex(node) for node in found.proof]
        reading.prove(proof)
        entries = [
            NewEntry(index, reading.read(leaf))
            for index, leaf in enumerate(self._leaves(reading.start, reading.end), reading.start)
        ]
        if reading.unknown_trust_roots(history):
            history = self._updated(history, now)
        checked = reading.finish(history)
        if mark is None or checked.head.cosigned_at >= mark.head.cosigned_at:
            write_durably(self.state, checked.to_bytes())
        return checked, entries

    def keep_evidence(self, error: Exception, now: datetime) -> Path:
        """Keep what raised an alarm: the head that was checked before, and the one found now.

        Returns:
            The folder where both notes lie.

        Raises:
            OSError: it cannot be written.
        """
        name = f"{now:%Y%m%dT%H%M%S.%fZ}-{type(error).__name__}"
        folder = self.state.with_name(self.state.name + ALARMS_SUFFIX) / name
        folder.mkdir(parents=True)
        write_durably(folder / "alarm.txt", f"{type(error).__name__}: {error}\n".encode())
        if self.found:
            write_durably(folder / "found.note", self.found)
        if self.state.exists():
            write_durably(folder / "mark.json", self.state.read_bytes())
        return folder

    def _open(self, mark: Mark | None, now: datetime) -> tuple[TrustHistory, Reading]:
        history = self.trust_file.read()
        try:
            return history, Reading(mark, self.found, history, now, self.most_age_seconds)
        except UNKNOWN_KEYS:
            updated = self._updated(history, now)
            if updated == history:
                raise
            return updated, Reading(mark, self.found, updated, now, self.most_age_seconds)

    def _updated(self, history: TrustHistory, now: datetime) -> TrustHistory:
        """Return the history with every version that the server has; verified, and kept."""
        newest = self.client.trust_root().to_bytes()
        _, root = read_trust_root(newest)
        known = {version.root.version for version in history.versions}
        wanted = [number for number in range(1, root.version) if number not in known]
        others = [
            self.client.trust_root(number).to_bytes()
            for number in wanted[-MOST_TRUST_ROOT_VERSIONS:]
        ]
        return self.trust_file.update([*others, newest], now)

    def _leaves(self, start: int, end: int) -> Iterator[bytes]:
        while start < end:
            page = self.client.registry_entries(start, min(end, start + ENTRIES_PER_REQUEST))
            if not page.leaves:
                raise EntriesWithheldError(
                    f"expected entries {start} to {end - 1} of the registry, which its head has "
                    "signed for, found none; the server withholds them"
                )
            yield from (leaf.encode() for leaf in page.leaves)
            start += len(page.leaves)
