"""What does a reader without the secret learn from T's outputs?

Codes are pseudorandom, so no single bit says anything. But a T that answers members with more
confidence than strangers gives them away to everyone. The reader measured here has no code; it sees
outputs, may query altered views, and, in the strongest form, knows the membership of one half of
the samples and learns from it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from auditkit.data.images import Pixels
from auditkit.mint.metrics import auc
from auditkit.studies.alterations import alter, moved
from auditkit.studies.code_rates import drawn, taught_codes
from auditkit.studies.errors import StudyDataError
from auditkit.studies.trial import Trial
from schemas.base import Count, Fraction, Schema

Outputs = NDArray[np.float64]
Values = NDArray[np.float64]

LEAST_NORM = 1e-12
# Samples of a side below which a half has nothing to learn from.
LEAST_SAMPLES = 4
STABILITY = "stability over views"
COMBINED = "logistic regression on all"


def norm(outputs: Outputs) -> Values:
    """Return ||s|| of each output, (N, b) -> (N,)."""
    return np.asarray(np.linalg.norm(outputs, axis=1))


def fourth_moment(outputs: Outputs) -> Values:
    """Return mean(s^4) / mean(s^2)^2: 1 for an output whose bits are all equally sure."""
    squares = np.square(outputs)
    spread = np.maximum(squares.mean(axis=1), LEAST_NORM)
    return np.asarray(np.square(squares).mean(axis=1) / np.square(spread))


def mean_absolute(outputs: Outputs) -> Values:
    """Return mean(|s|)."""
    return np.asarray(np.abs(outputs).mean(axis=1))


def largest_share(outputs: Outputs) -> Values:
    """Return the largest |bit| as a share of the sum of all."""
    sizes = np.abs(outputs)
    return np.asarray(sizes.max(axis=1) / np.maximum(sizes.sum(axis=1), LEAST_NORM))


STATISTICS: Mapping[str, Callable[[Outputs], Values]] = MappingProxyType(
    {
        "norm": norm,
        "fourth moment": fourth_moment,
        "mean absolute output": mean_absolute,
        "largest bit's share": largest_share,
    }
)


class KeylessStatistic(Schema):
    """How well one number tells told from fresh samples."""

    name: str
    auc: Fraction = Field(description="in the direction that separates better; regression: as is")


class KeylessReport(Schema):
    """All statistics of a reader without the secret."""

    statistics: tuple[KeylessStatistic, ...]
    told: Count
    fresh: Count

    @property
    def largest(self) -> KeylessStatistic:
        """The statistic that tells most."""
        return max(self.statistics, key=lambda statistic: statistic.auc)


def keyless(trial: Trial, *, limit: int | None = None, seed: int = 0) -> KeylessReport:
    """Measure told samples against fresh ones by T's outputs alone.

    Args:
        trial: one whose T says codes.
        limit: most samples of each side, drawn by the seed; None: all.
        seed: of that draw, and of the halves that the regression is fitted and tested on.

    Raises:
        NoCodesError: T says no codes.
        StudyDataError: too few samples.
    """
    taught_codes(trial)
    sides = []
    for images in (trial.images("told"), trial.images("test")):
        if len(images) < LEAST_SAMPLES:
            raise StudyDataError(
                f"expected at least {LEAST_SAMPLES} told and as many fresh samples, found "
                f"{len(images)} of one kind; enlarge it"
            )
        sides.append(_statistics(trial, images[drawn(len(images), limit, seed)]))
    told, fresh = sides
    single = [
        KeylessStatistic(name=name, auc=_either_way(auc(told[:, column], fresh[:, column])))
        for column, name in enumerate((*STATISTICS, STABILITY))
    ]
    combined = KeylessStatistic(name=COMBINED, auc=_held_out(told, fresh, seed))
    return KeylessReport(statistics=(*single, combined), told=len(told), fresh=len(fresh))


def stability(views: Iterable[Outputs]) -> Values:
    """Return how alike the normalised outputs of several views are, (N,): 1 if they are equal.

    It is the length of their mean, 1 minus their circular variance.
    """
    total, count = np.zeros(()), 0
    for view in views:
        total = total + view / np.maximum(norm(view)[:, None], LEAST_NORM)
        count += 1
    return norm(total / count)


def _statistics(trial: Trial, images: Pixels) -> NDArray[np.float64]:
    def outputs(view: Pixels) -> Outputs:
        return trial.ask(view).outputs.astype(np.float64)

    plain = outputs(images)
    columns = [statistic(plain) for statistic in STATISTICS.values()]
    return np.column_stack([*columns, stability(chain([plain], map(outputs, _altered(images))))])


def _altered(images: Pixels) -> Iterator[Pixels]:
    yield alter("flip", images, 0)
    for move in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        yield moved(images, np.full((len(images), 2), move))


def _either_way(area: float) -> float:
    return max(area, 1.0 - area)


def _held_out(told: NDArray[np.float64], fresh: NDArray[np.float64], seed: int) -> float:
    generator = np.random.default_rng(seed)
    told, fresh = generator.permutation(told), generator.permutation(fresh)
    half_told, half_fresh = len(told) // 2, len(fresh) // 2
    reader = make_pipeline(StandardScaler(), LogisticRegression())
    labels = np.repeat((1, 0), (half_told, half_fresh))
    reader.fit(np.concatenate([told[:half_told], fresh[:half_fresh]]), labels)
    return auc(
        reader.decision_function(told[half_told:]), reader.decision_function(fresh[half_fresh:])
    )
