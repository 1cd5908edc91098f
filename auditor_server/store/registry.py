"""The registry in the database: append-only, in one order, whatever the database.

Whoever appends or signs first locks the one row of the sequencer: on SQLite every writer has locked
the whole database before, on PostgreSQL `SELECT … FOR UPDATE` lets the second wait for the first,
be they threads, worker processes or servers. It is the last lock that a transaction takes, so no
two can wait for each other. Should a database ignore it, the primary keys of entries and heads let
one of the two fail.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from typing import NamedTuple

from sqlalchemy import ColumnElement, Select, func, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, sessionmaker

from auditkit.evidence import canonical, merkle
from auditkit.evidence.subtrees import Span, Subtree, completed_by, covering, needed, node_root
from auditor_server.store.models import (
    RegistryEntryRow,
    RegistryHeadRow,
    RegistryNodeRow,
    RegistrySequencerRow,
)
from auditor_server.store.registrations import Registration
from schemas.registry import EntryKind

SEQUENCER_ID = 1
MILLISECONDS = 1000
# Values in one statement; every database takes as many.
MOST_VALUES = 400


class Tree(NamedTuple):
    """The registry as a transaction sees it while nobody else can change it."""

    size: int
    root: bytes
    time_ms: int
    """The latest time that was registered or signed."""


class RegistryStore:
    """The server's registry of documents."""

    def __init__(self, write: sessionmaker[Session], read: sessionmaker[Session]) -> None:
        self._write = write
        self._read = read

    def create(self) -> None:
        """Make the sequencer if there is none yet."""
        try:
            with self._write.begin() as transaction:
                if transaction.get(RegistrySequencerRow, SEQUENCER_ID) is None:
                    transaction.add(RegistrySequencerRow(id=SEQUENCER_ID, size=0, time_ms=0))
        except IntegrityError:
            return  # another server has just made it

    def append(self, registrations: Sequence[Registration], now: datetime) -> list[int]:
        """Register documents, all or none, and return their indices; see `append`."""
        with self._write.begin() as transaction:
            return append(transaction, registrations, now)

    def sign_head(
        self, make: Callable[[Tree, RegistryHeadRow | None], RegistryHeadRow]
    ) -> RegistryHeadRow:
        """Store and return the signed head that `make` gives for the tree as it stands.

        Args:
            make: given the tree and the newest signed head, if any; returns that very head to keep
                it. Nothing is appended or signed by others before this method ends.
        """
        with self._write.begin() as transaction:
            sequencer = _lock(transaction)
            tree = Tree(sequencer.size, _root(transaction, sequencer.size), sequencer.time_ms)
            stored = transaction.scalar(_newest_head())
            head = make(tree, stored)
            if head is not stored:
                transaction.merge(head)
                sequencer.time_ms = max(sequencer.time_ms, _milliseconds(head.cosigned_at))
            return head

    def newest_head(self) -> RegistryHeadRow | None:
        """Return the signed head of the largest size."""
        with self._read() as transaction:
            return transaction.scalar(_newest_head())

    def size(self) -> int:
        """Return the number of entries."""
        with self._read() as transaction:
            return transaction.get_one(RegistrySequencerRow, SEQUENCER_ID).size

    def entries(self, start: int, end: int) -> Sequence[RegistryEntryRow]:
        """Return the entries from `start` up to, not including, `end`."""
        return self._entries(RegistryEntryRow.position >= start, RegistryEntryRow.position < end)

    def entry_of(self, digest: str, size: int) -> RegistryEntryRow | None:
        """Return the first entry of a document with this digest among the first `size`."""
        found = self._entries(RegistryEntryRow.digest == digest, RegistryEntryRow.position < size)
        return found[0] if found else None

    def entries_of(self, documents: Collection[str], size: int) -> Sequence[RegistryEntryRow]:
        """Return the entries of documents, by what tells them apart, among the first `size`."""
        found: list[RegistryEntryRow] = []
        wanted = sorted(documents)
        for start in range(0, len(wanted), MOST_VALUES):
            found += self._entries(
                RegistryEntryRow.document.in_(wanted[start : start + MOST_VALUES]),
                RegistryEntryRow.position < size,
            )
        return sorted(found, key=lambda row: row.position)

    def roots_of_heads(self) -> dict[int, bytes]:
        """Return the root of every head that was ever signed, by its size."""
        with self._read() as transaction:
            heads = transaction.execute(select(RegistryHeadRow.size, RegistryHeadRow.root))
            return dict(heads.all())

    def heads(self) -> Sequence[RegistryHeadRow]:
        """Return every head that was ever signed, smallest first."""
        with self._read() as transaction:
            return transaction.scalars(select(RegistryHeadRow).order_by(RegistryHeadRow.size)).all()

    def documents(self) -> set[str]:
        """Return what tells each registered document from all others."""
        with self._read() as transaction:
            return set(transaction.scalars(select(RegistryEntryRow.document)))

    def counts(self) -> dict[EntryKind, int]:
        """Return how many entries there are of each kind."""
        statement = select(RegistryEntryRow.kind, func.count()).group_by(RegistryEntryRow.kind)
        with self._read() as transaction:
            return dict(transaction.execute(statement).all())

    def nodes(self, spans: Iterable[Span]) -> list[bytes]:
        """Return the roots of nodes of the registry's tree, which has all of their leaves."""
        wanted = list(spans)
        with self._read() as transaction:
            kept = _kept(transaction, needed(wanted))
        return [node_root(span, kept.__getitem__) for span in wanted]

    def _entries(self, *conditions: ColumnElement[bool]) -> Sequence[RegistryEntryRow]:
        statement = select(RegistryEntryRow).where(*conditions).order_by(RegistryEntryRow.position)
        with self._read() as transaction:
            return transaction.scalars(statement).all()


