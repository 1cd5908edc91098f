"""Membership codes, against the same made by hand with HMAC, and what they must not give away."""

import hashlib
import hmac
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditkit.evidence.derivation import derive_split
from auditkit.evidence.errors import TreeIndexError
from auditkit.evidence.membership_codes import (
    LEVEL_VALUES,
    MOST_LENGTH,
    CodeSecretError,
    CodeSizeError,
    PackedCodesError,
    SessionCodes,
    check_secret,
    membership_codes,
    own_code_p_value,
    secret_commitment,
    stand_in_codes,
)
from schemas import SplitSizes

SECRET = bytes(range(32, 64))
NONCE = bytes(range(32))
LEAVES = b"".join(hashlib.sha256(f"sample {i}".encode()).digest() for i in range(40))
ALL = np.arange(40)
SIZES = SplitSizes(told=12, silent=4, told_only=6, external=10, calibration=8)
SPLIT = derive_split(NONCE, SIZES)


def by_hand(index: int, length: int) -> bytes:
    """HMAC, then HKDF-Expand as RFC 5869 writes it down."""
    leaf = LEAVES[32 * index : 32 * index + 32]
    domain = b"auditkit/membership-code/v1\0"
    key = hmac.new(SECRET, domain + leaf, hashlib.sha256).digest()
    stream = block = b""
    counter = 1
    while len(stream) < length:
        block = hmac.new(key, block + bytes([counter]), hashlib.sha256).digest()
        stream += block
        counter += 1
    return stream[:length]


@pytest.mark.parametrize("length", [1, 32, 33, 256, 4096])
def test_codes_are_those_made_by_hand(length: int) -> None:
    indices = np.array([0, 39, 7])
    members = membership_codes(SECRET, LEAVES, indices, length)
    assert members.dtype == np.float32
    for code, index in zip(members, indices, strict=True):
        assert np.array_equal(code, LEVEL_VALUES[list(by_hand(index, length))])


def test_the_numbers_of_a_code_are_means_of_normal_variables() -> None:
    drawn = np.sort(np.random.default_rng(5).standard_normal(256 * 4000))
    means = drawn.reshape(256, 4000).mean(axis=1)
    assert np.allclose(LEVEL_VALUES, means, atol=0.02)
    assert (np.diff(LEVEL_VALUES) > 0).all()
    assert np.allclose(LEVEL_VALUES, -LEVEL_VALUES[::-1], atol=1e-6)


@given(st.floats(-8, 8))
def test_no_number_of_a_code_is_more_spread_than_a_normal_one(t: float) -> None:
    moment = np.exp(t * LEVEL_VALUES.astype(np.float64)).mean()
    assert moment <= math.exp(t * t / 2) * (1 + 1e-6)  # what the bound of own codes rests on


def test_the_commitment_is_the_one_made_by_hand() -> None:
    by_hand = hashlib.sha256(b"auditkit/code-secret/v1\0" + SECRET).hexdigest()
    assert secret_commitment(SECRET) == by_hand
    check_secret(SECRET, by_hand)
    with pytest.raises(CodeSecretError, match="commits to"):
        check_secret(bytes(32), by_hand)


def test_codes_look_like_noise_and_have_nothing_in_common() -> None:
    leaves = np.random.default_rng(3).bytes(32 * 400)
    indices = np.arange(400)
    members = membership_codes(SECRET, leaves, indices, 512).astype(np.float64)
    others = {
        "another secret": membership_codes(bytes(32), leaves, indices, 512),
        "stand-ins": stand_in_codes(NONCE, "silent", 400, 512),
        "neighbours": np.roll(members, 1, axis=0),
    }
    assert abs(members.mean()) < 0.01
    for name, codes in others.items():
        agreement = (members * codes).sum(axis=1) / math.sqrt(512)
        assert np.abs(agreement).max() < 5.0, name  # of 400 normal numbers
        assert 0.8 < agreement.std() < 1.2, name


@pytest.mark.parametrize("secret", [b"", bytes(31), bytes(33)])
def test_a_secret_has_32_bytes(secret: bytes) -> None:
    with pytest.raises(CodeSecretError, match="32 bytes"):
        membership_codes(secret, LEAVES, ALL, 64)
    with pytest.raises(CodeSecretError, match="32 bytes"):
        secret_commitment(secret)


@pytest.mark.parametrize("length", [0, -8, MOST_LENGTH + 1])
def test_codes_that_hkdf_cannot_make_are_refused(length: int) -> None:
    with pytest.raises(CodeSizeError, match="length"):
        membership_codes(SECRET, LEAVES, ALL, length)


@pytest.mark.parametrize("index", [-1, 40])
def test_samples_that_the_pool_lacks_have_no_code(index: int) -> None:
    with pytest.raises(TreeIndexError, match=str(index)):
        membership_codes(SECRET, LEAVES, np.array([0, index]), 64)


def test_a_session_s_codes_survive_packing() -> None:
    codes = SessionCodes.derive(SECRET, LEAVES, SPLIT, 64)
    again = SessionCodes.unpack(codes.packed(), SIZES, 64)
    for cohort in ("told", "told_only"):
        assert np.array_equal(getattr(codes, cohort), getattr(again, cohort))
    assert len(codes.packed()) == 18 * 64
    for data in (codes.packed()[:-1], codes.packed() + b"\0", b""):
        with pytest.raises(PackedCodesError, match="bytes"):
            SessionCodes.unpack(data, SIZES, 64)


def test_no_code_of_a_sample_that_nobody_is_told_is_handed_out() -> None:
    codes = SessionCodes.derive(SECRET, LEAVES, SPLIT, 64)
    rows = codes.rows(SPLIT)
    told = np.concatenate([SPLIT.told, SPLIT.told_only])
    assert np.array_equal(codes.members[rows[told]], membership_codes(SECRET, LEAVES, told, 64))
    without = [SPLIT.silent, SPLIT.calibration, SPLIT.external]
    assert (rows[np.concatenate(without)] == -1).all()
    handed_out = {row.tobytes() for row in codes.members}
    kept_back = np.concatenate([SPLIT.silent, SPLIT.calibration, SPLIT.external])
    for row in membership_codes(SECRET, LEAVES, kept_back, 64):
        assert row.tobytes() not in handed_out


@given(st.floats(-50, 300))
def test_the_bound_is_a_p_value(z: float) -> None:
    assert 0 < own_code_p_value(z) <= 1
    assert own_code_p_value(z) >= own_code_p_value(z + 1)


def test_the_bound_holds_for_any_output() -> None:
    generator = np.random.default_rng(5)
    outputs = np.concatenate([generator.normal(size=(8, 64)), np.eye(8, 64), np.ones((1, 64))])
    codes = generator.choice([-1, 1], size=(20_000, 64))
    z = codes @ (outputs / np.linalg.norm(outputs, axis=1, keepdims=True)).T
    for threshold in (0.5, 1.0, 2.0, 3.0):
        assert (z >= threshold).mean(axis=0).max() <= own_code_p_value(threshold) * 1.05
