"""Following an auditor's registry from outside: what a monitor checks before it moves its mark.

A registry convinces only if somebody watches it. A monitor keeps a mark: the last head that it has
checked in full. For each newer head it demands that the tree is an extension of its own, reads
every new entry, computes the root itself, and only then moves its mark. Pure: what is fetched, and
what is stored, is the caller's.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from pydantic import ValidationError

from auditkit.evidence import canonical, merkle, notes
from auditkit.evidence.errors import CanonicalFormError, EvidenceError
from auditkit.evidence.registry_head import RegistryError, RegistryHead, open_head
from auditkit.evidence.trust_history import TrustHistory
from schemas import RegistryEntry
from schemas.registry import EntryKind, MonitorMark

MILLISECONDS = 1000
MOST_CLOCK_SKEW_SECONDS = 300
"""How far a head may be dated ahead of the monitor's own clock."""

ONCE: frozenset[EntryKind] = frozenset({"grant", "seal", "submission"})
"""Documents of which a session has one at most."""

COUNTED: frozenset[EntryKind] = ONCE | {"draw", "replay"}
"""Documents whose number a monitor keeps: a draw has one result at most."""


class MarkError(RegistryError):
    """What was kept of earlier checks is damaged, or of another registry."""


class RegistryRollbackError(RegistryError):
    """The registry is smaller than it was."""


class RegistryForkError(RegistryError):
    """The registry does not extend the one that was checked before: there are two histories."""


class RegistryRootError(RegistryError):
    """The entries that are handed out are not those whose root was signed."""


class RegistryEntryError(RegistryError):
    """An entry is not of the form that every entry has."""


class EntryTimeError(RegistryError):
    """An entry was dated back, or ahead of the head that it is under."""


class SurplusEntryError(RegistryError):
    """A session has more documents of a kind than it can have."""


class EntriesWithheldError(RegistryError):
    """The registry does not hand out entries that it has signed for."""


class TrustRootWithheldError(RegistryError):
    """The registry names a version of the trust root that nobody hands out."""


class StaleHeadError(RegistryError):
    """The newest head is too old, or dated in the future."""


@dataclass(frozen=True)
class NewEntry:
    """An entry that was checked, and where it stands."""

    index: int
    entry: RegistryEntry


@dataclass(frozen=True)
class Mark:
    """Everything up to here was checked.

    Attributes:
        note: the signed head.
        head: what it says.
        frontier: of the tree of all entries up to here, computed from the entries themselves.
        time_ms: of the last entry; 0: there is none.
        counts: how many entries of the `COUNTED` kinds each session has; None: the mark is of an
            older monitor, which did not count.
    """

    note: bytes
    head: RegistryHead
    frontier: merkle.Frontier
    time_ms: int
    counts: Mapping[str, int] | None

    def to_bytes(self) -> bytes:
        """Return the mark as it is kept (RFC 8785 JSON)."""
        return canonical.to_bytes(
            MonitorMark(
                checkpoint=self.note.decode(),
                cosigned_at=self.head.cosigned_at,
                frontier=self.frontier.to_bytes().hex(),
                time_ms=self.time_ms,
                counts=None if self.counts is None else dict(self.counts),
            )
        )

    @classmethod
    def from_bytes(cls, data: bytes, origin: str) -> "Mark":
        """Read what `to_bytes` wrote.

        Args:
            data: of the mark.
            origin: of the registry that it must be of.

        Raises:
            MarkError: it is damaged, or of another registry.
        """
        try:
            kept = MonitorMark.from_bytes(data)
            note = kept.checkpoint.encode()
            checkpoint = notes.parse_checkpoint(notes.parse(note).text)
            frontier = merkle.Frontier.from_bytes(bytes.fromhex(kept.frontier))
        except (EvidenceError, ValidationError) as error:
            raise MarkError(
                f"the mark cannot be read: {error}; restore it, or check the registry from its "
                "first entry on with a new one"
            ) from error
        if checkpoint.origin != origin:
            raise MarkError(
                f"expected a mark of {origin}, found one of {checkpoint.origin[:200]!r}; keep one "
                "for each registry"
            )
        if (frontier.size, frontier.root()) != (checkpoint.size, checkpoint.root):
            raise MarkError("the mark's tree is not the one of its own checkpoint; restore it")
        head = RegistryHead(checkpoint, kept.cosigned_at)
        return cls(note, head, frontier, kept.time_ms, kept.counts)


