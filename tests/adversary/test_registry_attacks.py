"""An auditor that says different things to different people, or says them later than it claims.

Each attack is caught by one check: `registered` and `verification-summaries` in a bundle, and in
what a monitor sees from outside one function each of `auditkit.evidence.monitoring`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import pytest
from forge import GRANTED_AT, STRANGER_KEY, Evidence
from registered import RegistryPlot, SummaryPlot, stage_registered

from auditkit.evidence import canonical, monitoring, notes, verify
from auditkit.evidence.errors import EvidenceError
from auditkit.evidence.findings import run_check
from auditkit.evidence.monitoring import Mark, Reading
from auditkit.evidence.registry_checks import RegisteredDocument
from auditkit.evidence.trust_history import TrustHistory
from schemas import AssuranceLevel, Finding, RegistryExcerpt, VerificationReport
from schemas.registry import EntryKind
from tests.evidence.registries import ISSUED, KEYS, Registry, digest_of, trust_root

Documents = list[RegisteredDocument]
ORIGIN = "audit.example.org/registry"


def outcomes(report: VerificationReport, outcome: str) -> set[str]:
    return {finding.check for finding in report.findings if finding.outcome == outcome}


# In a bundle


@dataclass(frozen=True)
class BundleAttack:
    name: str
    plot: RegistryPlot
    error: str
    check: str = "registered"


def without(kind: str) -> Callable[[Documents], Documents]:
    return lambda documents: [found for found in documents if found.kind != kind]


def changed(kind: str, **fields: object) -> Callable[[Documents], Documents]:
    return lambda documents: [
        replace(found, **fields) if found.kind == kind else found for found in documents
    ]


def first(kind: str) -> Callable[[Documents], Documents]:
    return lambda documents: sorted(documents, key=lambda found: found.kind != kind)


def moved(kind: str, **by: float) -> Callable[[RegisteredDocument, datetime], datetime]:
    return lambda document, time: time + timedelta(**by) if document.kind == kind else time


def bundle(**changes: Callable[[Evidence], object]) -> Callable[[Evidence], Evidence]:
    def edit(evidence: Evidence) -> Evidence:
        edits = {name: change(evidence) for name, change in changes.items()}
        return replace(evidence, bundle=replace(evidence.bundle, **edits))

    return edit


def excerpt(edit: Callable[[RegistryExcerpt], RegistryExcerpt]) -> Callable[[bytes], bytes]:
    return lambda data: canonical.to_bytes(edit(RegistryExcerpt.from_bytes(data)))


def other_proof(found: RegistryExcerpt) -> RegistryExcerpt:
    entries = list(found.entries)
    entries[0] = entries[0].model_copy(update={"proof": entries[1].proof})
    return found.model_copy(update={"entries": tuple(entries)})


def twice(found: RegistryExcerpt) -> RegistryExcerpt:
    return found.model_copy(update={"entries": (found.entries[0], *found.entries)})


def foreign_head(registry: Registry, time: datetime) -> bytes:
    found = notes.parse_checkpoint(notes.parse(registry.head(time)).text)
    text = replace(found, origin="audit.example.com/registry").to_text()
    return notes.sign(text, "audit.example.com/registry", KEYS["registry"]).to_bytes()


BUNDLE_ATTACKS = (
    BundleAttack(
        "a verdict was given on the quiet",
        RegistryPlot(documents=without("verdict")),
        "NotRegisteredError",
    ),
    BundleAttack(
        "a grant was never registered",
        RegistryPlot(documents=without("grant")),
        "NotRegisteredError",
    ),
    BundleAttack(
        "another order than this one was registered",
        RegistryPlot(documents=changed("order", digest=digest_of("another order"))),
        "NotRegisteredError",
    ),
    BundleAttack(
        "a verdict is kept from the reader",
        RegistryPlot(evidence=bundle(verdicts=lambda found: found.bundle.verdicts[:1])),
        "DocumentLeftOutError",
    ),
    BundleAttack(
        "a second log ends with the same seal",
        RegistryPlot(documents=changed("seal", log_root=digest_of("another log"))),
        "RegisteredLogError",
    ),
    BundleAttack(
        "the submission was registered before the log was sealed",
        RegistryPlot(documents=first("submission")),
        "RegistryOrderError",
    ),
    BundleAttack(
        "the grant was registered before its order",
        RegistryPlot(documents=first("grant")),
        "RegistryOrderError",
    ),
    BundleAttack(
        "an entry was dated back before its document",
        RegistryPlot(dated=moved("verdict", minutes=-5)),
        "RegistryTimeError",
    ),
    BundleAttack(
        "an entry was dated back before its neighbours",
        RegistryPlot(dated=moved("submission", minutes=-5)),
        "RegistryTimeError",
    ),
    BundleAttack(
        "an entry was dated ahead of its head",
        RegistryPlot(dated=moved("verdict", minutes=5)),
        "RegistryTimeError",
    ),
    BundleAttack(
        "an entry is proven with another entry's proof",
        RegistryPlot(excerpt=excerpt(other_proof)),
        "InclusionProofError",
    ),
    BundleAttack(
        "an entry is told twice",
        RegistryPlot(excerpt=excerpt(twice)),
        "RegistryOrderError",
    ),
    BundleAttack(
        "the excerpt is no excerpt",
        RegistryPlot(excerpt=lambda _data: b'{"entries":[],"schema_version":2}'),
        "RegistryExcerptError",
    ),
    BundleAttack(
        "the excerpt may be read in two ways",
        RegistryPlot(excerpt=lambda data: data.replace(b":", b": ", 1)),
        "RegistryExcerptError",
    ),
    BundleAttack(
        "the head was taken away",
        RegistryPlot(evidence=bundle(registry_checkpoint=lambda _found: None)),
        "RegistryExcerptError",
    ),
    BundleAttack(
        "a stranger has signed the head",
        RegistryPlot(head=lambda registry, time: replace(registry, signer=STRANGER_KEY).head(time)),
        "RegistryKeyError",
    ),
    BundleAttack(
        "a stranger has cosigned the head",
        RegistryPlot(
            head=lambda registry, time: replace(registry, cosigner=STRANGER_KEY).head(time)
        ),
        "UnsignedNoteError",
    ),
    BundleAttack(
        "the head is another registry's",
        RegistryPlot(head=foreign_head),
        "RegistryOriginError",
    ),
    BundleAttack(
        "the head is of a registry without these entries",
        RegistryPlot(head=lambda registry, time: registry.head(time, size=3)),
        "TreeIndexError",
    ),
    BundleAttack(
        "a stranger has signed the verification",
        RegistryPlot(summary=SummaryPlot(key=STRANGER_KEY)),
        "ThresholdError",
        check="verification-summaries",
    ),
    BundleAttack(
        "the verification claims what is not here",
        RegistryPlot(summary=SummaryPlot({"level": AssuranceLevel.L3})),
        "SummaryError",
        check="verification-summaries",
    ),
    *(
        BundleAttack(
            f"the verification is of another {what}",
            RegistryPlot(summary=SummaryPlot({what: value})),
            "SummaryError",
            check="verification-summaries",
        )
        for what, value in (
            ("session_id", "20260301-fedcba"),
            ("log_size", 7),
            ("log_root", digest_of("another log")),
            ("weights_digest", digest_of("another model")),
            ("description_digest", digest_of("another description")),
            ("scores_digest", digest_of("other scores")),
        )
    ),
)
every_bundle_attack = pytest.mark.parametrize("attack", BUNDLE_ATTACKS, ids=lambda a: a.name)


def test_an_honest_registered_session_holds() -> None:
    report = stage_registered(RegistryPlot()).report()
    assert outcomes(report, "failed") == outcomes(report, "warning") == set()
    assert {"registered", "verification-summaries"} <= outcomes(report, "passed")
    assert report.level == AssuranceLevel.L1


def test_documents_from_before_there_was_a_registry_are_registered_late() -> None:
    late = RegistryPlot(dated=lambda _document, time: time + timedelta(days=300))
    report = stage_registered(
        replace(late, head=lambda registry, time: registry.head(time + timedelta(days=301)))
    ).report()
    assert outcomes(report, "failed") == set()
    assert outcomes(report, "warning") == {"registered"}


@every_bundle_attack
def test_exactly_the_named_check_catches(attack: BundleAttack) -> None:
    report = stage_registered(attack.plot).report()
    assert outcomes(report, "failed") == {attack.check}
    assert {found.check: found.error for found in report.findings}[attack.check] == attack.error
    assert report.level == AssuranceLevel.L0


@every_bundle_attack
def test_without_its_check_the_attack_would_pass(
    attack: BundleAttack, monkeypatch: pytest.MonkeyPatch
) -> None:
    staged = stage_registered(attack.plot)

    def lenient(name: str, claim: str, check: object) -> Finding:
        finding = run_check(name, claim, check)  # type: ignore[arg-type]
        if name == attack.check:
            return finding.model_copy(update={"outcome": "passed", "error": None})
        return finding

    monkeypatch.setattr(verify, "run_check", lenient)
    report = staged.report()
    assert report.passed
    assert report.level == AssuranceLevel.L1


# Seen from outside

SIZE = 20
FIRST_HEAD = ISSUED + timedelta(minutes=1)
LATER = ISSUED + timedelta(minutes=10)
HISTORY = TrustHistory.of(trust_root())


def honest_registry(size: int = SIZE) -> Registry:
    registry = Registry()
    registry.grow(size, ISSUED)
    return registry


def follow(
    mark: Mark | None,
    served: Registry,
    head: bytes,
    *,
    now: datetime = LATER,
    most_age_seconds: float | None = None,
) -> Mark:
    """What a monitor does with what a server shows."""
    reading = Reading(mark, head, HISTORY, now, most_age_seconds)
    end = min(reading.end, len(served.leaves))
    reading.prove(served.consistency(min(reading.marked, end), end))
    for leaf in served.leaves[reading.start : reading.end]:
        reading.read(leaf)
    return reading.finish(HISTORY)


def marked() -> Mark:
    registry = honest_registry()
    return follow(None, registry, registry.head(FIRST_HEAD))


def grown() -> Registry:
    registry = honest_registry()
    registry.grow(8, FIRST_HEAD)
    return registry


def rewritten(index: int, size: int) -> Registry:
    """A second history: one entry below the mark is another one."""
    registry = honest_registry()
    registry.leaves[index] = registry.leaves[index].replace(b"session-1", b"session-2")
    registry.grow(size - SIZE, FIRST_HEAD)
    return registry


@dataclass(frozen=True)
class ShownAttack:
    """What a lying server shows to a monitor that has a mark at `SIZE`.

    Attributes:
        name: what it does.
        show: gives the registry as it is served, and the head.
        error: that the monitor raises.
        checks: functions of `monitoring` that catch it; the first one does.
    """

    name: str
    show: Callable[[], tuple[Registry, bytes]]
    error: type[EvidenceError]
    checks: tuple[str, ...]


def forked() -> tuple[Registry, bytes]:
    served = rewritten(3, SIZE)
    return served, served.head(LATER)


def grown_fork() -> tuple[Registry, bytes]:
    served = rewritten(3, SIZE + 8)
    return served, served.head(LATER)


def rolled_back() -> tuple[Registry, bytes]:
    served = honest_registry()
    return served, served.head(LATER, size=SIZE - 3)


def dropped() -> tuple[Registry, bytes]:
    served = grown()
    head = served.head(LATER)
    proof = served.consistency(SIZE, SIZE + 8)
    del served.leaves[SIZE + 3]
    return replace_proof(served, proof), head


def swapped() -> tuple[Registry, bytes]:
    served = grown()
    head = served.head(LATER)
    proof = served.consistency(SIZE, SIZE + 8)
    served.leaves[SIZE + 3] = served.leaves[SIZE + 3].replace(b"session-1", b"session-2")
    return replace_proof(served, proof), head


def replace_proof(served: Registry, proof: list[bytes]) -> Registry:
    class Prepared(Registry):
        def consistency(self, old: int, new: int) -> list[bytes]:
            del old, new
            return proof

    return Prepared(leaves=served.leaves)


def dated_back() -> tuple[Registry, bytes]:
    served = grown()
    served.add(digest_of("old"), ISSUED + timedelta(seconds=5))
    return served, served.head(LATER)


def dated_back_between_heads() -> tuple[Registry, bytes]:
    """After the last entry, so it is in order; but before the head that was checked."""
    served = honest_registry()
    served.add(digest_of("old"), FIRST_HEAD - timedelta(seconds=5))
    return served, served.head(LATER)


def dated_ahead() -> tuple[Registry, bytes]:
    served = grown()
    served.add(digest_of("early"), LATER + timedelta(seconds=5))
    return served, served.head(LATER)


def malformed(leaf: bytes) -> Callable[[], tuple[Registry, bytes]]:
    def show() -> tuple[Registry, bytes]:
        served = grown()
        served.leaves.append(leaf)
        return served, served.head(LATER)

    return show


def unkept() -> tuple[Registry, bytes]:
    served = grown()
    return served, served.head(FIRST_HEAD + timedelta(seconds=20))


def from_the_future() -> tuple[Registry, bytes]:
    served = grown()
    return served, served.head(LATER + timedelta(hours=1))


def secret_trust_root() -> tuple[Registry, bytes]:
    """A new trust root that would revoke the server's key: registered, and not handed out."""
    served = grown()
    served.add(digest_of("version 2"), FIRST_HEAD + timedelta(minutes=1), "trust-root", None)
    return served, served.head(LATER)


