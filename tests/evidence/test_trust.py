"""A third party holds one file, the trust root, and judges every signature by it."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from auditkit.evidence import canonical, dsse, statements
from auditkit.evidence.errors import (
    PayloadTypeError,
    StatementError,
    ThresholdError,
    TrustRoleMissingError,
    TrustRootError,
    TrustRootExpiredError,
    TrustRootFormatError,
    TrustRootGapError,
    TrustRootNotInForceError,
    TrustRootSignatureError,
    TrustRootVersionError,
)
from auditkit.evidence.keys import SigningKey
from auditkit.evidence.trust import (
    add_signatures,
    open_trust_root,
    read_draft,
    role_keys,
    root_signers,
    sign_trust_root,
    trust_root_payload,
    verify_statement,
)
from auditkit.evidence.trust_history import TrustHistory
from schemas import RevokedKey, Role, SampleCommitment, TrustRoot

NOW = datetime(2026, 3, 1, tzinfo=UTC)
KEYS = {
    name: SigningKey(Ed25519PrivateKey.from_private_bytes(name.encode().ljust(32, b".")))
    for name in ("root1", "root2", "order", "session", "cosigner", "verdict", "stranger")
}
ROOT_KEYS = [KEYS["root1"], KEYS["root2"]]
COMMITMENT = SampleCommitment(root="ab" * 32, size=5)


def role(*names, threshold=1):
    return Role(keyids=tuple(KEYS[name].public.keyid for name in names), threshold=threshold)


def trust_root(**changes):
    fields = {
        "auditor": "The Regulator",
        "origin": "auditor.example",
        "version": 1,
        "issued_at": NOW - timedelta(days=30),
        "expires_at": NOW + timedelta(days=300),
        "keys": {
            key.public.keyid: key.public.hex for name, key in KEYS.items() if name != "stranger"
        },
        "roles": {
            "root": role("root1", "root2", threshold=2),
            "order": role("order"),
            "session": role("session"),
            "cosigner": role("cosigner"),
            "verdict": role("verdict"),
        },
    }
    return TrustRoot(**(fields | changes))


ROOT = trust_root()
SIGNED = sign_trust_root(ROOT, ROOT_KEYS).to_bytes()


def test_a_trust_root_opens_for_who_holds_it():
    assert open_trust_root(SIGNED, NOW) == ROOT


def test_roles_name_their_keys():
    assert role_keys(ROOT, "order") == {KEYS["order"].public.keyid: KEYS["order"].public}
    assert len(role_keys(ROOT, "root")) == 2


UNSIGNED = {
    "one of two": [KEYS["root1"]],
    "one of two, twice": [KEYS["root1"], KEYS["root1"]],
    "the keys of another role": [KEYS["order"], KEYS["session"]],
    "one of two, and a stranger": [KEYS["root1"], KEYS["stranger"]],
}


@pytest.mark.parametrize("keys", UNSIGNED.values(), ids=UNSIGNED.keys())
def test_a_trust_root_without_enough_signatures_is_refused(keys):
    with pytest.raises(TrustRootSignatureError):
        open_trust_root(sign_trust_root(ROOT, keys).to_bytes(), NOW)


@pytest.mark.parametrize("days", [300, 301])
def test_an_expired_trust_root_is_refused(days):
    with pytest.raises(TrustRootExpiredError, match="ask the auditor"):
        open_trust_root(SIGNED, NOW + timedelta(days=days))
    assert open_trust_root(SIGNED, NOW + timedelta(days=300, seconds=-1)) == ROOT


def with_key(keyid, raw_hex):
    return trust_root(keys=ROOT.keys | {keyid: raw_hex})


UNUSABLE = {
    "a key under another identifier": with_key("ab" * 32, KEYS["stranger"].public.hex),
    "a key of small order": with_key("ab" * 32, "00" * 32),
    "bytes that are no point": with_key("ab" * 32, "02" + "00" * 31),
    "a replaced order key": with_key(KEYS["order"].public.keyid, KEYS["stranger"].public.hex),
}


@pytest.mark.parametrize("root", UNUSABLE.values(), ids=UNUSABLE.keys())
def test_a_trust_root_with_an_unusable_key_is_refused(root):
    with pytest.raises(TrustRootFormatError):
        open_trust_root(sign_trust_root(root, ROOT_KEYS).to_bytes(), NOW)


def test_another_statement_is_no_trust_root():
    subject = statements.subject("order", "o1", COMMITMENT)
    order = statements.make(statements.ORDER_PREDICATE, COMMITMENT, subject)
    with pytest.raises(TrustRootFormatError):
        open_trust_root(dsse.sign(order, ROOT_KEYS).to_bytes(), NOW)


def test_another_payload_type_is_no_trust_root():
    payload = sign_trust_root(ROOT, ROOT_KEYS).payload
    envelope = dsse.sign(payload, ROOT_KEYS, payload_type="application/json")
    with pytest.raises(TrustRootSignatureError):
        open_trust_root(envelope.to_bytes(), NOW)


@given(st.binary(max_size=60))
@settings(derandomize=True)
def test_garbage_is_no_trust_root(data):
    with pytest.raises(TrustRootError):
        open_trust_root(data, NOW)


@given(st.data())
@settings(deadline=None, derandomize=True, max_examples=60)
def test_one_changed_byte_is_noticed(data):
    changed = bytearray(SIGNED)
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        opened = open_trust_root(bytes(changed), NOW)
    except TrustRootError:
        return
    # Only the unauthenticated key hints of the envelope can change without harm.
    assert opened == ROOT


def order_statement(keys, predicate_type=statements.ORDER_PREDICATE):
    subject = statements.subject("order", "o1", COMMITMENT)
    return dsse.sign(statements.make(predicate_type, COMMITMENT, subject), keys)


def open_order(envelope):
    return verify_statement(ROOT, "order", envelope, statements.ORDER_PREDICATE, SampleCommitment)


def test_a_statement_by_the_right_role_is_believed():
    assert open_order(order_statement([KEYS["order"]])) == COMMITMENT


@pytest.mark.parametrize("name", ["root1", "session", "verdict", "stranger"])
def test_a_statement_by_another_role_is_refused(name):
    with pytest.raises(ThresholdError):
        open_order(order_statement([KEYS[name]]))


def test_a_statement_of_another_kind_is_refused():
    with pytest.raises(StatementError):
        open_order(order_statement([KEYS["order"]], statements.GRANT_PREDICATE))
    payload = order_statement([KEYS["order"]]).payload
    with pytest.raises(PayloadTypeError):
        open_order(dsse.sign(payload, [KEYS["order"]], payload_type="application/json"))


@pytest.mark.parametrize("role", ["registry", "replay"])
def test_an_old_trust_root_lacks_a_role_only_when_it_is_needed(role):
    assert open_trust_root(SIGNED, NOW) == ROOT
    with pytest.raises(TrustRoleMissingError, match="auditkit trust rotate"):
        role_keys(ROOT, role)
    with pytest.raises(TrustRoleMissingError):
        verify_statement(
            ROOT, role, order_statement([KEYS["order"]]), statements.ORDER_PREDICATE, Role
        )


NEW_ROLES = ROOT.roles | {"root": role("order", "session", threshold=2)}
NEW_ROOT_KEYS = [KEYS["order"], KEYS["session"]]
PREVIOUS = canonical.sha256_hex(trust_root_payload(ROOT))


def successor(**changes):
    fields = {"version": 2, "previous": PREVIOUS, "issued_at": NOW, "roles": NEW_ROLES}
    return trust_root(**(fields | changes))


def followed(root, keys):
    return TrustHistory.open(SIGNED).joined([sign_trust_root(root, keys).to_bytes()])


def test_root_keys_are_handed_over_by_the_old_ones():
    history = followed(successor(), [*ROOT_KEYS, *NEW_ROOT_KEYS])
    assert history.current == successor()
    assert [version.root for version in history.versions] == [ROOT, successor()]


@pytest.mark.parametrize("keys", [ROOT_KEYS, NEW_ROOT_KEYS], ids=["only the old", "only the new"])
def test_root_keys_are_not_handed_over_by_one_side_alone(keys):
    with pytest.raises(TrustRootSignatureError):
        followed(successor(), keys)


OTHER_SUCCESSORS = {
    "a version left out": (successor(version=3), TrustRootGapError),
    "another auditor": (successor(origin="elsewhere.example"), TrustRootVersionError),
}


@pytest.mark.parametrize(("root", "error"), OTHER_SUCCESSORS.values(), ids=OTHER_SUCCESSORS.keys())
def test_only_the_next_version_follows(root, error):
    with pytest.raises(error):
        followed(root, [*ROOT_KEYS, *NEW_ROOT_KEYS])


def test_a_version_holds_from_the_second_of_its_issue_to_its_end():
    issued = NOW + timedelta(microseconds=700_000)
    history = followed(successor(issued_at=issued), [*ROOT_KEYS, *NEW_ROOT_KEYS])
    assert history.at(NOW - timedelta(seconds=1)) == ROOT
    assert history.at(NOW).version == 2
    assert history.at(ROOT.expires_at - timedelta(seconds=1)).version == 2
    with pytest.raises(TrustRootExpiredError):
        history.at(ROOT.expires_at)
    with pytest.raises(TrustRootNotInForceError):
        history.at(ROOT.issued_at - timedelta(seconds=1))


def test_between_an_expired_version_and_the_next_one_nobody_speaks_for_the_auditor():
    late = ROOT.expires_at + timedelta(days=1)
    history = followed(
        successor(issued_at=late, expires_at=late + timedelta(days=9)),
        [*ROOT_KEYS, *NEW_ROOT_KEYS],
    )
    assert history.at(late).version == 2
    with pytest.raises(TrustRootExpiredError):
        history.at(late - timedelta(hours=1))


def test_any_version_proves_the_others():
    second = sign_trust_root(successor(), [*ROOT_KEYS, *NEW_ROOT_KEYS]).to_bytes()
    for trusted in (SIGNED, second):
        history = TrustHistory.open(trusted, [SIGNED, second])
        assert [version.root.version for version in history.versions] == [1, 2]
    # A trust root that was opened elsewhere is known by its content.
    assert TrustHistory.of(ROOT).joined([SIGNED, second]).current == successor()
    assert TrustHistory.of(successor()).joined([SIGNED]).versions[0].root == ROOT


def test_a_version_is_signed_in_several_sittings():
    payload = trust_root_payload(successor())
    draft, root = read_draft(payload)
    assert root == successor()
    assert draft.signatures == ()
    for number, key in enumerate((*ROOT_KEYS, *NEW_ROOT_KEYS), start=1):
        draft, _ = read_draft(add_signatures(draft, [key]).to_bytes())
        assert len(draft.signatures) == number
    again = add_signatures(draft, ROOT_KEYS)
    assert len(again.signatures) == 4
    assert len(root_signers(again, ROOT)) == len(root_signers(again, root)) == 2
    assert TrustHistory.open(SIGNED, [again.to_bytes()]).current == root


def test_a_draft_with_a_key_of_small_order_is_not_even_read():
    weak = successor(keys=ROOT.keys | {canonical.sha256_hex(bytes(32)): "00" * 32})
    with pytest.raises(TrustRootFormatError, match="small order"):
        read_draft(trust_root_payload(weak))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"version": 1}, "no version before it"),
        (
            {"revoked_keys": (RevokedKey(keyid=KEYS["order"].public.keyid, compromised_at=NOW),)},
            "revoked keys hold a role",
        ),
        ({"revoked_keys": (RevokedKey(keyid="ab" * 32, compromised_at=NOW),) * 2}, "twice"),
    ],
)
def test_a_version_that_contradicts_itself_cannot_be_made(changes, problem):
    with pytest.raises(ValidationError, match=problem):
        successor(**changes)
