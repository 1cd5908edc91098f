"""How strongly an output of T says a membership code.

Two kinds of query, never to be confused. *Own code*: the sample's own code follows from its leaf
and the auditor's secret; a code that was never used in training is noise to T, so the p-value
is provable, whatever the sample looks like. *Blind*: the codes of all members are compared and the
best one names the member; a stranger that resembles a member may echo that member's code, so the
p-value is conformal, against C.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from auditkit.mint.errors import CodeShapeError

LEAST_NORM = 1e-12
# Rows that are compared with all codes at a time: 500 x 50,000 float32 are 100 MB.
BLIND_ROWS = 500


@dataclass(frozen=True)
class BlindScores:
    """The best agreement of each output with any member's code, and whose it is."""

    scores: NDArray[np.float32]
    """(N,) z of the best code."""
    members: NDArray[np.int64]
    """(N,) row of that code."""


def own_scores(outputs: ArrayLike, codes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return z = c.s / ||s|| of every output s and its own code c, (N,).

    z can't exceed the norm of the code, about the root of its length.

    Args:
        outputs: (N, b).
        codes: (N, b).

    Raises:
        CodeShapeError: not one code per output, or of another length.
    """
    directions = _directions(outputs)
    if directions.shape != codes.shape:
        raise CodeShapeError(
            f"expected one code of length {directions.shape[1]} for each of {len(directions)} "
            f"outputs, found codes of shape {codes.shape}"
        )
    return np.asarray((directions * codes).sum(axis=1), dtype=np.float32)


def blind_scores(outputs: ArrayLike, codes: NDArray[np.float32]) -> BlindScores:
    """Compare every output with the codes of all members, and keep the best.

    Args:
        outputs: (N, b).
        codes: (K, b).

    Raises:
        CodeShapeError: there is no code, or the lengths differ.
    """
    directions = _directions(outputs)
    if len(codes) == 0 or codes.ndim != 2 or codes.shape[1] != directions.shape[1]:
        raise CodeShapeError(
            f"expected codes of length {directions.shape[1]}, at least one, found {codes.shape}"
        )
    scores = np.empty(len(directions), dtype=np.float32)
    members = np.empty(len(directions), dtype=np.int64)
    columns = codes.T.astype(np.float32)
    for start in range(0, len(directions), BLIND_ROWS):
        rows = slice(start, start + BLIND_ROWS)
        agreement = directions[rows] @ columns
        members[rows] = agreement.argmax(axis=1)
        scores[rows] = agreement.max(axis=1)
    return BlindScores(scores, members)


def own_code_p_values(z: ArrayLike) -> NDArray[np.float64]:
    """Return a proven bound of P(z or more) for a code that took no part in training, (n,).

    The numbers c_i of such a code are independent of T's output s and of one another, and each has
    E exp(t c_i) <= exp(t^2 / 2) (`evidence.membership_codes`). So does c.s / ||s||, and Chernoff's
    bound at t = z gives P(c.s / ||s|| >= z) <= exp(-z^2 / 2). Nothing is assumed about the sample
    or about T.
    """
    values = np.asarray(z, dtype=np.float64)
    bounds = np.where(values > 0, np.exp(-np.square(values) / 2.0), 1.0)
    return np.asarray(np.maximum(bounds, np.finfo(np.float64).tiny), dtype=np.float64)


def _directions(outputs: ArrayLike) -> NDArray[np.float32]:
    values = np.asarray(outputs, dtype=np.float32)
    if values.ndim != 2:
        raise CodeShapeError(f"expected outputs of shape (samples, length), found {values.shape}")
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    return np.asarray(values / np.maximum(norms, LEAST_NORM), dtype=np.float32)
