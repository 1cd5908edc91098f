"""RMIA: how often a sample is more surprisingly likely under M than a population sample.

Zarifzadeh et al., "Low-Cost High-Power Membership Inference Attacks" (ICML 2024). The pairwise
likelihood ratio LR(x, z) = (Pr(x|M) / Pr(x)) / (Pr(z|M) / Pr(z)) is compared with gamma over
population samples z, and the score is Pr over z of [LR(x, z) >= gamma] (section 2). Pr(x|M) is
the softmax probability of the label; Pr(x) is its mean over reference models.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import logsumexp

from auditkit.mint.attacks.errors import (
    AttackParameterError,
    AttackShapeError,
    TooFewReferencesError,
)
from auditkit.mint.attacks.references import Kind, Mask, checked_members, references_per_sample
from auditkit.mint.attacks.signals import (
    Scores,
    log_probabilities,
    reference_confidences,
    scaled_confidences,
)
from auditkit.mint.metrics import auc

# The paper's usual choice.
DEFAULT_GAMMA = 2.0
# Tried by `choose_rmia_a`; between neighbours of this grid the scores hardly differ.
CANDIDATES_FOR_A = tuple(step / 10 for step in range(11))


def rmia_online_scores(
    logits: ArrayLike,
    labels: ArrayLike,
    reference_logits: ArrayLike,
    reference_members: ArrayLike,
    *,
    population_logits: ArrayLike,
    population_labels: ArrayLike,
    population_reference_logits: ArrayLike,
    gamma: float = DEFAULT_GAMMA,
) -> Scores:
    """Return the share of population samples z with LR(x, z) >= gamma, (N,).

    Pr(x) = (mean over IN references + mean over OUT references) / 2, so that it does not depend
    on how many there are of each. Population samples are OUT of all models.

    Args:
        logits: (N, classes) of M.
        labels: (N,) true classes.
        reference_logits: (R, N, classes).
        reference_members: (R, N), true where that reference was trained on the sample.
        population_logits: (Z, classes) of M on samples that no model here was trained on.
        population_labels: (Z,) their classes.
        population_reference_logits: (R, Z, classes), the same references in the same order.
        gamma: how much more likely x must be than z, positive.

    Raises:
        MissingReferenceError: a sample has no IN or no OUT reference.
        TooFewReferencesError: there are no references.
        AttackParameterError: gamma is not positive.
        AttackShapeError, EmptySamplesError, LabelRangeError, NonFiniteLogitsError: see
            `signals.checked_logits`.

    """
    tested = log_probabilities(scaled_confidences(logits, labels))
    references = log_probabilities(reference_confidences(reference_logits, labels))
    members = checked_members(reference_members, len(references), tested.size)
    population, population_references = _population(
        population_logits, population_labels, population_reference_logits, len(references)
    )
    marginal = np.logaddexp(
        _log_mean(references, members, "IN"), _log_mean(references, ~members, "OUT")
    ) - np.log(2.0)
    population_marginal = _log_mean_everywhere(population_references)
    return _share_beaten(tested - marginal, population - population_marginal, gamma)


def rmia_offline_scores(
    logits: ArrayLike,
    labels: ArrayLike,
    reference_logits: ArrayLike,
    reference_members: ArrayLike,
    *,
    population_logits: ArrayLike,
    population_labels: ArrayLike,
    population_reference_logits: ArrayLike,
    a: float,
    gamma: float = DEFAULT_GAMMA,
) -> Scores:
    """Return the share of population samples z with LR(x, z) >= gamma, from OUT references, (N,).

    The missing mean over IN references is taken as a * Pr_OUT + (1 - a), so that
    Pr(x) = ((1 + a) Pr_OUT(x) + (1 - a)) / 2; the same for z.

    Args:
        logits: (N, classes) of M.
        labels: (N,) true classes.
        reference_logits: (R, N, classes).
        reference_members: (R, N), true where that reference was trained on the sample; such
            references are left out for it.
        population_logits: (Z, classes) of M on samples that no model here was trained on.
        population_labels: (Z,) their classes.
        population_reference_logits: (R, Z, classes), the same references in the same order.
        a: from 0 to 1, chosen with `choose_rmia_a` and never on the tested samples.
        gamma: how much more likely x must be than z, positive.

    Raises:
        MissingReferenceError: a sample has no OUT reference.
        TooFewReferencesError: there are no references.
        AttackParameterError: a or gamma lies outside its range.
        AttackShapeError, EmptySamplesError, LabelRangeError, NonFiniteLogitsError: see
            `signals.checked_logits`.

    """
    tested = log_probabilities(scaled_confidences(logits, labels))
    references = log_probabilities(reference_confidences(reference_logits, labels))
    members = checked_members(reference_members, len(references), tested.size)
    population, population_references = _population(
        population_logits, population_labels, population_reference_logits, len(references)
    )
    return _offline(
        tested,
        _log_mean(references, ~members, "OUT"),
        population=population,
        population_mean_out=_log_mean_everywhere(population_references),
        a=a,
        gamma=gamma,
    )


def choose_rmia_a(
    tuning_labels: ArrayLike,
    reference_logits: ArrayLike,
    reference_members: ArrayLike,
    *,
    population_labels: ArrayLike,
    population_reference_logits: ArrayLike,
    gamma: float = DEFAULT_GAMMA,
    candidates: Sequence[float] = CANDIDATES_FOR_A,
) -> float:
    """Return the `a` with which references are best attacked by means of the other references.

    Each reference plays M in turn: its members are known. Neither M nor a tested sample is looked
    at, so that the choice can't flatter the result; the tuning samples must be others than the
    tested ones. The smallest of equally good candidates wins.

    Args:
        tuning_labels: (V,) classes of samples on which the references were trained, or not.
        reference_logits: (R, V, classes), R >= 2.
        reference_members: (R, V), true where that reference was trained on the sample.
        population_labels: (Z,) classes of samples that no reference was trained on.
        population_reference_logits: (R, Z, classes), the same references in the same order.
        gamma: of the attack that `a` is for.
        candidates: values to try, each from 0 to 1.

    Raises:
        TooFewReferencesError: no reference has both members and others for which another
            reference is OUT.
        AttackParameterError: gamma or a candidate lies outside its range, or there is none.
        AttackShapeError, EmptySamplesError, LabelRangeError, NonFiniteLogitsError: see
            `signals.checked_logits`.

    """
    if not candidates:
        raise AttackParameterError("expected at least one candidate for a, found none")
    signals = log_probabilities(reference_confidences(reference_logits, tuning_labels))
    members = checked_members(reference_members, *signals.shape)
    population = log_probabilities(
        reference_confidences(population_reference_logits, population_labels)
    )
    if len(population) != len(signals):
        raise AttackShapeError(
            f"expected logits of the same {len(signals)} references on the population, found "
            f"{len(population)}"
        )
    totals = np.zeros(len(candidates))
    attacked = 0
    for target in range(len(signals)):
        others = np.arange(len(signals)) != target
        usable = ~members[others].all(axis=0)
        truth = members[target, usable]
        if truth.all() or not truth.any():
            continue
        attacked += 1
        mean_out = _log_mean(signals[others][:, usable], ~members[others][:, usable], "OUT")
        population_mean_out = _log_mean_everywhere(population[others])
        for index, a in enumerate(candidates):
            scores = _offline(
                signals[target, usable],
                mean_out,
                population=population[target],
                population_mean_out=population_mean_out,
                a=a,
                gamma=gamma,
            )
            totals[index] += auc(scores[truth], scores[~truth])
    if not attacked:
        raise TooFewReferencesError(
            "expected a reference with both members and others among the samples that another "
            "reference was not trained on, found none; train at least two references on "
            "different parts of the tuning samples"
        )
    return float(candidates[int(np.argmax(totals))])


def _population(
    logits: ArrayLike, labels: ArrayLike, reference_logits: ArrayLike, references: int
) -> tuple[Scores, Scores]:
    """Return log Pr(z|M), (Z,), and log Pr(z|reference), (R, Z)."""
    signals = log_probabilities(scaled_confidences(logits, labels))
    under_references = log_probabilities(reference_confidences(reference_logits, labels))
    if len(under_references) != references:
        raise AttackShapeError(
            f"expected logits of the same {references} references on the population, found "
            f"{len(under_references)}"
        )
    return signals, under_references


def _log_mean(log_values: Scores, mask: Mask, kind: Kind) -> Scores:
    """Return the log of the mean of exp(log_values), (R, N), where `mask` selects, (N,)."""
    counts = references_per_sample(mask, kind)
    total = logsumexp(np.where(mask, log_values, -np.inf), axis=0)
    return np.asarray(total - np.log(counts), dtype=np.float64)


def _log_mean_everywhere(log_values: Scores) -> Scores:
    """Return the log of the mean of exp(log_values), (R, Z), over all references, (Z,)."""
    return _log_mean(log_values, np.ones(log_values.shape, dtype=np.bool_), "OUT")


def _offline(
    tested: Scores,
    mean_out: Scores,
    *,
    population: Scores,
    population_mean_out: Scores,
    a: float,
    gamma: float,
) -> Scores:
    """Score log Pr(x|M), (N,), given the log of its mean over OUT references; the same for z."""
    if not 0.0 <= a <= 1.0:
        raise AttackParameterError(f"expected a from 0 to 1, found {a}")
    return _share_beaten(
        tested - _log_offline_marginal(mean_out, a),
        population - _log_offline_marginal(population_mean_out, a),
        gamma,
    )


def _log_offline_marginal(log_mean_out: Scores, a: float) -> Scores:
    with np.errstate(divide="ignore"):  # a = 1 adds nothing: log 0
        constant = np.log((1.0 - a) / 2.0)
    marginal = np.logaddexp(np.log((1.0 + a) / 2.0) + log_mean_out, constant)
    return np.asarray(marginal, dtype=np.float64)


def _share_beaten(log_ratios: Scores, population_log_ratios: Scores, gamma: float) -> Scores:
    """Return for every x the share of z with ratio(x) / ratio(z) >= gamma, (N,)."""
    if not (np.isfinite(gamma) and gamma > 0.0):
        raise AttackParameterError(f"expected a positive gamma, found {gamma}")
    beaten = np.searchsorted(
        np.sort(population_log_ratios), log_ratios - np.log(gamma), side="right"
    )
    return np.asarray(beaten / population_log_ratios.size, dtype=np.float64)
