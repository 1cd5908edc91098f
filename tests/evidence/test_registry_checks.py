"""Heads of a registry are judged by the keys of their time; marks and entries by their form."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from auditkit.evidence import canonical, merkle, notes
from auditkit.evidence.errors import EvidenceError, TrustRoleMissingError
from auditkit.evidence.monitoring import Mark, MarkError, Reading, RegistryEntryError, check_form
from auditkit.evidence.registry_head import RegistryKeyError, RegistryOriginError, open_head
from auditkit.evidence.trust import sign_trust_root
from auditkit.evidence.trust_history import TrustHistory
from schemas import RegistryEntry, Role, TrustRoot
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
