"""A key that is trusted can be trusted: nobody else's signature fits under it."""

import hashlib
import json
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from auditkit.evidence.errors import EvidenceError, KeyFormatError, SignatureError, WeakKeyError
from auditkit.evidence.keys import (
    CURVE_CONSTANT,
    FIELD_PRIME,
    GROUP_ORDER,
    SIGN_BIT,
    SMALL_ORDER_ENCODINGS,
    PublicKey,
    SigningKey,
)

VECTORS = json.loads((Path(__file__).parent / "vectors" / "ed25519.json").read_text())
IDENTITY = (1).to_bytes(32, "little")


def key_from_seed(seed):
    return SigningKey(Ed25519PrivateKey.from_private_bytes(seed))


@pytest.fixture
def key():
    return key_from_seed(bytes(range(32)))


@pytest.mark.parametrize("case", VECTORS, ids=lambda case: case["message"] or "empty")
def test_signatures_are_those_of_rfc_8032(case):
    key = key_from_seed(bytes.fromhex(case["seed"]))
    message, signature = bytes.fromhex(case["message"]), bytes.fromhex(case["signature"])
    assert key.public.hex == case["public"]
    assert key.sign(message) == signature
    PublicKey.from_hex(case["public"]).verify(signature, message)


def test_a_key_names_itself_by_its_digest(key):
    assert key.public.keyid == hashlib.sha256(key.public.raw).hexdigest()
    assert PublicKey.from_hex(key.public.hex) == key.public
    assert len({key.public, PublicKey(key.public.raw)}) == 1


def test_every_new_key_is_another_one():
    assert SigningKey.generate().public != SigningKey.generate().public


def test_a_private_key_does_not_show_itself(key):
    assert bytes(range(32)).hex() not in repr(key)
    assert key.public.hex in repr(key)


@pytest.mark.parametrize("passphrase", [None, b"correct horse"])
def test_a_key_survives_its_file(key, passphrase):
    pem = key.to_pem(passphrase)
    assert (b"ENCRYPTED" in pem) == (passphrase is not None)
    restored = SigningKey.from_pem(pem, passphrase)
    assert restored.sign(b"order") == key.sign(b"order")


def other_kind_of_key():
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


UNREADABLE_PEM = {
    "nothing": lambda key: (b"", None),
    "not PEM": lambda key: (b"not a key", None),
    "a cut-off file": lambda key: (key.to_pem()[:60], None),
    "another kind of key": lambda key: (other_kind_of_key(), None),
    "a missing passphrase": lambda key: (key.to_pem(b"secret"), None),
    "a wrong passphrase": lambda key: (key.to_pem(b"secret"), b"guess"),
    "a superfluous passphrase": lambda key: (key.to_pem(), b"secret"),
    "a huge file": lambda key: (key.to_pem() + b"\n" * 20_000, None),
}


@pytest.mark.parametrize("make", UNREADABLE_PEM.values(), ids=UNREADABLE_PEM.keys())
def test_other_key_files_are_refused(key, make):
    with pytest.raises(KeyFormatError):
        SigningKey.from_pem(*make(key))


MALFORMED_HEX = {
    "too short": "ab" * 31,
    "too long": "ab" * 33,
    "upper case": "AB" * 32,
    "not hexadecimal": "xy" * 32,
    "a newline at the end": "ab" * 32 + "\n",
    "digits of another script": "\N{ARABIC-INDIC DIGIT ZERO}" * 64,
    "nothing": "",
}


@pytest.mark.parametrize("text", MALFORMED_HEX.values(), ids=MALFORMED_HEX.keys())
def test_other_spellings_of_a_key_are_refused(text):
    with pytest.raises(KeyFormatError):
        PublicKey.from_hex(text)


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_key_has_32_bytes(length):
    with pytest.raises(KeyFormatError):
        PublicKey(bytes(length))


# Points of small order, derived here from the curve equation to check the table against.


def inverse(number):
    return pow(number, FIELD_PRIME - 2, FIELD_PRIME)


def add(first, second):
    (x1, y1), (x2, y2) = first, second
    product = CURVE_CONSTANT * x1 * x2 * y1 * y2
    x = (x1 * y2 + x2 * y1) * inverse(1 + product)
    y = (y1 * y2 + x1 * x2) * inverse(1 - product)
    return x % FIELD_PRIME, y % FIELD_PRIME


