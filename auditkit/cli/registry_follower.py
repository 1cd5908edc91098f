"""What `monitor` fetches and keeps: heads and entries from a server, and a mark on disk."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from auditkit.client import AuditorClient
from auditkit.evidence.bundle_comparison import Comparison, ShownSession, compare
from auditkit.evidence.document_checks import CosignatureThresholdError
from auditkit.evidence.errors import TrustRootError, UnsignedNoteError
from auditkit.evidence.monitoring import EntriesWithheldError, Mark, NewEntry, Reading
from auditkit.evidence.registry_head import RegistryKeyError, registry_origin
from auditkit.evidence.trust import read_trust_root
from auditkit.evidence.trust_history import TrustHistory
from auditor_server.trust_files import TrustFile, write_durably

ENTRIES_PER_REQUEST = 1_000
# A newer trust root is fetched version by version.
MOST_TRUST_ROOT_VERSIONS = 1_000
UNKNOWN_KEYS = (RegistryKeyError, UnsignedNoteError, CosignatureThresholdError, TrustRootError)
ALARMS_SUFFIX = ".alarms"


@dataclass
class Follower:
    """Follows one registry from a mark on disk.

    Attributes:
        client: of the server; needs no token.
        trust_file: the pinned trust root; newer versions that follow from it are added to it.
        state: where the mark is kept.
        most_age_seconds: how old a head may be; None: any age.
        found: the head that was looked at last, to be kept as evidence when it raises an alarm.
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
        checked, entries = self._read(mark, self.found, now, self.most_age_seconds)
        if mark is None or checked.head.cosigned_at >= mark.head.cosigned_at:
            write_durably(self.state, checked.to_bytes())
        return checked, entries

    def compare(self, shown: ShownSession, mark: Mark, now: datetime) -> Comparison:
        """Compare a bundle with the registry, which is read once more from its first entry on.

        Args:
            shown: what the bundle shows.
            mark: that `follow` has returned.
            now: the monitor's own time.

        Raises:
            BundleIncompleteError, NotRegisteredError: the two differ.
            EvidenceError: the bundle is not of this registry, or the registry does not hold.
            ClientError: the server cannot be reached, or answers something else.
            OSError: the trust root cannot be read or written.
        """
        self.found = shown.checkpoint
        at_bundle, before = self._read(None, shown.checkpoint, now)
        _, since = self._read(at_bundle, mark.note, now)
        return compare(shown, at_bundle.head.checkpoint.size, [*before, *since])

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

    def _read(
        self, mark: Mark | None, note: bytes, now: datetime, most_age: float | None = None
    ) -> tuple[Mark, list[NewEntry]]:
        """Check a head in full; return it as a mark, and the entries that come after `mark`."""
        history, reading = self._open(mark, note, now, most_age)
        proof: Sequence[bytes] = ()
        if 0 < reading.marked < reading.end:
            found = self.client.consistency_proof(reading.marked, reading.end)
            proof = [bytes.fromhex(node) for node in found.proof]
        reading.prove(proof)
        read = [reading.read(leaf) for leaf in self._leaves(reading.start, reading.end)]
        if reading.unknown_trust_roots(history):
            history = self._updated(history, now)
        return reading.finish(history), [new for new in read if new.index >= reading.marked]

    def _open(
        self, mark: Mark | None, note: bytes, now: datetime, most_age: float | None
    ) -> tuple[TrustHistory, Reading]:
        history = self.trust_file.read()
        try:
            return history, Reading(mark, note, history, now, most_age)
        except UNKNOWN_KEYS:
            updated = self._updated(history, now)
            if updated == history:
                raise
            return updated, Reading(mark, note, updated, now, most_age)

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
