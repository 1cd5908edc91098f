"""Heads of a registry are judged by the keys of their time; marks and entries by their form."""

import json
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from auditkit.evidence import canonical, merkle, monitoring, notes
from auditkit.evidence.errors import EvidenceError, TrustRoleMissingError
from auditkit.evidence.monitoring import (
    EntryTimeError,
    Mark,
    MarkError,
    Reading,
    RegistryEntryError,
    RegistryForkError,
    RegistryRollbackError,
    SurplusEntryError,
    check_form,
)
from auditkit.evidence.registry_head import RegistryKeyError, RegistryOriginError, open_head
from auditkit.evidence.trust import sign_trust_root
from auditkit.evidence.trust_history import TrustHistory
from schemas import RegistryEntry, Role, TrustRoot
from schemas.registry import EntryKind
from tests.evidence.registries import (
    ISSUED,
    KEYS,
    ORIGIN,
    Registry,
    digest_of,
    fixed_key,
    trust_root,
)

NEW_KEY = fixed_key("new registry key")
ROTATED_AT = ISSUED + timedelta(days=10)
HISTORY = TrustHistory.of(trust_root())


def registry(size: int = 5) -> Registry:
    made = Registry()
    made.grow(size, ISSUED)
    return made


def rotated(**changes: object) -> TrustHistory:
    """Two versions of the trust root; the second one has another key for the registry."""
    first = sign_trust_root(trust_root(), [KEYS["root"]]).to_bytes()
    known = TrustHistory.open(first)
    keys = {**KEYS, "registry": NEW_KEY}
    second: TrustRoot = trust_root(
        version=2,
        previous=known.versions[-1].digest,
        issued_at=ROTATED_AT,
        keys={key.public.keyid: key.public.hex for key in keys.values()},
        roles={role: Role(keyids=(key.public.keyid,)) for role, key in keys.items()},
        **changes,
    )
    return known.joined([sign_trust_root(second, [KEYS["root"]]).to_bytes()])


def test_a_head_tells_size_root_and_time() -> None:
    made = registry()
    head = open_head(made.head(ISSUED + timedelta(minutes=1)), HISTORY)
    assert head.checkpoint.size == 5
    assert head.checkpoint.root == merkle.root(made.leaves)
    assert head.cosigned_at == int(ISSUED.timestamp()) + 60


@pytest.mark.parametrize(
    ("signer", "days", "counts"),
    [
        (KEYS["registry"], 9, True),
        (KEYS["registry"], 11, False),
        (NEW_KEY, 9, False),
        (NEW_KEY, 11, True),
    ],
    ids=["old key before", "old key after", "new key before", "new key after"],
)
def test_a_key_speaks_for_the_registry_in_its_time_only(
    signer: object, days: int, counts: bool
) -> None:
    note = replace(registry(), signer=signer).head(ISSUED + timedelta(days=days))
    if counts:
        assert open_head(note, rotated()).checkpoint.size == 5
    else:
        with pytest.raises(RegistryKeyError, match="update the trust root"):
            open_head(note, rotated())


def test_a_head_of_another_log_of_the_same_auditor_is_no_head() -> None:
    text = notes.Checkpoint(f"{ORIGIN}/sessions/s", 1, bytes(32)).to_text()
    note = notes.sign(text, f"{ORIGIN}/registry", KEYS["registry"])
    with pytest.raises(RegistryOriginError):
        open_head(note.to_bytes(), HISTORY)


def test_a_trust_root_without_a_registry_says_so() -> None:
    roles = {role: Role(keyids=(KEYS[role].public.keyid,)) for role in KEYS if role != "registry"}
    old = TrustHistory.of(trust_root(roles=roles))
    with pytest.raises(TrustRoleMissingError, match="registry"):
        open_head(registry().head(ISSUED + timedelta(minutes=1)), old)


def test_one_key_alone_does_not_meet_a_threshold_of_two() -> None:
    keyids = (KEYS["registry"].public.keyid, NEW_KEY.public.keyid)
    first = trust_root()
    demanding = trust_root(
        keys={**first.keys, NEW_KEY.public.keyid: NEW_KEY.public.hex},
        roles={**first.roles, "registry": Role(keyids=keyids, threshold=2)},
    )
    with pytest.raises(RegistryKeyError, match="expected 2"):
        open_head(registry().head(ISSUED + timedelta(minutes=1)), TrustHistory.of(demanding))


@given(data=st.binary(max_size=400))
@settings(max_examples=200)
def test_any_bytes_are_a_mark_or_a_typed_error(data: bytes) -> None:
    with pytest.raises(MarkError):
        Mark.from_bytes(data, f"{ORIGIN}/registry")


@given(data=st.binary(max_size=400))
@settings(max_examples=200)
def test_any_bytes_are_an_entry_or_a_typed_error(data: bytes) -> None:
    with pytest.raises(RegistryEntryError):
        check_form(0, data)


@given(position=st.integers(0, 10_000), value=st.integers(1, 255))
@settings(max_examples=200)
def test_a_changed_byte_of_a_mark_is_noticed_or_changes_nothing_that_counts(
    position: int, value: int
) -> None:
    made = registry()
    note = made.head(ISSUED + timedelta(minutes=1))
    reading = Reading(None, note, HISTORY, ISSUED + timedelta(minutes=2))
    for leaf in made.leaves:
        reading.read(leaf)
    mark = reading.finish(HISTORY)
    data = bytearray(mark.to_bytes())
    data[position % len(data)] ^= value
    try:
        found = Mark.from_bytes(bytes(data), f"{ORIGIN}/registry")
    except MarkError:
        return
    # The tree is bound by its own root; signatures and times are checked with the next head.
    assert found.frontier == mark.frontier
    assert found.head.checkpoint == mark.head.checkpoint