class Reading:
    """One head on its way from the registry to the mark.

    reading = Reading(mark, note, history, now)
    reading.prove(consistency proof from reading.marked to reading.end)
    for leaf in leaves(reading.start, reading.end): reading.read(leaf)
    mark = reading.finish(history)

    Reading starts where the mark is, or at entry 0 when the mark has no counts to go on from.
    """

    def __init__(
        self,
        mark: Mark | None,
        note: bytes,
        history: TrustHistory,
        now: datetime,
        most_age_seconds: float | None = None,
    ) -> None:
        """Verify a head's signatures, and compare it with the mark.

        Args:
            mark: how far was checked; None: nothing yet.
            note: the head as it was fetched.
            history: versions of the auditor's trust root.
            now: the monitor's own time.
            most_age_seconds: how old the head may be; None: any age.

        Raises:
            RegistryKeyError, UnsignedNoteError, CosignatureThresholdError, SignatureError,
            TrustRootError: keys that do not speak for the auditor, or no longer.
            RegistryRollbackError, RegistryForkError: a head that does not go on from the mark.
            StaleHeadError: an old head, or one from the future.
        """
        head = open_head(note, history)
        if mark is not None:
            check_not_smaller(mark, head)
            check_same_tree(mark, head)
        check_age(head, now, most_age_seconds)
        self.head = head
        self._mark = mark
        self._note = note
        self._checked = merkle.Frontier() if mark is None else mark.frontier
        self._trust_roots: set[str] = set()
        if mark is None or mark.counts is None:
            self._frontier, self._time_ms = merkle.Frontier(), 0
            self._counts = Counter[str]()
        else:
            self._frontier, self._time_ms = mark.frontier.copy(), mark.time_ms
            self._counts = Counter(mark.counts)
        self.start = self._frontier.size
        self.marked = self._checked.size
        self.end = head.checkpoint.size

    def prove(self, proof: Sequence[bytes]) -> None:
        """Check that the head's tree begins with the mark's.

        Raises:
            RegistryForkError: it does not, or the proof is none.
        """
        check_consistent(self._checked, self.head, proof)

    def read(self, leaf: bytes) -> NewEntry:
        """Check the next entry and return it.

        Raises:
            RegistryEntryError: not an entry.
            EntryTimeError: dated back, or ahead of the head.
            SurplusEntryError: its session cannot have another one of its kind.
        """
        index = self._frontier.size
        entry = check_form(index, leaf)
        check_time(index, entry, self._earliest_ms(index), self.head)
        check_count(index, entry, self._counts)
        self._time_ms = entry.time_ms
        if entry.kind in COUNTED:
            self._counts[_counted_as(entry.kind, entry)] += 1
        if entry.kind == "trust-root":
            self._trust_roots.add(entry.digest)
        self._frontier.append(merkle.leaf_hash(leaf))
        return NewEntry(index, entry)

    def unknown_trust_roots(self, history: TrustHistory) -> set[str]:
        """Return the digests of registered versions of the trust root that are not at hand."""
        return self._trust_roots - {version.digest for version in history.versions}

    def finish(self, history: TrustHistory) -> Mark:
        """Return the new mark.

        Args:
            history: versions of the trust root, with those that the new entries name.

        Raises:
            RegistryRootError: the entries do not have the root that was signed.
            TrustRootWithheldError: a version of the trust root is missing.
            EvidenceError: as on the way in, by the keys of the versions that have come meanwhile.
        """
        check_root(self._frontier, self.head)
        check_trust_roots(self.unknown_trust_roots(history))
        open_head(self._note, history)
        return Mark(self._note, self.head, self._frontier, self._time_ms, dict(self._counts))

    def _earliest_ms(self, index: int) -> int:
        if self._mark is None or index < self.marked:
            return self._time_ms
        # What comes after a head was registered after that head was cosigned.
        return max(self._time_ms, self._mark.head.cosigned_at * MILLISECONDS)


def check_not_smaller(mark: Mark, head: RegistryHead) -> None:
    """Check that the registry has not shrunk.

    Raises:
        RegistryRollbackError: it has.
    """
    before, after = mark.head.checkpoint.size, head.checkpoint.size
    if after < before:
        raise RegistryRollbackError(
            f"expected a registry of at least {before} entries, as was signed and checked, found a "
            f"head of {after} entries: entries were taken back. Keep both notes and confront the "
            "auditor with them"
        )


def check_same_tree(mark: Mark, head: RegistryHead) -> None:
    """Check that a head of the mark's size has the mark's root.

    Raises:
        RegistryForkError: it has another one.
    """
    before, after = mark.head.checkpoint, head.checkpoint
    if before.size == after.size and before.root != after.root:
        raise RegistryForkError(
            f"two different registries of {before.size} entries were signed: root "
            f"{before.root.hex()} was checked, found is {after.root.hex()}. Both notes together "
            "prove the fork; keep them and confront the auditor"
        )