def append(transaction: Session, registrations: Sequence[Registration], now: datetime) -> list[int]:
    """Register documents within a transaction, after their own rows; return their indices.

    A document that is registered already keeps its entry. An entry's time is `now`, unless the
    clock was set back: then it is that of the entry or signed head before it.
    """
    transaction.flush()  # what locks other rows does so before the sequencer is locked
    sequencer = _lock(transaction)
    known = _known(transaction, [registration.document for registration in registrations])
    kept: dict[Subtree, bytes] = {}
    if len(known) < len({registration.document for registration in registrations}):
        kept.update(_kept(transaction, set(covering(Span(0, sequencer.size)))))
        sequencer.time_ms = max(sequencer.time_ms, _milliseconds(now))
    for registration in registrations:
        if registration.document in known:
            continue
        leaf = canonical.to_bytes(registration.at(sequencer.time_ms))
        completed = completed_by(sequencer.size, merkle.leaf_hash(leaf), kept)
        kept.update(completed)
        transaction.add_all(
            RegistryNodeRow(level=level, position=position, root=root)
            for (level, position), root in completed.items()
        )
        transaction.add(
            RegistryEntryRow(
                position=sequencer.size,
                document=registration.document,
                kind=registration.kind,
                digest=registration.digest,
                session_id=registration.session_id,
                leaf=leaf,
            )
        )
        known[registration.document] = sequencer.size
        sequencer.size += 1
    return [known[registration.document] for registration in registrations]


def _lock(transaction: Session) -> RegistrySequencerRow:
    return transaction.get_one(RegistrySequencerRow, SEQUENCER_ID, with_for_update=True)


def _known(transaction: Session, documents: Sequence[str]) -> dict[str, int]:
    known: dict[str, int] = {}
    for start in range(0, len(documents), MOST_VALUES):
        statement = select(RegistryEntryRow.document, RegistryEntryRow.position).where(
            RegistryEntryRow.document.in_(documents[start : start + MOST_VALUES])
        )
        known.update((document, position) for document, position in transaction.execute(statement))
    return known


def _kept(transaction: Session, subtrees: set[Subtree]) -> Mapping[Subtree, bytes]:
    kept: dict[Subtree, bytes] = {}
    wanted = sorted(subtrees)
    for start in range(0, len(wanted), MOST_VALUES):
        # Level by level, since databases do not look pairs up in an index.
        levels = groupby(wanted[start : start + MOST_VALUES], key=lambda subtree: subtree.level)
        statement = select(RegistryNodeRow).where(
            or_(
                *(
                    (RegistryNodeRow.level == level)
                    & RegistryNodeRow.position.in_([subtree.position for subtree in subtrees])
                    for level, subtrees in levels
                )
            )
        )
        kept.update(
            (Subtree(node.level, node.position), node.root)
            for node in transaction.scalars(statement)
        )
    return kept


def _root(transaction: Session, size: int) -> bytes:
    whole = Span(0, size)
    return node_root(whole, _kept(transaction, set(covering(whole))).__getitem__)


def _newest_head() -> Select[RegistryHeadRow]:
    return select(RegistryHeadRow).order_by(RegistryHeadRow.size.desc()).limit(1)


def _milliseconds(time: datetime) -> int:
    return int(time.timestamp() * MILLISECONDS)