@given(data=st.binary(max_size=600))
@settings(max_examples=200)
def test_any_bytes_are_a_head_or_a_typed_error(data: bytes) -> None:
    with pytest.raises(EvidenceError):
        open_head(data, HISTORY)


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "order"},
        {"kind": "grant", "session_id": None},
        {"log_size": 3},
        {"log_root": digest_of(1)},
        {"kind": "seal"},
        {"kind": "seal", "log_size": 3},
        {"kind": "something"},
        {"time_ms": -1},
        {"digest": "ab"},
    ],
    ids=str,
)
def test_an_entry_says_what_its_kind_demands_and_nothing_else(changes: dict[str, object]) -> None:
    honest = {"kind": "verdict", "session_id": "session-1", "digest": digest_of(0), "time_ms": 1}
    assert RegistryEntry(**honest).kind == "verdict"
    with pytest.raises(ValidationError):
        RegistryEntry(**{**honest, **changes})


def test_an_entry_has_one_form() -> None:
    (leaf,) = registry(1).leaves
    assert canonical.to_bytes(check_form(0, leaf)) == leaf
    spaced = leaf.replace(b",", b", ", 1)
    with pytest.raises(RegistryEntryError, match="RFC 8785"):
        check_form(0, spaced)


# What a session can have once


def add(made: Registry, *kinds: EntryKind, session: str = "session-2") -> Registry:
    """Register documents of these kinds, each a minute after what is there."""
    for kind in kinds:
        number = len(made.leaves)
        log = {"log_size": 7, "log_root": digest_of(number)} if kind == "seal" else {}
        at = ISSUED + timedelta(minutes=number)
        made.add(digest_of((kind, number)), at, kind, session, **log)
    return made


def follow(made: Registry, mark: Mark | None = None) -> Mark:
    """Check the registry as it is now, as a monitor with this mark does."""
    head = made.head(ISSUED + timedelta(minutes=len(made.leaves)))
    reading = Reading(mark, head, HISTORY, ISSUED + timedelta(days=1))
    reading.prove(made.consistency(reading.marked, reading.end))
    for leaf in made.leaves[reading.start :]:
        reading.read(leaf)
    return reading.finish(HISTORY)


def older(mark: Mark) -> Mark:
    """The same mark, as monitors kept it that did not count."""
    fields = json.loads(mark.to_bytes())
    del fields["counts"]
    return Mark.from_bytes(json.dumps(fields).encode(), f"{ORIGIN}/registry")


@pytest.mark.parametrize(
    "kinds",
    [
        ("grant", "seal", "submission"),
        ("continuation", "continuation"),
        ("verification", "verification", "verdict", "verdict"),
        ("draw", "draw", "replay", "draw", "replay", "replay"),
    ],
    ids=" ".join,
)
def test_what_a_session_may_have_is_no_alarm(kinds: tuple[EntryKind, ...]) -> None:
    made = add(add(registry(), *kinds), *kinds, session="session-3")
    assert follow(made).frontier.size == 5 + 2 * len(kinds)


@pytest.mark.parametrize(
    ("before", "surplus"),
    [
        (("grant",), "grant"),
        (("grant", "seal"), "seal"),
        (("seal", "submission"), "submission"),
        (("draw", "replay"), "replay"),
        (("draw", "draw", "replay", "replay"), "replay"),
        (("seal",), "replay"),
    ],
)
@pytest.mark.parametrize("marked", [True, False], ids=["after the mark", "without a mark"])
def test_what_a_session_cannot_have_is_an_alarm(
    before: tuple[EntryKind, ...], surplus: EntryKind, marked: bool
) -> None:
    made = add(registry(), *before)
    mark = follow(made)
    kept = Mark.from_bytes(mark.to_bytes(), f"{ORIGIN}/registry")
    assert kept == mark
    add(made, surplus)
    with pytest.raises(SurplusEntryError, match=f"{surplus} number .* session-2"):
        follow(made, kept if marked else None)
    assert kept == mark


def test_a_mark_of_a_monitor_that_did_not_count_is_read_anew() -> None:
    made = add(registry(), "grant", "seal")
    mark = follow(made)
    assert older(mark).counts is None
    reading = Reading(older(mark), mark.note, HISTORY, ISSUED + timedelta(days=1))
    assert (reading.start, reading.marked) == (0, mark.frontier.size)
    assert follow(made, older(mark)) == mark
    assert follow(add(made, "submission"), older(mark)) == follow(made, mark)


def test_what_a_monitor_that_did_not_count_has_overlooked_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = add(registry(), "grant", "seal", "seal")
    with monkeypatch.context() as before:
        before.setattr(monitoring, "check_count", lambda *_: None)
        mark = older(follow(made))
    with pytest.raises(SurplusEntryError, match="seal number 2"):
        follow(made, mark)


def test_a_mark_without_counts_still_holds_the_registry_to_what_was_checked() -> None:
    made = add(registry(), "grant")
    mark = older(follow(made))
    shorter = Registry(leaves=made.leaves[:-1])
    with pytest.raises(RegistryRollbackError):
        follow(shorter, mark)
    forked = add(registry(), "seal", "seal")
    with pytest.raises(RegistryForkError):
        follow(forked, mark)
    made.add(digest_of("old"), ISSUED + timedelta(minutes=5), "verdict", "session-2")
    with pytest.raises(EntryTimeError):
        follow(made, mark)
