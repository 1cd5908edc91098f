"""An envelope is opened when enough different trusted keys have signed payload and type."""

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from auditkit.evidence.dsse import (
    IN_TOTO_PAYLOAD_TYPE,
    MAX_ENVELOPE_BYTES,
    MAX_SIGNATURES,
    Envelope,
    EnvelopeSignature,
    pre_authentication_encoding,
    sign,
    verify,
)
from auditkit.evidence.errors import (
    EnvelopeFormatError,
    EvidenceError,
    PayloadTypeError,
    ThresholdError,
)
from auditkit.evidence.keys import PublicKey, SigningKey

VECTORS = json.loads((Path(__file__).parent / "vectors" / "dsse.json").read_text())
KEYS = [SigningKey(Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32)) for n in range(1, 5)]
TRUSTED = {key.public.keyid: key.public for key in KEYS[:3]}
PAYLOAD = b'{"order":1}'


def test_the_signed_bytes_are_those_of_the_specification():
    case = VECTORS["pae"]
    encoded = pre_authentication_encoding(case["payload_type"], case["payload"].encode())
    assert encoded == case["encoded"].encode()


@pytest.mark.parametrize("case", VECTORS["vectors"], ids=lambda case: case["id"])
def test_published_envelopes_are_judged_as_published(case):
    envelope = Envelope.from_bytes(json.dumps(case["envelope"]).encode())
    trusted = {name: PublicKey.from_hex(VECTORS["keys"][name]) for name in case["trusted"]}
    # A verifier supports in-toto statements unless the vector says otherwise.
    supported = case["payload_type"]
    if case["expect"] == "accept":
        assert verify(envelope, trusted, case["threshold"], supported) == envelope.payload
    else:
        with pytest.raises((ThresholdError, PayloadTypeError)):
            verify(envelope, trusted, case["threshold"], supported)


@pytest.mark.parametrize("signers", [1, 2, 3])
def test_an_envelope_opens_when_the_threshold_is_met(signers):
    envelope = Envelope.from_bytes(sign(PAYLOAD, KEYS[:signers]).to_bytes())
    for threshold in range(1, 4):
        if threshold <= signers:
            assert verify(envelope, TRUSTED, threshold) == PAYLOAD
        else:
            with pytest.raises(ThresholdError, match=f"{threshold} of 3 trusted keys"):
                verify(envelope, TRUSTED, threshold)


def test_a_key_counts_once_however_it_is_presented():
    first = KEYS[0]
    signature = first.sign(pre_authentication_encoding(IN_TOTO_PAYLOAD_TYPE, PAYLOAD))
    names = (first.public.keyid, "", "another name", KEYS[1].public.keyid)
    lines = tuple(EnvelopeSignature(name, signature) for name in names)
    envelope = Envelope(PAYLOAD, IN_TOTO_PAYLOAD_TYPE, lines)
    assert verify(envelope, TRUSTED, 1) == PAYLOAD
    with pytest.raises(ThresholdError):
        verify(envelope, TRUSTED, 2)
    with pytest.raises(ThresholdError):
        verify(envelope, {"one": first.public, "two": first.public}, 2)


def test_strangers_and_bad_signatures_are_skipped():
    stranger = sign(PAYLOAD, [KEYS[3]]).signatures
    bad = (EnvelopeSignature(KEYS[1].public.keyid, bytes(64)), EnvelopeSignature("", b"short"))
    envelope = sign(PAYLOAD, [KEYS[0]])
    mixed = Envelope(PAYLOAD, IN_TOTO_PAYLOAD_TYPE, stranger + bad + envelope.signatures)
    assert verify(mixed, TRUSTED) == PAYLOAD
    with pytest.raises(ThresholdError):
        verify(mixed, TRUSTED, 2)


def test_payload_and_type_are_both_signed():
    envelope = sign(PAYLOAD, [KEYS[0]])
    with pytest.raises(ThresholdError):
        verify(Envelope(PAYLOAD + b" ", IN_TOTO_PAYLOAD_TYPE, envelope.signatures), TRUSTED)
    with pytest.raises(ThresholdError):
        verify(Envelope(PAYLOAD, "application/json", envelope.signatures), TRUSTED)


def test_another_type_of_payload_is_refused_even_if_signed():
    envelope = sign(PAYLOAD, [KEYS[0]], payload_type="application/vnd.other+json")
    with pytest.raises(PayloadTypeError, match=r"vnd\.other"):
        verify(envelope, TRUSTED)
    assert verify(envelope, TRUSTED, payload_type="application/vnd.other+json") == PAYLOAD


@pytest.mark.parametrize("threshold", [0, -1])
def test_a_threshold_of_nobody_is_refused(threshold):
    with pytest.raises(ThresholdError):
        verify(sign(PAYLOAD, [KEYS[0]]), TRUSTED, threshold)


