"""What may be deleted, and when, so that no proof that was ever given breaks.

Only the weights of submitted models: they are by far the largest part, and all that was proven
about them is proven by digest. What stays, and why:

* logs, checkpoints, the registry, orders, grants, verdicts and verification summaries: proofs of
  inclusion and of consistency need every leaf, and others hold receipts of them;
* descriptions and scores: a verdict's p-value is checked against the scores of C;
* leaves of the pools: the schedule of a log is checked against them;
* secrets of codes and of the auditor's T, and what is kept of T: a verification needs them;
* tokens and organisations: sessions refer to them.

Pictures are never stored. The audit trail and sign-ins end by themselves while the server runs.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from auditor_server.context import Auditor
from auditor_server.home import BLOBS_FOLDER
from auditor_server.process_locks import RETENTION, alone
from auditor_server.store import SubmissionRow
from auditor_server.store.blobs import INCOMING_PREFIX

# An upload takes minutes; what is older belongs to a server that was killed.
STRAY_SECONDS = 86_400.0


@dataclass(frozen=True)
class Kept:
    """A model whose weights are old enough to go, and stay."""

    session_id: str
    why: str


@dataclass(frozen=True)
class Plan:
    """What is to be deleted.

    Attributes:
        due: submissions whose weights go.
        kept: those whose weights would be old enough.
        digests: of the blobs that go; weights that another submission needs are not among them.
        strays: files of uploads that were cut off.
    """

    due: Sequence[SubmissionRow]
    kept: Sequence[Kept]
    digests: Sequence[str]
    strays: Sequence[Path]


def plan(auditor: Auditor, weights_days: float) -> Plan:
    """Return what is to be deleted if weights are kept for so many days after their submission."""
    before = auditor.now() - timedelta(days=weights_days)
    submissions = auditor.store.submissions()
    due, kept = [], []
    for row in submissions:
        if row.weights_dropped_at is not None or row.received_at >= before:
            continue
        why = _why_kept(auditor, row)
        if why is None:
            due.append(row)
        else:
            kept.append(Kept(row.session_id, why))
    going = {row.session_id for row in due}
    going |= {row.session_id for row in submissions if row.weights_dropped_at is not None}
    needed = {
        digest
        for row in submissions
        for digest in (*row.kept_digests, row.description_digest, row.scores_digest)
        if row.session_id not in going or digest != row.weights_digest
    }
    digests = {row.weights_digest for row in submissions if row.session_id in going} - needed
    return Plan(due, kept, sorted(digests), _strays(auditor.home.path / BLOBS_FOLDER))


def apply(auditor: Auditor, weights_days: float) -> Plan:
    """Delete what `plan` names, and return it.

    First the database says so, then the files go: whatever happens in between, nothing is looked
    for that is not there, and the next run deletes what is left.

    Raises:
        BlobStoreUnavailableError: the place of submitted files can't be used.

    """
    with alone(auditor.home.path, RETENTION):
        found = plan(auditor, weights_days)
        auditor.store.drop_weights([row.session_id for row in found.due], auditor.now())
        for digest in found.digests:
            auditor.blobs.delete(digest)
        for path in found.strays:
            path.unlink(missing_ok=True)
    return found


def _why_kept(auditor: Auditor, row: SubmissionRow) -> str | None:
    if row.level is None:
        return "it was not verified yet"
    if any(draw.result is None for draw in auditor.store.replays(row.session_id)):
        return "a replay was drawn and has no result yet"
    return None


def _strays(folder: Path) -> list[Path]:
    oldest = time.time() - STRAY_SECONDS
    found = folder.glob(f"{INCOMING_PREFIX}*")
    return sorted(path for path in found if path.stat().st_mtime < oldest)
