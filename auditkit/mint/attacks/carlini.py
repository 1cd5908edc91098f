"""LiRA: how likely the label's confidence is, had the sample been in the training or not.

Carlini et al., "Membership Inference Attacks From First Principles" (S&P 2022): Algorithm 1
(online) and Equation 4 (offline), with the paper's logit scaling, its variance shared by all
samples where references are few, and several queries per sample.
"""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm

from auditkit.mint.attacks.errors import (
    AttackShapeError,
    IdenticalReferencesError,
    TooFewReferencesError,
)
from auditkit.mint.attacks.references import Kind, Mask, checked_members, references_per_sample
from auditkit.mint.attacks.signals import (
    SAMPLE_DIMENSIONS,
    Scores,
    reference_confidences,
    scaled_confidences,
)

Variance = Literal["automatic", "global", "per_sample"]

# The paper shares the variance below 64 references, of which half saw a sample.
REFERENCES_FOR_OWN_VARIANCE = 32
# One value has no spread.
REFERENCES_FOR_ANY_VARIANCE = 2


def lira_online_scores(
    logits: ArrayLike,
    labels: ArrayLike,
    reference_logits: ArrayLike,
    reference_members: ArrayLike,
    variance: Variance = "automatic",
) -> Scores:
    """Return log N(phi; mu_in, sigma_in^2) - log N(phi; mu_out, sigma_out^2), (N,).

    Algorithm 1, in nats; with several queries, the mean over them.

    Args:
        logits: (N, classes) of M, or (Q, N, classes) for Q augmented queries per sample.
        labels: (N,) true classes.
        reference_logits: (R, N, classes) or (R, Q, N, classes), the same queries.
        reference_members: (R, N), true where that reference was trained on the sample.
        variance: one for all samples ("global"), one for each ("per_sample"), or the latter
            where every sample has 32 references of either kind ("automatic").

    Raises:
        MissingReferenceError: a sample has no IN or no OUT reference.
        TooFewReferencesError: there are too few of a kind to estimate a variance.
        IdenticalReferencesError: references do not differ.
        AttackShapeError, EmptySamplesError, LabelRangeError, NonFiniteLogitsError: see
            `signals.checked_logits`.

    """
    tested, references, members = _signals(logits, labels, reference_logits, reference_members)
    fewest = min(
        references_per_sample(members, "IN").min(),
        references_per_sample(~members, "OUT").min(),
    )
    shared = _is_shared(variance, int(fewest))
    mean_in, deviation_in = _fit(references, members, "IN", shared=shared)
    mean_out, deviation_out = _fit(references, ~members, "OUT", shared=shared)
    ratio = norm.logpdf(tested, mean_in, deviation_in) - norm.logpdf(
        tested, mean_out, deviation_out
    )
    return np.asarray(ratio.mean(axis=0), dtype=np.float64)


def lira_offline_scores(
    logits: ArrayLike,
    labels: ArrayLike,
    reference_logits: ArrayLike,
    reference_members: ArrayLike,
    variance: Variance = "automatic",
) -> Scores:
    """Return -log Pr[Z > phi] with Z ~ N(mu_out, sigma_out^2), (N,).

    Equation 4 (which is one minus this probability) on a scale that still tells the surest
    members apart, in nats; with several queries, the mean over them. One-sided: a confidence far
    below that of the references speaks against membership.

    Args:
        logits: (N, classes) of M, or (Q, N, classes) for Q augmented queries per sample.
        labels: (N,) true classes.
        reference_logits: (R, N, classes) or (R, Q, N, classes), the same queries.
        reference_members: (R, N), true where that reference was trained on the sample; such
            references are left out for it.
        variance: see `lira_online_scores`.

    Raises:
        MissingReferenceError: a sample has no OUT reference.
        TooFewReferencesError: there are too few to estimate a variance.
        IdenticalReferencesError: references do not differ.
        AttackShapeError, EmptySamplesError, LabelRangeError, NonFiniteLogitsError: see
            `signals.checked_logits`.

    """
    tested, references, members = _signals(logits, labels, reference_logits, reference_members)
    fewest = references_per_sample(~members, "OUT").min()
    mean, deviation = _fit(references, ~members, "OUT", shared=_is_shared(variance, int(fewest)))
    return np.asarray(-norm.logsf(tested, mean, deviation).mean(axis=0), dtype=np.float64)


def _signals(
    logits: ArrayLike, labels: ArrayLike, reference_logits: ArrayLike, reference_members: ArrayLike
) -> tuple[Scores, Scores, Mask]:
    """Return phi of M (Q, N) and of the references (R, Q, N), and the membership (R, N)."""
    dimensions = max(SAMPLE_DIMENSIONS, min(np.ndim(logits), SAMPLE_DIMENSIONS + 1))
    tested = np.atleast_2d(scaled_confidences(logits, labels, dimensions))
    references = reference_confidences(reference_logits, labels, dimensions)
    if dimensions == SAMPLE_DIMENSIONS:
        references = references[:, None]
    if references.shape[1] != len(tested):
        raise AttackShapeError(
            f"expected {len(tested)} queries per sample of every reference, as of M, found "
            f"{references.shape[1]}"
        )
    return tested, references, checked_members(reference_members, len(references), tested.shape[-1])


def _is_shared(variance: Variance, fewest: int) -> bool:
    if variance == "automatic":
        return fewest < REFERENCES_FOR_OWN_VARIANCE
    return variance == "global"


def _fit(
    references: Scores, mask: Mask, kind: Kind, *, shared: bool
) -> tuple[Scores, NDArray[np.float64]]:
    """Fit a Gaussian to the (R, Q, N) signals that `mask` selects: mean and deviation, (Q, N).

    Maximum likelihood; a shared deviation is that of the distances from each sample's own mean.
    """
    counts = references_per_sample(mask, kind)
    selected = np.broadcast_to(mask[:, None, :], references.shape)
    mean = references.sum(axis=0, where=selected) / counts
    squares = np.square(references - mean).sum(axis=0, where=selected)
    enough = counts >= REFERENCES_FOR_ANY_VARIANCE
    if not (enough.any() if shared else enough.all()):
        raise TooFewReferencesError(
            f"expected at least {REFERENCES_FOR_ANY_VARIANCE} {kind} reference models for "
            f"{'some' if shared else 'every'} sample to estimate a variance, found "
            f"{counts.max() if shared else counts.min()}; train more"
            f"{'' if shared else ', or use the global variance'}"
        )
    spread = squares.sum() / (counts.sum() * len(mean)) if shared else squares / counts
    deviation = np.broadcast_to(np.sqrt(spread), mean.shape)
    if not deviation.all():
        raise IdenticalReferencesError(
            f"expected {kind} reference models that differ, found samples on which they agree to "
            "the last bit; are they copies of one model?"
        )
    return mean, deviation
