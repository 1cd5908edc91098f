"""All randomness of a session, derived from the grant's nonce and from nothing else.

Each use has its own label in HKDF (RFC 5869); longer streams are ChaCha20 key stream (RFC 8439)
under the derived key. Both sides run this code: the agent to train, the verifier to check that
the log follows. A third party can rebuild it from two standards and `docs/protocol.md`.
"""

import hashlib
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

from schemas import OptimiserConfig, SplitSizes

Indices = NDArray[np.int64]

LABEL_PREFIX = "auditkit/v1/"
LEAF_BYTES = 32
BATCH_PREFIX = b"auditkit/batch/v1\0"
WARM_UP_FRACTION = 0.2  # share of the steps over which `one_cycle` rises to its peak


def derive_key(nonce: bytes, label: str) -> bytes:
    """Return 32 bytes that depend on the nonce and the label (HKDF-SHA256, RFC 5869)."""
    info = (LABEL_PREFIX + label).encode()
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(nonce)


def key_stream(nonce: bytes, label: str, length: int) -> bytes:
    """Return `length` bytes that depend on the nonce and the label (ChaCha20, RFC 8439)."""
    # RFC 8439, section 2.4, with a zero nonce and counter: every key is used for one stream only.
    cipher = Cipher(ChaCha20(derive_key(nonce, label), bytes(16)), mode=None)
    return cipher.encryptor().update(bytes(length))


def permutation(nonce: bytes, label: str, size: int) -> Indices:
    """Return a permutation of `range(size)`: the stable order of one 64-bit word per index."""
    words = np.frombuffer(key_stream(nonce, label, 8 * size), dtype="<u8")
    return np.argsort(words, kind="stable").astype(np.int64)


def initialisation_seed(nonce: bytes) -> int:
    """Return the seed of the initial weights, a non-negative 63-bit integer."""
    return int.from_bytes(derive_key(nonce, "initial-weights")[:8], "big") >> 1


def generator_seed(nonce: bytes) -> int:
    """Return the seed of the training process's random generators (dropout)."""
    return int.from_bytes(derive_key(nonce, "generators")[:8], "big") >> 1


def augmentation_words(nonce: bytes, epoch: int, pool_size: int) -> NDArray[np.uint32]:
    """Return one 32-bit word per sample of the pool, shape `(pool_size,)`, for one epoch."""
    stream = key_stream(nonce, f"augmentation/{epoch}", 4 * pool_size)
    return np.frombuffer(stream, dtype="<u4")


@dataclass(frozen=True)
class Split:
    """Pool indices of each cohort, each sorted."""

    told: Indices
    silent: Indices
    told_only: Indices
    external: Indices
    calibration: Indices

    @property
    def size(self) -> int:
        """Number of samples in the pool."""
        return sum(len(cohort) for cohort in vars(self).values())

    @property
    def trained(self) -> Indices:
        """D: what M trains on, told and silent."""
        return np.concatenate([self.told, self.silent])


def derive_split(nonce: bytes, sizes: SplitSizes) -> Split:
    """Cut one permutation of the pool into the five cohorts.

    No sample can be steered into a cohort, and C is exchangeable with D: what makes conformal
    p-values valid.
    """
    order = permutation(nonce, "split", sizes.pool)
    lengths = (sizes.told, sizes.silent, sizes.told_only, sizes.external, sizes.calibration)
    cuts = np.cumsum(lengths)[:-1]
    return Split(*(np.sort(part) for part in np.split(order, cuts)))


@dataclass(frozen=True)
class StepPlan:
    """Which samples one step sees. Rows of a batch are told, silent, told_only, external."""

    step: int
    epoch: int
    told: Indices
    silent: Indices
    told_only: Indices
    external: Indices

    @cached_property
    def rows(self) -> Indices:
        """Pool indices of the batch, in row order."""
        return np.concatenate([self.told, self.silent, self.told_only, self.external])

    @cached_property
    def seen(self) -> Indices:
        """Pool indices of the rows that T sees, in row order: all but the silent ones."""
        return np.concatenate([self.told, self.told_only, self.external])

    @property
    def trained(self) -> int:
        """Number of leading rows that M trains on."""
        return len(self.told) + len(self.silent)