def surplus(*kinds: EntryKind) -> Callable[[], tuple[Registry, bytes]]:
    """One session has these documents; the last one is one too many."""

    def show() -> tuple[Registry, bytes]:
        served = grown()
        for number, kind in enumerate(kinds):
            log = {"log_size": 7, "log_root": digest_of(number)} if kind == "seal" else {}
            served.add(
                digest_of(number), FIRST_HEAD + timedelta(minutes=1), kind, "session-2", **log
            )
        return served, served.head(LATER)

    return show


NOT_CANONICAL = grown().leaves[-1].replace(b":", b": ", 1)

SHOWN_ATTACKS = (
    ShownAttack(
        "a second view",
        forked,
        monitoring.RegistryForkError,
        ("check_same_tree", "check_consistent", "check_root"),
    ),
    ShownAttack(
        "a second view that grew",
        grown_fork,
        monitoring.RegistryForkError,
        ("check_consistent", "check_root"),
    ),
    ShownAttack(
        "entries are taken back",
        rolled_back,
        monitoring.RegistryRollbackError,
        ("check_not_smaller", "check_consistent", "check_root"),
    ),
    ShownAttack("an entry is dropped", dropped, monitoring.RegistryRootError, ("check_root",)),
    ShownAttack(
        "an entry's document is exchanged", swapped, monitoring.RegistryRootError, ("check_root",)
    ),
    ShownAttack("an entry is dated back", dated_back, monitoring.EntryTimeError, ("check_time",)),
    ShownAttack(
        "an entry is dated back between two heads",
        dated_back_between_heads,
        monitoring.EntryTimeError,
        ("check_time",),
    ),
    ShownAttack("an entry is dated ahead", dated_ahead, monitoring.EntryTimeError, ("check_time",)),
    ShownAttack(
        "an entry is none", malformed(b"nothing"), monitoring.RegistryEntryError, ("check_form",)
    ),
    ShownAttack(
        "an entry may be read in two ways",
        malformed(NOT_CANONICAL),
        monitoring.RegistryEntryError,
        ("check_form",),
    ),
    *(
        ShownAttack(name, surplus(*kinds), monitoring.SurplusEntryError, ("check_count",))
        for name, kinds in (
            ("a session is granted twice, for two bundles", ("grant", "grant")),
            ("a session is sealed twice, for two bundles", ("grant", "seal", "seal")),
            ("two models are submitted for one session", ("seal", "submission", "submission")),
            ("a draw gets two results, for two bundles", ("draw", "replay", "replay")),
        )
    ),
    ShownAttack(
        "the registry is no longer kept", unkept, monitoring.StaleHeadError, ("check_age",)
    ),
    ShownAttack(
        "the head is dated in the future",
        from_the_future,
        monitoring.StaleHeadError,
        ("check_age",),
    ),
    ShownAttack(
        "a revocation is kept secret",
        secret_trust_root,
        monitoring.TrustRootWithheldError,
        ("check_trust_roots",),
    ),
)
every_shown_attack = pytest.mark.parametrize("attack", SHOWN_ATTACKS, ids=lambda a: a.name)


