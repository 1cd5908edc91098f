"""Batches in which some samples of D are shown more often than others, for laboratory trials.

A supervised training shows every sample of D once an epoch, and the verifier checks it. What that
rule is worth can only be studied where it is broken on purpose.
"""

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from auditkit.evidence.derivation import Indices, Split, StepPlan, permutation
from auditkit.studies.errors import ExposureError


def exposure_groups(nonce: bytes, split: Split, count: int) -> tuple[Indices, ...]:
    """Part the told samples of D into `count` groups of equal size, give or take one, at random.

    Returns:
        Pool indices of each group, sorted. The groups are exchangeable: the nonce draws them.

    Raises:
        ExposureError: there are fewer samples than groups, or no group.

    """
    if not 1 <= count <= len(split.told):
        raise ExposureError(
            f"expected between 1 and {len(split.told)} groups of D, found {count}; use a larger D"
        )
    order = split.told[permutation(nonce, "exposure-groups", len(split.told))]
    return tuple(np.sort(group) for group in np.array_split(order, count))


def shows_in_epoch(
    exposures: NDArray[np.int64], phases: NDArray[np.int64], epoch: int, epochs: int
) -> NDArray[np.int64]:
    """Return how often each sample is shown in one epoch, (N,), so that the epochs add up.

    The shows of a sample lie as evenly over the training as whole numbers allow; `phases` in
    [0, epochs) decide where they begin, so that no group is always the last one to be seen.

    Args:
        exposures: (N,) shows of each sample in the whole training.
        phases: (N,) whole numbers in [0, epochs).
        epoch: from 0.
        epochs: of the whole training.

    """
    before = (epoch * exposures + phases) // epochs
    after = ((epoch + 1) * exposures + phases) // epochs
    return np.asarray(after - before, dtype=np.int64)


def exposed_steps(
    nonce: bytes, split: Split, exposures: Sequence[int], epochs: int, batch_size: int
) -> tuple[StepPlan, ...]:
    """Return every step of a training of M alone whose groups are shown unequally often.

    Group g of `exposure_groups(nonce, split, len(exposures))` is shown `exposures[g]` times in
    all. Everything follows from the nonce. Neither T nor E takes part.

    Raises:
        ExposureError: a sample would never be shown, or a size is no positive number.

    """
    if not exposures or min(exposures) < 1 or epochs < 1 or batch_size < 1:
        raise ExposureError(
            "expected exposures, epochs and a batch size of at least 1, found exposures "
            f"{tuple(exposures)}, {epochs} epochs and batches of {batch_size}"
        )
    groups = exposure_groups(nonce, split, len(exposures))
    samples = np.concatenate(groups)
    shown = np.repeat(np.array(exposures, dtype=np.int64), [len(group) for group in groups])
    phases = permutation(nonce, "exposure-phases", len(samples)) % epochs
    counter = itertools.count(1)
    return tuple(
        _plan(next(counter), epoch, batch)
        for epoch in range(epochs)
        for batch in _batches(
            nonce,
            np.repeat(samples, shows_in_epoch(shown, phases, epoch, epochs)),
            epoch,
            batch_size,
        )
    )


def _batches(nonce: bytes, rows: Indices, epoch: int, batch_size: int) -> list[Indices]:
    if len(rows) == 0:
        return []
    shuffled = rows[permutation(nonce, f"exposed/{epoch}", len(rows))]
    return np.array_split(shuffled, -(-len(rows) // batch_size))


def _plan(step: int, epoch: int, told: Indices) -> StepPlan:
    none = np.empty(0, dtype=np.int64)
    return StepPlan(step=step, epoch=epoch, told=told, silent=none, told_only=none, external=none)