@dataclass(frozen=True)
class Schedule:
    """Batch contents and order of a whole training.

    In each epoch every sample of D is seen once by M, and every sample told to T is told once;
    E is an endless stream of permutations, `external_batch_size` at a time.
    """

    nonce: bytes
    split: Split
    batch_size: int
    external_batch_size: int
    epochs: int

    @property
    def steps_per_epoch(self) -> int:
        """Steps in each epoch."""
        return math.ceil((len(self.split.told) + len(self.split.silent)) / self.batch_size)

    @property
    def total_steps(self) -> int:
        """Steps of the whole training. Steps count from 1."""
        return self.epochs * self.steps_per_epoch

    def epoch_of(self, step: int) -> int:
        """Epoch, from 0, that a step (from 1) belongs to."""
        return (step - 1) // self.steps_per_epoch

    def epoch(self, epoch: int) -> list[StepPlan]:
        """Return the steps of one epoch (from 0)."""
        count = self.steps_per_epoch
        trained = self._shuffled(self.split.trained, f"trained/{epoch}")
        told_only = self._shuffled(self.split.told_only, f"told-only/{epoch}")
        external = self._external(epoch * count * self.external_batch_size, count)
        silent = np.zeros(int(self.split.trained.max()) + 1, dtype=bool)
        silent[self.split.silent] = True
        plans = []
        parts = zip(
            np.array_split(trained, count),
            np.array_split(told_only, count),
            np.array_split(external, count),
            strict=True,
        )
        for offset, (members, only, outside) in enumerate(parts):
            hidden = silent[members]
            plans.append(
                StepPlan(
                    step=epoch * count + offset + 1,
                    epoch=epoch,
                    told=members[~hidden],
                    silent=members[hidden],
                    told_only=only,
                    external=outside,
                )
            )
        return plans

    def epoch_rows(self, epoch: int) -> tuple[Indices, Indices]:
        """Return the pool indices of one epoch (from 0), batch after batch, and their cohorts.

        Returns:
            The rows of all batches in their order, shape `(samples shown,)`, and how many of each
            batch are told, silent, told_only and external, shape `(steps, 4)`.
        """
        count = self.steps_per_epoch
        trained = self._shuffled(self.split.trained, f"trained/{epoch}")
        told_only = self._shuffled(self.split.told_only, f"told-only/{epoch}")
        external = self._external(epoch * count * self.external_batch_size, count)
        silent = np.zeros(int(self.split.trained.max()) + 1, dtype=np.int64)
        silent[self.split.silent] = 1
        # Each sample's batch and cohort; within both, samples keep their order.
        places = np.concatenate(
            [
                4 * _parts(len(trained), count) + silent[trained],
                4 * _parts(len(told_only), count) + 2,
                4 * _parts(len(external), count) + 3,
            ]
        )
        rows = np.concatenate([trained, told_only, external])
        sizes = np.bincount(places, minlength=4 * count).reshape(count, 4)
        # Narrow numbers are sorted by digits, several times faster than wide ones by comparison.
        narrow = places.astype(np.min_scalar_type(4 * count))
        return rows[np.argsort(narrow, kind="stable")], sizes

    def steps(self, after: int = 0) -> Iterator[StepPlan]:
        """Yield the steps that follow step `after`, to the end of the training."""
        for epoch in range(self.epoch_of(after + 1), self.epochs):
            for plan in self.epoch(epoch):
                if plan.step > after:
                    yield plan

    def _shuffled(self, indices: Indices, label: str) -> Indices:
        return indices[permutation(self.nonce, label, len(indices))]

    def _external(self, start: int, steps: int) -> Indices:
        needed = steps * self.external_batch_size
        size = len(self.split.external)
        if needed == 0 or size == 0:
            return np.empty(0, dtype=np.int64)
        first, last = start // size, (start + needed - 1) // size
        rounds = [
            self._shuffled(self.split.external, f"external/{k}") for k in range(first, last + 1)
        ]
        offset = start - first * size
        return np.concatenate(rounds)[offset : offset + needed]


def _parts(length: int, count: int) -> Indices:
    """Return for each of `length` items which of `count` nearly equal parts it is in."""
    whole, more = divmod(length, count)
    return np.repeat(np.arange(count), np.where(np.arange(count) < more, whole + 1, whole))


def batch_digest(leaves: bytes, plan: StepPlan) -> str:
    """Digest of one batch: SHA-256 over the cohort sizes and the leaves in row order.

    Args:
        leaves: manifest leaves of the whole pool, `pool_size * 32` bytes.
        plan: the step.
    """
    table = np.frombuffer(leaves, dtype=np.uint8).reshape(-1, LEAF_BYTES)
    sizes = (len(plan.told), len(plan.silent), len(plan.told_only), len(plan.external))
    digest = hashlib.sha256(BATCH_PREFIX + struct.pack(">4I", *sizes))
    digest.update(table[plan.rows].tobytes())
    return digest.hexdigest()


def batch_digests(leaves: bytes, schedule: Schedule, epoch: int) -> list[str]:
    """Digest of every batch of one epoch: what `batch_digest` gives for each step, all at once.

    Args:
        leaves: manifest leaves of the whole pool, `pool_size * 32` bytes.
        schedule: of the training.
        epoch: from 0.
    """
    table = np.frombuffer(leaves, dtype=np.uint8).reshape(-1, LEAF_BYTES)
    rows, sizes = schedule.epoch_rows(epoch)
    digests = []
    first = 0
    for counts, last in zip(sizes.astype(">u4"), np.cumsum(sizes.sum(axis=1)), strict=True):
        digest = hashlib.sha256(BATCH_PREFIX + counts.tobytes())
        digest.update(table.take(rows[first:last], axis=0).data)
        digests.append(digest.hexdigest())
        first = last
    return digests


def learning_rate(optimiser: OptimiserConfig, step: int, total_steps: int) -> float:
    """Learning rate of one step (from 1): constant, or a linear rise and a cosine fall."""
    if optimiser.schedule == "constant":
        return optimiser.learning_rate
    rise = max(1, round(WARM_UP_FRACTION * total_steps))
    if step <= rise:
        return optimiser.learning_rate * step / rise
    phase = (step - rise) / (total_steps - rise + 1)
    return optimiser.learning_rate * 0.5 * (1.0 + math.cos(math.pi * phase))
