"""Staged sessions whose documents are in a registry, as their honest auditor would have them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cache

from forge import GRANTED_AT, ROLE_KEYS, SESSION, Evidence, Plot, stage

from auditkit.evidence import dsse, statements
from auditkit.evidence.keys import SigningKey
from auditkit.evidence.registry_checks import (
    RegisteredDocument,
    registered_documents,
    sealed_checkpoint,
)
from schemas import CheckOutcome, SealRecord, VerificationReport, VerificationSummary, parse_record
from tests.evidence.registries import Registry, digest_of


def seal_of(evidence: Evidence) -> SealRecord:
    record = parse_record(tuple(evidence.bundle.records)[-1])
    assert isinstance(record, SealRecord)
    return record


@dataclass(frozen=True)
class SummaryPlot:
    """Where the auditor's verification summary departs from an honest one."""

    changes: dict[str, object] | None = None
    key: SigningKey = ROLE_KEYS["verdict"]


@dataclass(frozen=True)
class RegistryPlot:
    """Where the registry departs from an honest one.

    Attributes:
        documents: what is registered, in which order.
        dated: when, given the honest time.
        head: what is signed of the registry at a time.
        excerpt: edits the excerpt.
        evidence: edits the bundle when all is done.
        summary: what the auditor signed after its verification; None: nothing.
        others: entries of other sessions, before this one's.
    """

    documents: Callable[[list[RegisteredDocument]], list[RegisteredDocument]] = lambda found: found
    dated: Callable[[RegisteredDocument, datetime], datetime] = lambda _document, time: time
    head: Callable[[Registry, datetime], bytes] = lambda registry, time: registry.head(time)
    excerpt: Callable[[bytes], bytes] = lambda data: data
    evidence: Callable[[Evidence], Evidence] = lambda evidence: evidence
    summary: SummaryPlot | None = SummaryPlot()
    others: int = 5


def stage_registered(plot: RegistryPlot, session: Evidence | None = None) -> Evidence:
    """Have a session registered; None: an honest one."""
    return stage_in_registry(plot, session)[0]


def stage_in_registry(
    plot: RegistryPlot, session: Evidence | None = None
) -> tuple[Evidence, Registry]:
    """Have a session registered, and return the registry too."""
    staged, report = _honest() if session is None else (session, session.report())
    if plot.summary is not None:
        summary = _summary(staged, report, plot.summary)
        staged = replace(staged, bundle=replace(staged.bundle, verifications=(summary,)))
    registry = Registry()
    time = GRANTED_AT - timedelta(hours=1)
    registry.grow(plot.others, time - timedelta(minutes=1))
    indices = []
    documents = list(registered_documents(staged.bundle, seal_of(staged)))
    for document in plot.documents(documents):
        time = max(time, document.dated or time)
        log = {"log_size": document.log_size, "log_root": document.log_root}
        indices.append(
            registry.add(
                document.digest,
                plot.dated(document, time),
                document.kind,
                document.session_id,
                **log,
            )
        )
        registry.add(digest_of(("other", len(registry.leaves))), plot.dated(document, time))
    bundle = replace(
        staged.bundle,
        registry=plot.excerpt(registry.excerpt(indices)),
        registry_checkpoint=plot.head(registry, time + timedelta(seconds=2)),
    )
    return plot.evidence(replace(staged, bundle=bundle)), registry


@cache
def _honest() -> tuple[Evidence, VerificationReport]:
    staged = stage(Plot())
    return staged, staged.report()


def _summary(evidence: Evidence, report: VerificationReport, plot: SummaryPlot) -> bytes:
    seal, checkpoint = seal_of(evidence), sealed_checkpoint(evidence.bundle)
    summary = VerificationSummary(
        **{
            "session_id": SESSION,
            "verified_at": GRANTED_AT + timedelta(minutes=50),
            "level": report.level,
            "outcomes": tuple(
                CheckOutcome(check=found.check, outcome=found.outcome) for found in report.findings
            ),
            "log_size": checkpoint.size,
            "log_root": checkpoint.root.hex(),
            "weights_digest": seal.weights_digest,
            "description_digest": seal.description_digest,
            "scores_digest": seal.scores_digest,
            **(plot.changes or {}),
        }
    )
    subjects = statements.subject("verification", f"{SESSION}/1", summary)
    payload = statements.make(statements.VERIFICATION_PREDICATE, summary, subjects)
    return dsse.sign(payload, [plot.key]).to_bytes()
