"""Keyed membership codes: what the model learns to say of a member, secret to all but the auditor.

Each member has a pseudorandom code of b numbers that follows from the auditor's secret and from the
member's leaf in the keyed manifest. T learns, from members only, to say a member's code. Whoever
has no secret cannot tell a code from noise, and a sample that was never told has a code that never
took part in the training. That makes its p-value provable, whatever the sample looks like.

The numbers are as good as normal: outputs that say codes of +1 and -1 would give themselves away to
readers without the secret by their shape, outputs that say normal codes look like any others.
"""

import hashlib
import hmac
import math
import sys
from dataclasses import dataclass
from statistics import NormalDist
from typing import Self

import numpy as np
from numpy.typing import NDArray

from auditkit.evidence.derivation import LEAF_BYTES, Indices, Split, key_stream
from auditkit.evidence.errors import EvidenceError, TreeIndexError
from schemas import SessionGrant, SplitSizes, TrainingConfig

SECRET_BYTES = 32
BLOCK_BYTES = 32  # of SHA-256
MOST_LENGTH = 255 * BLOCK_BYTES  # what HKDF can expand (RFC 5869, section 2.3)

COMMITMENT_DOMAIN = b"auditkit/code-secret/v1\0"
MEMBER_DOMAIN = b"auditkit/membership-code/v1\0"

LEVELS = 256  # of one number of a code
LEAST_P_VALUE = sys.float_info.min  # a bound may be rounded up, and must not be zero

Codes = NDArray[np.float32]
"""Codes, shape (samples, length)."""


def _levels() -> Codes:
    normal = NormalDist()
    ends = [normal.inv_cdf(step / LEVELS) for step in range(1, LEVELS)]
    densities = np.asarray([0.0, *(normal.pdf(end) for end in ends), 0.0])
    means: Codes = (LEVELS * (densities[:-1] - densities[1:])).astype(np.float32)
    return means


LEVEL_VALUES = _levels()
"""What the bytes of a code stand for: the means of a standard normal variable in 256 equally likely
intervals. A mean is never more spread than what it is the mean of, so that such a number x, taken
at random, is symmetric and has E exp(t x) <= exp(t^2 / 2) for every t (Jensen's inequality)."""


class CodeSecretError(EvidenceError):
    """A secret is not of the length that secrets have, or is not the one committed to."""


class CodeCommitmentError(EvidenceError):
    """The grant commits to a code secret though none is used, or to none though one is."""


class CodeSizeError(EvidenceError):
    """A code of such a length cannot be made."""


class PackedCodesError(EvidenceError):
    """Packed codes are not as many as the session's members need."""


def secret_commitment(secret: bytes) -> str:
    """Return what a grant says about a secret: SHA-256 over a domain and its 32 bytes.

    Raises:
        CodeSecretError: the secret has another length.
    """
    _check_secret(secret)
    return hashlib.sha256(COMMITMENT_DOMAIN + secret).hexdigest()


def check_secret(secret: bytes, commitment: str) -> None:
    """Check that a secret is the one that a grant commits to.

    Raises:
        CodeSecretError: it is another one.
    """
    found = secret_commitment(secret)
    if found != commitment:
        raise CodeSecretError(
            f"the grant commits to the code secret {commitment}, this one gives {found}; codes "
            "that come from it belong to no member of this session"
        )


def check_committed(config: TrainingConfig, grant: SessionGrant) -> None:
    """Check that the grant commits to a secret if, and only if, T is to learn codes.

    Raises:
        CodeCommitmentError: it does not.
    """
    if (config.mint.evidence == "codes") != (grant.code_commitment is not None):
        raise CodeCommitmentError(
            f"mint.evidence is {config.mint.evidence!r}, and the grant commits to "
            f"{'no secret' if grant.code_commitment is None else 'a secret'} of codes"
        )