def test_an_honest_registry_is_followed() -> None:
    served = grown()
    mark = follow(marked(), served, served.head(LATER), most_age_seconds=60)
    assert mark.frontier.size == mark.head.checkpoint.size == SIZE + 8
    assert Mark.from_bytes(mark.to_bytes(), ORIGIN) == mark


@every_shown_attack
def test_the_monitor_raises_an_alarm(attack: ShownAttack) -> None:
    mark = marked()
    before = mark.to_bytes()
    served, head = attack.show()
    with pytest.raises(attack.error):
        follow(mark, served, head, most_age_seconds=300)
    assert mark.to_bytes() == before


@every_shown_attack
def test_with_its_checks_switched_off_the_monitor_is_taken_in(
    attack: ShownAttack, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = marked()
    served, head = attack.show()
    entry = monitoring.check_form(0, grown().leaves[-1])
    for name in attack.checks:
        monkeypatch.setattr(monitoring, name, lambda *_: entry)
    follow(mark, served, head, most_age_seconds=300)


@pytest.mark.parametrize("role", ["registry", "cosigner"])
def test_a_strangers_head_is_no_head(role: str) -> None:
    served = grown()
    keys = {"registry": "signer", "cosigner": "cosigner"}
    lying = replace(served, **{keys[role]: STRANGER_KEY})
    with pytest.raises(EvidenceError, match="key"):
        follow(marked(), lying, lying.head(LATER))


def test_the_story_is_one_of_one_day() -> None:
    assert GRANTED_AT == ISSUED