def test_nobody_signs_nothing():
    with pytest.raises(ThresholdError):
        sign(PAYLOAD, [])


def envelope_json(**changes):
    document = json.loads(sign(PAYLOAD, [KEYS[0]]).to_bytes()) | changes
    return json.dumps(document).encode()


def test_unknown_fields_are_ignored_as_the_specification_demands():
    signature = json.loads(sign(PAYLOAD, [KEYS[0]]).to_bytes())["signatures"][0]
    data = envelope_json(extension={"a": 1}, signatures=[signature | {"cert": "x"}])
    assert verify(Envelope.from_bytes(data), TRUSTED) == PAYLOAD


def without_empty_fields(payload, payload_type, signer):
    """The envelope as a writer may shorten it: "empty fields may be omitted" (envelope.md)."""
    whole = json.loads(sign(payload, [signer], payload_type=payload_type).to_bytes())
    whole["signatures"] = [{"sig": whole["signatures"][0]["sig"]}]
    return json.dumps({name: value for name, value in whole.items() if value}).encode()


@pytest.mark.parametrize("payload", [b"", PAYLOAD])
@pytest.mark.parametrize("payload_type", ["", IN_TOTO_PAYLOAD_TYPE])
def test_empty_fields_may_be_left_out(payload, payload_type):
    envelope = Envelope.from_bytes(without_empty_fields(payload, payload_type, KEYS[0]))
    assert verify(envelope, TRUSTED, payload_type=payload_type) == payload


def test_an_empty_signature_is_nobodys():
    envelope = Envelope.from_bytes(envelope_json(signatures=[{"keyid": KEYS[0].public.keyid}]))
    with pytest.raises(ThresholdError):
        verify(envelope, TRUSTED)


def test_a_wrong_key_identifier_is_only_a_wrong_hint():
    message = pre_authentication_encoding(IN_TOTO_PAYLOAD_TYPE, PAYLOAD)
    lines = tuple(
        EnvelopeSignature(hinted.public.keyid, signer.sign(message))
        for hinted, signer in [(KEYS[1], KEYS[0]), (KEYS[0], KEYS[1])]
    )
    assert verify(Envelope(PAYLOAD, IN_TOTO_PAYLOAD_TYPE, lines), TRUSTED, 2) == PAYLOAD
    with pytest.raises(ThresholdError):
        verify(Envelope(PAYLOAD, IN_TOTO_PAYLOAD_TYPE, lines), TRUSTED, 3)


GOOD_SIGNATURE = {"keyid": "", "sig": "QUJD"}

MALFORMED = {
    "nothing": b"",
    "not JSON": b"order",
    "a list": b"[]",
    "a payload twice": envelope_json()[:-1] + b',"payload":"QQ=="}',
    "a signature twice": envelope_json().replace(b'"sig"', b'"sig":"QQ==","sig"'),
    "no signatures": b'{"payload":"QUJD","payloadType":"x"}',
    "an empty list of signatures": envelope_json(signatures=[]),
    "signatures that are an object": envelope_json(signatures={"keyid": "", "sig": ""}),
    "a signature that is text": envelope_json(signatures=["QUJD"]),
    "a signature of null": envelope_json(signatures=[{"keyid": "", "sig": None}]),
    "a key identifier of null": envelope_json(signatures=[{"keyid": None, "sig": "QUJD"}]),
    "a numeric payload": envelope_json(payload=1),
    "a numeric type": envelope_json(payloadType=1),
    "base64 without padding": envelope_json(payload="QQ"),
    "base64 with spare bits": envelope_json(payload="QR=="),
    "base64 with white space": envelope_json(payload="QQ= ="),
    "base64 with a newline": envelope_json(payload="QQ==\n"),
    "both base64 alphabets": envelope_json(payload="+-/_"),
    "too many signatures": envelope_json(signatures=[GOOD_SIGNATURE] * (MAX_SIGNATURES + 1)),
    "a long key identifier": envelope_json(signatures=[{"keyid": "k" * 1001, "sig": "QUJD"}]),
    "a long payload type": envelope_json(payloadType="t" * 1001),
    "too large": envelope_json(payload="A" * MAX_ENVELOPE_BYTES),
    "nested without end": b"[" * 100_000,
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_envelopes_are_refused(data):
    with pytest.raises(EnvelopeFormatError):
        Envelope.from_bytes(data)


@given(st.binary(max_size=100), st.integers(1, 4))
@settings(deadline=None, derandomize=True)
def test_envelopes_survive_their_bytes(payload, signers):
    envelope = sign(payload, KEYS[:signers])
    assert Envelope.from_bytes(envelope.to_bytes()) == envelope
    assert verify(envelope, TRUSTED) == payload


@given(st.binary(max_size=100) | st.text(max_size=100).map(str.encode))
@settings(derandomize=True)
def test_garbage_raises_only_typed_errors(data):
    with pytest.raises(EvidenceError):
        Envelope.from_bytes(data)
