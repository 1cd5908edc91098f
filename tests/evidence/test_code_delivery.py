"""Codes reach the process that trains, and nobody on the way."""

import hashlib
import hmac
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from auditkit.evidence import dsse
from auditkit.evidence.canonical import to_bytes
from auditkit.evidence.code_delivery import (
    REQUEST_TYPE,
    CodesDeliveryError,
    CodesReceiver,
    CodesRequestError,
    EphemeralKeyError,
    open_request,
    seal_codes,
    sign_request,
)
from auditkit.evidence.errors import PayloadTypeError, ThresholdError
from auditkit.evidence.keys import SigningKey
from schemas import CodesRequest

SESSION, OTHER_SESSION = "20260301-abcdef", "20260301-abcdee"
COMMITMENT, OTHER_COMMITMENT = "ab" * 32, "cd" * 32
CODES = bytes(range(256)) * 4


def test_the_process_that_asked_reads_the_codes() -> None:
    receiver = CodesReceiver()
    sealed = seal_codes(CODES, receiver.public_key, SESSION, COMMITMENT)
    assert receiver.open(sealed, SESSION, COMMITMENT) == CODES
    assert CODES[:32] not in sealed
    assert sealed != seal_codes(CODES, receiver.public_key, SESSION, COMMITMENT)


def test_whoever_stands_between_reads_nothing() -> None:
    receiver, relay = CodesReceiver(), CodesReceiver()
    sealed = seal_codes(CODES, receiver.public_key, SESSION, COMMITMENT)
    with pytest.raises(CodesDeliveryError):
        relay.open(sealed, SESSION, COMMITMENT)


@pytest.mark.parametrize(
    ("session", "commitment"),
    [(OTHER_SESSION, COMMITMENT), (SESSION, OTHER_COMMITMENT)],
    ids=["another session's", "from another secret than was granted"],
)
def test_codes_are_bound_to_session_and_commitment(session: str, commitment: str) -> None:
    receiver = CodesReceiver()
    sealed = seal_codes(CODES, receiver.public_key, session, commitment)
    with pytest.raises(CodesDeliveryError, match=SESSION):
        receiver.open(sealed, SESSION, COMMITMENT)


@pytest.mark.parametrize("place", [0, 31, 32, 500, -1])
def test_changed_codes_are_not_taken(place: int) -> None:
    receiver = CodesReceiver()
    sealed = bytearray(seal_codes(CODES, receiver.public_key, SESSION, COMMITMENT))
    sealed[place] ^= 1
    with pytest.raises(CodesDeliveryError):
        receiver.open(bytes(sealed), SESSION, COMMITMENT)


@pytest.mark.parametrize("sealed", [b"", bytes(10), bytes(48), bytes(100)])
def test_what_is_no_ciphertext_is_not_taken(sealed: bytes) -> None:
    with pytest.raises(CodesDeliveryError):
        CodesReceiver().open(sealed, SESSION, COMMITMENT)


@pytest.mark.parametrize("key", ["00" * 32, "01" + "00" * 31, "ab" * 31, "zz" * 32])
def test_nothing_is_encrypted_to_a_key_that_opens_for_everyone(key: str) -> None:
    with pytest.raises(EphemeralKeyError, match="X25519"):
        seal_codes(CODES, key, SESSION, COMMITMENT)


def test_only_the_session_key_s_request_is_one() -> None:
    key, stranger = SigningKey.generate(), SigningKey.generate()
    request = CodesRequest(session_id=SESSION, ephemeral_key=CodesReceiver().public_key)
    envelope = dsse.Envelope.from_bytes(sign_request(request, key))
    assert open_request(envelope, key.public) == request
    with pytest.raises(ThresholdError):
        open_request(envelope, stranger.public)
    statement = dsse.sign(envelope.payload, [key])
    with pytest.raises(PayloadTypeError):
        open_request(statement, key.public)


def test_a_request_has_one_form() -> None:
    key = SigningKey.generate()
    honest: dict[str, Any] = CodesRequest(session_id=SESSION, ephemeral_key="ab" * 32).as_json()
    for payload in (
        b"{}",
        to_bytes({**honest, "purpose": "more"}),
        to_bytes({**honest, "ephemeral_key": "AB" * 32}),
        to_bytes(honest).replace(b",", b", "),
    ):
        with pytest.raises(CodesRequestError):
            open_request(dsse.sign(payload, [key], REQUEST_TYPE), key.public)


def test_the_encryption_is_hpke_as_the_standard_has_it() -> None:
    """RFC 9180, sections 4.1, 5.1 and 5.2, step by step, from nothing but X25519, HMAC and AEAD."""

    def labelled_extract(suite: bytes, salt: bytes, label: bytes, material: bytes) -> bytes:
        return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + material, "sha256")

    def labelled_expand(suite: bytes, key: bytes, label: bytes, info: bytes, length: int) -> bytes:
        text = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
        return hmac.new(key, text + b"\x01", hashlib.sha256).digest()[:length]

    receiver = CodesReceiver()
    sealed = seal_codes(CODES, receiver.public_key, SESSION, COMMITMENT)
    encapsulated, ciphertext = sealed[:32], sealed[32:]
    kem = b"KEM" + (0x0020).to_bytes(2, "big")
    suite = b"HPKE" + b"".join(n.to_bytes(2, "big") for n in (0x0020, 0x0001, 0x0003))
    agreed = receiver._key.exchange(X25519PublicKey.from_public_bytes(encapsulated))
    context = encapsulated + bytes.fromhex(receiver.public_key)
    extracted = labelled_extract(kem, b"", b"eae_prk", agreed)
    shared = labelled_expand(kem, extracted, b"shared_secret", context, 32)
    info = b"auditkit/membership-codes/v1\0" + bytes.fromhex(COMMITMENT) + SESSION.encode()
    schedule = b"\0" + b"".join(
        labelled_extract(suite, b"", label, text)
        for label, text in ((b"psk_id_hash", b""), (b"info_hash", info))
    )
    secret = labelled_extract(suite, shared, b"secret", b"")
    key = labelled_expand(suite, secret, b"key", schedule, 32)
    nonce = labelled_expand(suite, secret, b"base_nonce", schedule, 12)
    assert ChaCha20Poly1305(key).decrypt(nonce, ciphertext, b"") == CODES