def membership_codes(secret: bytes, leaves: bytes, indices: Indices, length: int) -> Codes:
    """Return the codes of members, shape (len(indices), length).

    HMAC-SHA256 of the leaf under the secret is the pseudorandom key that HKDF-Expand (RFC 5869,
    section 2.3, without info) stretches to `length` bytes; byte k is the k-th of `LEVEL_VALUES`.

    Args:
        secret: the session's, 32 bytes.
        leaves: manifest leaves of the whole pool, 32 bytes each.
        indices: of the samples in the pool.
        length: of a code.

    Raises:
        CodeSecretError, CodeSizeError: secret or length are not as they must be.
        TreeIndexError: a sample that the pool does not have.
    """
    _check_secret(secret)
    if not 1 <= length <= MOST_LENGTH:
        raise CodeSizeError(f"expected codes of length 1 to {MOST_LENGTH}, found {length}")
    size = len(leaves) // LEAF_BYTES
    outside = [int(index) for index in indices if not 0 <= index < size]
    if outside:
        raise TreeIndexError(f"the pool has {size} samples, found index {outside[0]}")
    blocks = math.ceil(length / BLOCK_BYTES)
    stream = b"".join(
        _expand(
            hmac.digest(secret, MEMBER_DOMAIN + leaves[start : start + LEAF_BYTES], "sha256"),
            blocks,
        )
        for start in (np.asarray(indices, dtype=np.int64) * LEAF_BYTES).tolist()
    )
    rows = np.frombuffer(stream, dtype=np.uint8).reshape(-1, blocks * BLOCK_BYTES)
    return LEVEL_VALUES[rows[:, :length]]


def stand_in_codes(nonce: bytes, cohort: str, size: int, length: int) -> Codes:
    """Return codes for the samples of a cohort that nobody was told, shape (size, length).

    Nobody is taught them, as nobody is taught the true codes of such samples, which only the
    auditor knows. So they show how often a code is found that took no part in the training.
    """
    stream = key_stream(nonce, f"stand-in-codes/{cohort}", size * length)
    return LEVEL_VALUES[np.frombuffer(stream, dtype=np.uint8).reshape(size, length)]


def own_code_p_value(z: float) -> float:
    """Bound the chance that an unused code agrees so well: exp(-z^2 / 2) (Chernoff's bound).

    Args:
        z: code times output, summed, over the norm of the output.
    """
    return max(math.exp(-z * z / 2.0), LEAST_P_VALUE) if z > 0 else 1.0


@dataclass(frozen=True)
class SessionCodes:
    """All codes that one training needs; the rows of each cohort follow the split."""

    told: Codes
    told_only: Codes

    @classmethod
    def derive(cls, secret: bytes, leaves: bytes, split: Split, length: int) -> Self:
        """Compute the codes from the secret, as only the auditor can.

        Raises:
            CodeSecretError, CodeSizeError, TreeIndexError: see `membership_codes`.
        """
        return cls(
            membership_codes(secret, leaves, split.told, length),
            membership_codes(secret, leaves, split.told_only, length),
        )

    @property
    def members(self) -> Codes:
        """All codes that T was told are members': told, then told only."""
        return np.concatenate([self.told, self.told_only])

    def rows(self, split: Split) -> Indices:
        """Return for each sample of the pool its row in `members`, (pool,); -1: it has none."""
        told = np.concatenate([split.told, split.told_only])
        rows = np.full(split.size, -1, dtype=np.int64)
        rows[told] = np.arange(len(told))
        return rows

    def packed(self) -> bytes:
        """Return the rows of told and told only, one byte per number."""
        return np.searchsorted(LEVEL_VALUES, self.members).astype(np.uint8).tobytes()

    @classmethod
    def unpack(cls, data: bytes, sizes: SplitSizes, length: int) -> Self:
        """Read what `packed` returned.

        Raises:
            PackedCodesError: it has another length than the session's codes.
        """
        counts = (sizes.told, sizes.told_only)
        if len(data) != sum(counts) * length:
            raise PackedCodesError(
                f"expected {sum(counts)} codes of {length} bytes each, found {len(data)} bytes; "
                "the auditor's server runs another version"
            )
        codes = LEVEL_VALUES[np.frombuffer(data, dtype=np.uint8).reshape(-1, length)]
        return cls(*np.split(codes, [sizes.told]))


def _expand(key: bytes, blocks: int) -> bytes:
    # One call per block instead of an object per sample: a pool has tens of thousands.
    block = stretched = b""
    for counter in range(1, blocks + 1):
        block = hmac.digest(key, block + bytes([counter]), "sha256")
        stretched += block
    return stretched


def _check_secret(secret: bytes) -> None:
    if len(secret) != SECRET_BYTES:
        raise CodeSecretError(
            f"expected a code secret of {SECRET_BYTES} bytes, found {len(secret)}"
        )
