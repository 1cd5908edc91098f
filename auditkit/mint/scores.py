"""The scores file: what T and M said about every sample of every cohort, as safetensors."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from auditkit.mint.errors import ScoresFileError
from schemas import CohortName

COHORT_NAMES: tuple[CohortName, ...] = get_args(CohortName)
PARTS = {"scores": np.float32, "task_losses": np.float32, "correct": np.bool_}

# Tensor names in the file: `score/<cohort>`, `loss/<cohort>`, `correct/<cohort>`, `own/<cohort>`.
PREFIXES = {"scores": "score/", "task_losses": "loss/", "correct": "correct/"}
OWN = "own/"


@dataclass(frozen=True)
class CohortScores:
    """One cohort, in the cohort's own order; arrays of one length.

    Raises:
        ScoresFileError: the lengths or types differ, or a number is not finite.

    """

    scores: NDArray[np.float32]  # T's membership logits, or z of the best code of any member
    task_losses: NDArray[np.float32]  # cross-entropy of M
    correct: NDArray[np.bool_]  # M's top class is the label
    own: NDArray[np.float32] | None = None  # z of each sample's own code, where it is known

    def __post_init__(self) -> None:
        parts = PARTS if self.own is None else {**PARTS, "own": np.float32}
        for part, kind in parts.items():
            values = getattr(self, part)
            if values.shape != (len(self.scores),) or values.dtype != kind:
                raise ScoresFileError(
                    f"expected {len(self.scores)} {part} of type {np.dtype(kind)}, found "
                    f"{values.dtype} of shape {values.shape}"
                )
            if not np.isfinite(values).all():
                raise ScoresFileError(f"expected finite {part}, found others")

    @property
    def size(self) -> int:
        """Number of samples."""
        return len(self.scores)


def write_scores(cohorts: Mapping[CohortName, CohortScores]) -> bytes:
    """Return the scores file; equal scores give equal bytes."""
    arrays = {
        PREFIXES[part] + name: np.ascontiguousarray(getattr(cohorts[name], part))
        for name in sorted(cohorts)
        for part in PARTS
    }
    owned = {
        OWN + name: np.ascontiguousarray(cohort.own)
        for name, cohort in sorted(cohorts.items())
        if cohort.own is not None
    }
    return save(arrays | owned)


def read_scores(data: bytes) -> dict[CohortName, CohortScores]:
    """Read what `write_scores` wrote; cohorts come in the order of the schema.

    Raises:
        ScoresFileError: not a whole safetensors file, a part is missing, unknown, or unfit.

    """
    try:
        arrays = load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise ScoresFileError(
            f"expected a whole scores file, found {len(data)} bytes that are not one ({error})"
        ) from error
    found = {key.partition("/")[2] for key in arrays}
    unknown = sorted(found - set(COHORT_NAMES))
    if unknown:
        raise ScoresFileError(f"expected the cohorts {COHORT_NAMES}, found also {unknown}")
    expected = {PREFIXES[part] + name for name in found for part in PARTS}
    if set(arrays) - {OWN + name for name in found} != expected:
        raise ScoresFileError(
            f"expected {', '.join(PARTS)} of every cohort; missing or unknown: "
            f"{', '.join(sorted(expected ^ set(arrays)))}"
        )
    return {
        name: CohortScores(
            **{part: arrays[PREFIXES[part] + name] for part in PARTS}, own=arrays.get(OWN + name)
        )
        for name in COHORT_NAMES
        if name in found
    }
