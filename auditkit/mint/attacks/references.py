"""Which reference models were trained on which samples, and averages over either kind."""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from auditkit.mint.attacks.errors import AttackShapeError, MissingReferenceError
from auditkit.mint.attacks.signals import Scores

Kind = Literal["IN", "OUT"]
Mask = NDArray[np.bool_]


def checked_members(reference_members: ArrayLike, references: int, samples: int) -> Mask:
    """Return the membership table (R, N): true where that reference was trained on the sample.

    Raises:
        AttackShapeError: it has another shape, or is not of truth values.

    """
    members = np.asarray(reference_members)
    if members.shape != (references, samples) or members.dtype != np.bool_:
        raise AttackShapeError(
            f"expected truth values of shape ({references}, {samples}) that tell which reference "
            f"was trained on which sample, found {members.dtype} of shape {members.shape}"
        )
    return members


def references_per_sample(mask: Mask, kind: Kind) -> NDArray[np.int64]:
    """Count the reference models that `mask` (R, N) selects for every sample, (N,).

    Raises:
        MissingReferenceError: a sample has none.

    """
    counts = mask.sum(axis=0)
    without = np.flatnonzero(counts == 0)
    if without.size:
        raise MissingReferenceError(
            f"expected at least one {kind} reference model for every sample, found none for "
            f"{without.size} of {counts.size} (the first is sample {without[0]}); train more "
            "references, or leave these samples out"
        )
    return np.asarray(counts, dtype=np.int64)


def mean_over(values: Scores, mask: Mask, kind: Kind) -> Scores:
    """Return the mean of (R, N) values over the references that `mask` selects, (N,).

    Raises:
        MissingReferenceError: a sample has none.

    """
    counts = references_per_sample(mask, kind)
    return np.asarray(values.sum(axis=0, where=mask) / counts, dtype=np.float64)