def decode_leniently(encoding):
    """Decode as ref10 does: y reduced modulo p, any sign bit for x = 0."""
    number = int.from_bytes(encoding, "little")
    y = number % SIGN_BIT % FIELD_PRIME
    square = (y * y - 1) * inverse(CURVE_CONSTANT * y * y + 1) % FIELD_PRIME
    x = pow(square, (FIELD_PRIME + 3) // 8, FIELD_PRIME)
    if (x * x - square) % FIELD_PRIME:
        x = x * pow(2, (FIELD_PRIME - 1) // 4, FIELD_PRIME) % FIELD_PRIME
    assert (x * x - square) % FIELD_PRIME == 0, "on the curve"
    if x % 2 != number // SIGN_BIT:
        x = -x % FIELD_PRIME
    return x, y


def every_encoding(point):
    """All byte strings that a lenient decoder reads as this point."""
    x, y = point
    signs = (0, 1) if x == 0 else (x % 2,)
    values = [value for value in (y, y + FIELD_PRIME) if value < SIGN_BIT]
    return {(value + sign * SIGN_BIT).to_bytes(32, "little") for value in values for sign in signs}


def test_the_table_holds_every_encoding_of_the_eight_points_of_small_order():
    generator = decode_leniently(
        next(encoding for encoding, text in SMALL_ORDER_ENCODINGS.items() if text == "order 8")
    )
    points = [(0, 1)]
    for _ in range(7):
        points.append(add(points[-1], generator))
    assert len(set(points)) == 8
    assert add(points[-1], generator) == (0, 1)
    expected = set().union(*(every_encoding(point) for point in points))
    assert expected == set(SMALL_ORDER_ENCODINGS)


@pytest.mark.parametrize(
    "encoding",
    [pytest.param(item, id=text) for item, text in SMALL_ORDER_ENCODINGS.items()],
)
def test_a_key_of_small_order_is_refused(encoding, key):
    with pytest.raises(WeakKeyError):
        PublicKey(encoding)
    with pytest.raises(WeakKeyError):
        PublicKey.from_hex(encoding.hex())
    with pytest.raises(SignatureError, match="small order"):
        key.public.verify(encoding + bytes(32), b"any message")


@pytest.mark.parametrize("excess", range(2, 19))
def test_a_second_encoding_of_a_point_is_refused(excess):
    for sign in (0, SIGN_BIT):
        with pytest.raises(WeakKeyError):
            PublicKey((FIELD_PRIME + excess + sign).to_bytes(32, "little"))


def test_bytes_that_are_no_point_are_refused():
    with pytest.raises(KeyFormatError, match="not a point"):
        PublicKey((2).to_bytes(32, "little"))


def test_a_signature_with_a_small_point_fits_the_equation_and_is_refused(key):
    """With R = identity, S = k a satisfies S B = R + k A: what lenient verifiers accept."""
    seed_hash = hashlib.sha512(bytes(range(32))).digest()
    scalar = int.from_bytes(seed_hash[:32], "little") & ~7 & (SIGN_BIT - 1) | (1 << 254)
    message = b"checkpoint"
    k = int.from_bytes(hashlib.sha512(IDENTITY + key.public.raw + message).digest(), "little")
    forged = IDENTITY + (k * scalar % GROUP_ORDER).to_bytes(32, "little")
    Ed25519PrivateKey.from_private_bytes(bytes(range(32))).public_key().verify(forged, message)
    with pytest.raises(SignatureError, match="small order"):
        key.public.verify(forged, message)


def test_a_signature_cannot_be_spelled_twice(key):
    signature = key.sign(b"checkpoint")
    scalar = int.from_bytes(signature[32:], "little")
    second = signature[:32] + (scalar + GROUP_ORDER).to_bytes(32, "little")
    with pytest.raises(SignatureError, match="group order"):
        key.public.verify(second, b"checkpoint")


@pytest.mark.parametrize("length", [0, 63, 65])
def test_a_signature_has_64_bytes(key, length):
    with pytest.raises(SignatureError):
        key.public.verify((key.sign(b"x") + b"\0")[:length], b"x")


@given(position=st.integers(0, 511), message=st.binary(max_size=40))
@settings(deadline=None, derandomize=True)
def test_one_changed_bit_breaks_a_signature(position, message):
    key = key_from_seed(bytes(range(32)))
    signature = bytearray(key.sign(message))
    signature[position // 8] ^= 1 << position % 8
    with pytest.raises(SignatureError):
        key.public.verify(bytes(signature), message)
    with pytest.raises(SignatureError):
        key.public.verify(key.sign(message), message + b"!")


@given(st.binary(min_size=32, max_size=32))
@settings(deadline=None, derandomize=True)
def test_any_bytes_are_a_key_or_a_typed_error(raw):
    with suppress(EvidenceError):
        assert PublicKey(raw).raw == raw
