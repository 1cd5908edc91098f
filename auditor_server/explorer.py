"""Looking into the log of one session: its records, and the proof that each is in it.

A log is passed through segment by segment and never held as a whole.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from auditkit.evidence import merkle, notes
from auditkit.evidence.derivation import (
    LEAF_BYTES,
    Indices,
    Schedule,
    Split,
    StepPlan,
    derive_split,
)
from auditkit.evidence.proofs import LogProof
from auditkit.evidence.subtrees import Span, inclusion_path
from auditor_server.context import Auditor
from auditor_server.documents import parse, read_grant
from auditor_server.store import SegmentRow, SessionRow
from auditor_server.witnesses import with_lines
from schemas import AnyRecord, CohortName, SessionRequest, parse_record

MOST_FOUND = 100
"""Records that one search gives."""

MOST_SHOWN_STEPS = 20
"""Steps that are named for one sample; each costs at most one epoch's permutations."""

MOST_EPOCHS = 20
"""Epochs that are looked through for a sample."""


@dataclass(frozen=True)
class LoggedRecord:
    """One leaf of a session's log, and when it came."""

    index: int
    line: bytes
    received_at: datetime
    cosigned_at: datetime | None

    @property
    def record(self) -> AnyRecord:
        """What the line says; it was checked when it came."""
        return parse_record(self.line)

    @property
    def leaf_hash(self) -> str:
        """Its leaf hash (RFC 6962, section 2.1), in hex."""
        return merkle.leaf_hash(self.line).hex()


@dataclass(frozen=True)
class Sample:
    """One sample of a session's pool: where the nonce put it, and which steps showed it.

    `steps` are the first ones that the schedule prescribes; `complete` tells whether they are all.
    """

    index: int
    leaf: str
    cohort: CohortName
    steps: tuple[int, ...]
    complete: bool


def page(auditor: Auditor, session: SessionRow, first: int, count: int) -> list[LoggedRecord]:
    """Return the records from `first` on, at most `count`, as far as the log goes."""
    end = min(session.size, first + count)
    if not 0 <= first < end:
        return []
    segments = auditor.store.segments(session.id, first, end)
    return [found for found in _records(segments) if first <= found.index < end]


def find_record(auditor: Auditor, session: SessionRow, index: int) -> LoggedRecord | None:
    """Return one record; None: the log has no such index."""
    return next(iter(page(auditor, session, index, 1)), None)


def find_step(auditor: Auditor, session: SessionRow, step: int) -> list[LoggedRecord]:
    """Return the records that name a step as theirs: of the step itself, its state and more."""
    return _matching(auditor, session, rb'"step":%d[,}]' % step)


def find_digest(auditor: Auditor, session: SessionRow, digest: str) -> list[LoggedRecord]:
    """Return the records that name a digest, or whose own leaf hash it is."""
    wanted = bytes.fromhex(digest)
    own = (
        found
        for segment in auditor.store.stream_segments(session.id, session.size)
        for found in _records([segment])
        if merkle.leaf_hash(found.line) == wanted
    )
    return [*islice(own, 1), *_matching(auditor, session, digest.encode())][:MOST_FOUND]


def find_sample(auditor: Auditor, session: SessionRow, leaf: str) -> Sample | None:
    """Return the sample of the pool with this leaf (hex); None: the pool has none."""
    leaves, wanted = auditor.store.pool_leaves(session.id), bytes.fromhex(leaf)
    start = leaves.find(wanted)
    while start % LEAF_BYTES and start > 0:
        start = leaves.find(wanted, start + 1)
    if start < 0:
        return None
    index = start // LEAF_BYTES
    grant, _ = read_grant(session.grant)
    config = parse(SessionRequest, session.request).config
    nonce = bytes.fromhex(grant.nonce)
    split = derive_split(nonce, grant.split)
    schedule = Schedule(nonce, split, config.batch_size, config.external_batch_size, config.epochs)
    epochs = min(config.epochs, MOST_EPOCHS)
    shown = (
        plan.step
        for epoch in range(epochs)
        for plan in schedule.epoch(epoch)
        if _shows(plan, index)
    )
    cohort = cohort_of(split, index)
    steps = () if cohort == "calibration" else tuple(islice(shown, MOST_SHOWN_STEPS + 1))
    return Sample(
        index=index,
        leaf=leaf,
        cohort=cohort,
        steps=steps[:MOST_SHOWN_STEPS],
        complete=cohort == "calibration"
        or (len(steps) <= MOST_SHOWN_STEPS and epochs == config.epochs),
    )


def prove(auditor: Auditor, session: SessionRow, index: int) -> LogProof | None:
    """Return the proof that a record is in the log, under the newest cosigned checkpoint.

    Returns None while no checkpoint that covers it is cosigned, and when there is no such record.

    Raises:
        InclusionProofError: what is stored does not lead to what was signed.

    """
    note = auditor.store.witnessings.checkpoint(session.id, 1, session.size)
    if note is None:
        return None
    checkpoint = notes.parse_checkpoint(notes.parse(note.encode()).text)
    if not 0 <= index < checkpoint.size:
        return None
    path = inclusion_path(index, checkpoint.size)
    own = Span(index, index + 1)
    frontiers = {span: merkle.Frontier() for span in (*path, own)}
    spans = sorted(frontiers)
    place = position = 0
    for segment in auditor.store.stream_segments(session.id, checkpoint.size):
        hashes = [merkle.leaf_hash(line) for line in segment.records.splitlines()]
        taken = 0
        while taken < len(hashes) and place < len(spans):
            count = min(len(hashes) - taken, spans[place].end - position)
            frontiers[spans[place]].extend(hashes[taken : taken + count])
            taken, position = taken + count, position + count
            place += position == spans[place].end
    hashes_of_proof = tuple(frontiers[span].root() for span in path)
    merkle.verify_inclusion(
        index, checkpoint.size, frontiers[own].root(), hashes_of_proof, checkpoint.root
    )
    return LogProof(index, hashes_of_proof, with_lines(auditor, note.encode()))


def cohort_of(split: Split, index: int) -> CohortName:
    """Return the cohort that the nonce has put a sample of the pool into."""
    cohorts: dict[CohortName, Indices] = {
        "told": split.told,
        "silent": split.silent,
        "told_only": split.told_only,
        "external": split.external,
    }
    for cohort, members in cohorts.items():
        if (members == index).any():
            return cohort
    return "calibration"


def _records(segments: Iterable[SegmentRow]) -> Iterator[LoggedRecord]:
    for segment in segments:
        for index, line in enumerate(segment.records.splitlines(), segment.first):
            yield LoggedRecord(index, line, segment.received_at, segment.cosigned_at)


def _matching(auditor: Auditor, session: SessionRow, pattern: bytes) -> list[LoggedRecord]:
    wanted = re.compile(pattern)
    matching = (
        found
        for segment in auditor.store.stream_segments(session.id, session.size)
        if wanted.search(segment.records)
        for found in _records([segment])
        if wanted.search(found.line)
    )
    return list(islice(matching, MOST_FOUND))


def _shows(plan: StepPlan, index: int) -> bool:
    return bool((plan.rows == index).any())
