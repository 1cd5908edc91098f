"""A third party holds one file, the trust root, and judges every signature by it."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from auditkit.evidence import dsse, statements
from auditkit.evidence.errors import (
    PayloadTypeError,
    StatementError,
    ThresholdError,
    TrustRootError,
    TrustRootExpiredError,
    TrustRootFormatError,
    TrustRootSignatureError,
    TrustRootVersionError,
)
from auditkit.evidence.keys import SigningKey
from auditkit.evidence.trust import (
    open_successor,
    open_trust_root,
    role_keys,
    sign_trust_root,
    verify_statement,
)
from schemas import Role, SampleCommitment, TrustRoot

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


NEW_ROLES = ROOT.roles | {"root": role("order", "session", threshold=2)}
NEW_ROOT_KEYS = [KEYS["order"], KEYS["session"]]


def test_root_keys_are_handed_over_by_the_old_ones():
    successor = trust_root(version=2, roles=NEW_ROLES)
    data = sign_trust_root(successor, [*ROOT_KEYS, *NEW_ROOT_KEYS]).to_bytes()
    assert open_successor(ROOT, data, NOW) == successor


@pytest.mark.parametrize("keys", [ROOT_KEYS, NEW_ROOT_KEYS], ids=["only the old", "only the new"])
def test_root_keys_are_not_handed_over_by_one_side_alone(keys):
    successor = trust_root(version=2, roles=NEW_ROLES)
    with pytest.raises(TrustRootSignatureError):
        open_successor(ROOT, sign_trust_root(successor, keys).to_bytes(), NOW)


OTHER_SUCCESSORS = {
    "the same version": trust_root(version=1),
    "a version left out": trust_root(version=3),
    "another auditor": trust_root(version=2, origin="elsewhere.example"),
}


@pytest.mark.parametrize("root", OTHER_SUCCESSORS.values(), ids=OTHER_SUCCESSORS.keys())
def test_only_the_next_version_follows(root):
    with pytest.raises(TrustRootVersionError):
        open_successor(ROOT, sign_trust_root(root, ROOT_KEYS).to_bytes(), NOW)


def test_an_expired_successor_is_refused():
    successor = trust_root(version=2, expires_at=NOW)
    with pytest.raises(TrustRootExpiredError):
        open_successor(ROOT, sign_trust_root(successor, ROOT_KEYS).to_bytes(), NOW)
