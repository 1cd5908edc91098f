"""Bundles that verify, and do not show everything that their session has in the registry.

No check of a bundle catches them: only a monitor does, who reads all of the registry.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import pytest
from forge import GRANTED_AT, SESSION, Evidence, Plot, stage
from registered import RegistryPlot, seal_of, stage_in_registry
from replayed import ReplayPlot, replayed
from test_registry_attacks import outcomes
from test_replay_attacks import DIFFERS, HONEST

from auditkit.evidence import canonical, monitoring
from auditkit.evidence.bundle_comparison import (
    BundleIncompleteError,
    Comparison,
    ShownSession,
    compare,
)
from auditkit.evidence.errors import EvidenceError
from auditkit.evidence.monitoring import (
    Mark,
    NewEntry,
    Reading,
    RegistryRollbackError,
    RegistryRootError,
    SurplusEntryError,
)
from auditkit.evidence.registry_checks import (
    NotRegisteredError,
    RegistryExcerptError,
    entry_identity,
    registered_documents,
)
from auditkit.evidence.trust_history import TrustHistory
from schemas import AssuranceLevel, Record, RegistryEntry, RegistryExcerpt, StepRecord
from tests.evidence.registries import Registry, digest_of

LATER = GRANTED_AT + timedelta(days=30)
Staged = tuple[Evidence, Registry]


def read(
    mark: Mark | None, registry: Registry, head: bytes, history: TrustHistory
) -> tuple[Mark, list[NewEntry]]:
    reading = Reading(mark, head, history, LATER)
    reading.prove(registry.consistency(reading.marked, reading.end))
    entries = [reading.read(leaf) for leaf in registry.leaves[reading.start : reading.end]]
    return reading.finish(history), entries


def watched(evidence: Evidence, registry: Registry) -> Mark:
    """What a monitor does that has no bundle."""
    return read(None, registry, registry.head(LATER), TrustHistory.of(evidence.trust_root))[0]


def compared(evidence: Evidence, registry: Registry) -> Comparison:
    """What a monitor does with a bundle."""
    history, shown = TrustHistory.of(evidence.trust_root), ShownSession.of(evidence.bundle)
    mark, before = read(None, registry, shown.checkpoint, history)
    _, since = read(mark, registry, registry.head(LATER), history)
    return compare(shown, mark.head.checkpoint.size, [*before, *since])


def registered_replays(*replays: ReplayPlot) -> Staged:
    return stage_in_registry(RegistryPlot(), stage(replayed(*replays)))


def taken_out(evidence: Evidence, **left: object) -> Evidence:
    """Leave only these documents, and only the entries of what is left: anybody can."""
    bundle = replace(evidence.bundle, **left)  # type: ignore[arg-type]
    kept = {found.identity for found in registered_documents(bundle, seal_of(evidence))}
    excerpt = RegistryExcerpt.from_bytes(bundle.registry or b"")
    entries = tuple(found for found in excerpt.entries if entry_identity(found.entry) in kept)
    edited = canonical.to_bytes(excerpt.model_copy(update={"entries": entries}))
    return replace(evidence, bundle=replace(bundle, registry=edited))


def last_replay_taken_out() -> Staged:
    evidence, registry = registered_replays(HONEST, DIFFERS)
    assert evidence.report().level == AssuranceLevel.L0
    shown = evidence.bundle.replays[:1]
    return taken_out(evidence, replays=shown, verifications=()), registry


def from_before_the_replay() -> Staged:
    evidence, registry = registered_replays(HONEST)
    registry.add(digest_of("another draw"), LATER - timedelta(hours=2), "draw", SESSION)
    registry.add(digest_of("it failed"), LATER - timedelta(hours=1), "replay", SESSION)
    return evidence, registry


def verdict_taken_out() -> Staged:
    evidence, registry = stage_in_registry(RegistryPlot())
    return taken_out(evidence, verdicts=evidence.bundle.verdicts[:1]), registry


def of_another_registry() -> Staged:
    """The auditor keeps two registries; the one for everybody has the failed replay."""
    evidence, _ = registered_replays(HONEST)
    return evidence, registered_replays(DIFFERS)[1]


@dataclass(frozen=True)
class LeftOutAttack:
    """A bundle that verifies, beside the registry that everybody follows.

    Attributes:
        name: what the attacker does.
        show: gives the two.
        error: that the monitor raises.
        level: that the bundle reaches.
    """

    name: str
    show: Callable[[], Staged]
    error: type[EvidenceError]
    level: AssuranceLevel = AssuranceLevel.L3


ATTACKS = (
    LeftOutAttack(
        "the last replay, which failed, is taken out of the bundle with its entries",
        last_replay_taken_out,
        BundleIncompleteError,
    ),
    LeftOutAttack(
        "a bundle from before the failed replay is shown",
        from_before_the_replay,
        BundleIncompleteError,
    ),
    LeftOutAttack(
        "a verdict is taken out of the bundle with its entry",
        verdict_taken_out,
        BundleIncompleteError,
        AssuranceLevel.L1,
    ),
    LeftOutAttack(
        "a bundle is of a registry that nobody else is shown",
        of_another_registry,
        RegistryRootError,
    ),
)
every_attack = pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)


@every_attack
def test_only_the_comparison_with_the_registry_catches(attack: LeftOutAttack) -> None:
    evidence, registry = attack.show()
    report = evidence.report()
    assert outcomes(report, "failed") == set()
    assert report.level == attack.level
    watched(evidence, registry)
    with pytest.raises(attack.error):
        compared(evidence, registry)


def test_the_error_names_what_is_missing() -> None:
    evidence, registry = last_replay_taken_out()
    kinds = {"draw", "replay", "verification"}
    entries = [RegistryEntry.from_bytes(leaf) for leaf in registry.leaves]
    last = {entry.kind: at for at, entry in enumerate(entries) if entry.session_id == SESSION}
    with pytest.raises(BundleIncompleteError) as raised:
        compared(evidence, registry)
    for kind in kinds:
        assert f"{last[kind]} ({kind})" in str(raised.value)
    assert str(raised.value).count(" (") == len(kinds)


def test_an_error_does_not_name_entries_without_end() -> None:
    evidence, registry = registered_replays(HONEST)
    for number in range(100):
        registry.add(digest_of(number), LATER - timedelta(hours=1), "draw", SESSION)
    with pytest.raises(BundleIncompleteError, match="and 80 more"):
        compared(evidence, registry)


# -- honest bundles ----------------------------------------------------------------------------


def own_entries(registry: Registry) -> int:
    entries = [RegistryEntry.from_bytes(leaf) for leaf in registry.leaves]
    return sum(entry.session_id == SESSION for entry in entries)


def test_a_whole_bundle_shows_everything() -> None:
    evidence, registry = registered_replays(HONEST, DIFFERS)
    assert compared(evidence, registry) == Comparison(SESSION, own_entries(registry), 0)


def test_entries_of_other_sessions_are_none_of_its_business() -> None:
    evidence, registry = stage_in_registry(RegistryPlot())
    before = compared(evidence, registry)
    registry.add(digest_of("other"), LATER - timedelta(hours=1), "draw", "another-session")
    registry.add(digest_of("order"), LATER - timedelta(hours=1), "order", None)
    assert compared(evidence, registry) == before


def test_a_bundle_without_any_verdict_may_be_without_them() -> None:
    evidence, registry = stage_in_registry(RegistryPlot())
    count = len(evidence.bundle.verdicts)
    assert count > 1
    found = compared(taken_out(evidence, verdicts=()), registry)
    assert found == Comparison(SESSION, own_entries(registry), count)


def test_verdicts_go_on_after_the_bundle_was_made() -> None:
    evidence, registry = stage_in_registry(RegistryPlot())
    registry.add(digest_of("one more"), LATER - timedelta(hours=1), "verdict", SESSION)
    assert compared(evidence, registry) == Comparison(SESSION, own_entries(registry), 1)


def test_a_log_that_goes_on_shows_what_there_is() -> None:
    """Without its seal a bundle has neither replays nor a submission to show."""
    evidence, registry = stage_in_registry(RegistryPlot())
    cut = replace(evidence.bundle, records=tuple(evidence.bundle.records)[:-1])
    with pytest.raises(BundleIncompleteError, match="seal"):
        compared(replace(evidence, bundle=cut), registry)


def test_documents_that_were_never_registered_are_noticed() -> None:
    evidence, registry = stage_in_registry(RegistryPlot())
    other = stage(Plot(grant={"session_id": "20260301-fedcba"})).bundle.grant
    forged = replace(evidence, bundle=replace(evidence.bundle, grant=other))
    with pytest.raises(NotRegisteredError):
        compared(forged, registry)


def test_a_registry_that_shrank_below_the_bundle_is_noticed() -> None:
    evidence, registry = stage_in_registry(RegistryPlot())
    history, shown = TrustHistory.of(evidence.trust_root), ShownSession.of(evidence.bundle)
    mark, _ = read(None, registry, shown.checkpoint, history)
    with pytest.raises(RegistryRollbackError):
        read(mark, registry, registry.head(LATER, size=3), history)


def test_a_bundle_without_its_registry_cannot_be_compared() -> None:
    with pytest.raises(RegistryExcerptError, match="export it again"):
        ShownSession.of(stage(Plot()).bundle)


# -- two bundles of one session ----------------------------------------------------------------


def other_losses(story: list[Record]) -> list[Record]:
    return [
        record.model_copy(update={"task_accuracy": 0.25})
        if isinstance(record, StepRecord)
        else record
        for record in story
    ]


def two_histories() -> tuple[Evidence, Evidence, Registry]:
    """Two logs of one session, both registered; each bundle shows entries of its own only."""
    pair = [stage(Plot(verdicts=())), stage(Plot(verdicts=(), story=(other_losses,)))]
    told = [registered_documents(one.bundle, seal_of(one)) for one in pair]
    registry, time = Registry(), GRANTED_AT
    # What is submitted is the same for both, and so are order and grant.
    for document in dict.fromkeys((*told[0][:-1], *told[1])):
        time = max(time, document.dated or time)
        log = {"log_size": document.log_size, "log_root": document.log_root}
        registry.add(document.digest, time, document.kind, document.session_id, **log)
    first, second = (with_excerpt(one, registry, time) for one in pair)
    return first, second, registry


def with_excerpt(evidence: Evidence, registry: Registry, time: datetime) -> Evidence:
    documents = registered_documents(evidence.bundle, seal_of(evidence))
    wanted = {(document.identity, document.log_root) for document in documents}
    entries = [RegistryEntry.from_bytes(leaf) for leaf in registry.leaves]
    indices = [
        index
        for index, entry in enumerate(entries)
        if (entry_identity(entry), entry.log_root) in wanted
    ]
    bundle = replace(
        evidence.bundle,
        registry=registry.excerpt(indices),
        registry_checkpoint=registry.head(time + timedelta(seconds=2)),
    )
    return replace(evidence, bundle=bundle)


def test_two_bundles_of_one_session_both_verify_and_the_monitor_is_not_taken_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second, registry = two_histories()
    assert first.bundle.records != second.bundle.records
    for evidence in (first, second):
        report = evidence.report()
        assert outcomes(report, "failed") == outcomes(report, "warning") == set()
        assert "registered" in outcomes(report, "passed")
    with pytest.raises(SurplusEntryError, match="seal number 2"):
        watched(first, registry)
    monkeypatch.setattr(monitoring, "check_count", lambda *_: None)
    watched(first, registry)