def check_consistent(frontier: merkle.Frontier, head: RegistryHead, proof: Sequence[bytes]) -> None:
    """Check that a head's tree begins with the tree that was checked (RFC 9162, section 2.1.4.2).

    Raises:
        RegistryForkError: it does not, or the proof is none.
    """
    try:
        merkle.verify_consistency(
            frontier.size, head.checkpoint.size, proof, frontier.root(), head.checkpoint.root
        )
    except EvidenceError as error:
        raise RegistryForkError(
            f"the registry of {head.checkpoint.size} entries is not proven to begin with the "
            f"{frontier.size} entries that were checked: {error}. Keep both notes and confront the "
            "auditor with them"
        ) from error


def check_age(head: RegistryHead, now: datetime, most_age_seconds: float | None) -> None:
    """Check that a head is of now.

    Raises:
        StaleHeadError: it is older than is accepted, or dated in the future.
    """
    age = now.timestamp() - head.cosigned_at
    if age < -MOST_CLOCK_SKEW_SECONDS:
        raise StaleHeadError(
            f"the head was cosigned {-age:.0f} seconds in the future by this machine's clock; set "
            "the clock that is wrong"
        )
    if most_age_seconds is not None and age > most_age_seconds:
        raise StaleHeadError(
            f"expected a head of the last {most_age_seconds:g} seconds, found one cosigned "
            f"{age:.0f} seconds ago: the registry is no longer kept up, or newer heads are withheld"
        )


def check_form(index: int, leaf: bytes) -> RegistryEntry:
    """Check that a leaf is an entry in RFC 8785 form, and return it.

    Raises:
        RegistryEntryError: it is not.
    """
    try:
        entry = RegistryEntry.from_bytes(leaf)
        form = canonical.to_bytes(entry)
    except (ValidationError, CanonicalFormError) as error:
        raise RegistryEntryError(
            f"entry {index} of the registry is not valid: {leaf[:200]!r}; the auditor has signed "
            "for something that is no entry"
        ) from error
    if form != leaf:
        raise RegistryEntryError(
            f"entry {index} of the registry is not in RFC 8785 form, so two readers may read it "
            f"differently: {leaf[:200]!r}"
        )
    return entry


def check_time(index: int, entry: RegistryEntry, earliest_ms: int, head: RegistryHead) -> None:
    """Check that an entry's time lies between what came before it and the head.

    Raises:
        EntryTimeError: it does not.
    """
    latest_ms = (head.cosigned_at + 1) * MILLISECONDS  # cosignatures tell whole seconds
    if not earliest_ms <= entry.time_ms < latest_ms:
        raise EntryTimeError(
            f"entry {index} ({entry.kind}) is dated {entry.time_ms} ms; expected a time from "
            f"{earliest_ms}, when the entry or head before it was made, to {latest_ms}, when this "
            "head was cosigned: it was dated back or ahead"
        )


def check_count(index: int, entry: RegistryEntry, counts: Mapping[str, int]) -> None:
    """Check that a session can have another document of this kind.

    Otherwise two bundles could hold, each with a seal of its own, or with a result of its own of
    the same draw, and each with entries of this one registry.

    Args:
        index: of the entry.
        entry: that follows on those that were counted.
        counts: how many entries of the `COUNTED` kinds each session has.

    Raises:
        SurplusEntryError: it cannot.
    """
    if entry.kind not in ONCE | {"replay"}:
        return
    most = counts.get(_counted_as("draw", entry), 0) if entry.kind == "replay" else 1
    found = counts.get(_counted_as(entry.kind, entry), 0) + 1
    if found > most:
        raise SurplusEntryError(
            f"entry {index} is {entry.kind} number {found} of session {entry.session_id}, which "
            f"can have {most} only (a replay needs a draw of its own): different people may be "
            "shown different ones. Keep the head and the entries and confront the auditor with them"
        )


def check_trust_roots(unknown: Collection[str]) -> None:
    """Check that every registered version of the trust root is at hand.

    Otherwise a server whose key was revoked could go on, and keep that to itself.

    Raises:
        TrustRootWithheldError: one is not.
    """
    if unknown:
        raise TrustRootWithheldError(
            f"the registry names a version of the trust root with digest {min(unknown)}, which is "
            "not at hand and which the server does not give; ask the auditor for it"
        )


def check_root(frontier: merkle.Frontier, head: RegistryHead) -> None:
    """Check that the entries have the root that was signed.

    Raises:
        RegistryRootError: they have another one, or are not as many.
    """
    if (frontier.size, frontier.root()) != (head.checkpoint.size, head.checkpoint.root):
        raise RegistryRootError(
            f"the {frontier.size} entries that were handed out hash to {frontier.root().hex()}, "
            f"signed were {head.checkpoint.size} with root {head.checkpoint.root.hex()}: an entry "
            "was exchanged or left out. Keep the head and the entries"
        )


def _counted_as(kind: EntryKind, entry: RegistryEntry) -> str:
    return f"{kind}/{entry.session_id}"
