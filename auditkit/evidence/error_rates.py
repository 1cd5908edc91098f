"""Do the error rates that a log declares follow from the scores that it commits to?

A report prints the rates of the last evaluation. Here they are computed once more from the sealed
scores file, with nothing but ranks and counts. Evaluations during the training rest on a part of
the samples and on scores that nobody keeps, so they stay the developer's own word.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors
from scipy.special import betaincinv

from auditkit.evidence.canonical import sha256_hex
from auditkit.evidence.document_checks import Documents
from auditkit.evidence.errors import EvidenceError
from auditkit.evidence.findings import Result, Skipped
from auditkit.evidence.membership_codes import own_code_p_value
from schemas import (
    CohortMetrics,
    CohortName,
    EvaluationRecord,
    RateEstimate,
    SealRecord,
)
from schemas.evaluation import PROVABLE_RATES

TAIL = 0.025  # of the two-sided 95 % interval
RATE_TOLERANCE = 1e-6  # absolute; interval ends come out of an iteration
LOSS_TOLERANCE = 1e-3  # relative; a float32 mean depends on the order of its terms

Numbers = NDArray[np.float32]


class ErrorRatesError(EvidenceError):
    """Declared error rates do not follow from the committed scores."""


@dataclass(frozen=True)
class _Cohort:
    """T's score, M's loss and correctness, and with codes the own-code score; each `(samples,)`."""

    scores: Numbers
    losses: Numbers
    correct: NDArray[np.bool_]
    own: Numbers | None


def error_rates(
    documents: Documents, evaluation: EvaluationRecord | None, seal: SealRecord | None
) -> Result:
    """The last evaluation in the log is what the committed scores give.

    Args:
        documents: with the scores in their bundle.
        evaluation: the last one in the log.
        seal: the log's seal.
    """
    data = documents.bundle.scores
    if seal is None or data is None:
        return Skipped("no sealed model and scores were submitted")
    if sha256_hex(data) != seal.scores_digest:
        return Skipped("the submitted scores are not the committed ones")
    if evaluation is None or evaluation.step != seal.step:
        raise ErrorRatesError("the log has no evaluation of the model that was sealed")
    sizes = _sizes(documents)
    declared = [metrics.cohort for metrics in evaluation.cohorts]
    if sorted(declared) != sorted(sizes):
        raise ErrorRatesError(
            f"the last evaluation is of {', '.join(declared) or 'no cohort'}; expected each of "
            f"{', '.join(sizes)} once"
        )
    codes = documents.request.config.mint.evidence == "codes"
    cohorts = _read_cohorts(data, sizes, codes=codes)
    for metrics in evaluation.cohorts:
        _check_cohort(metrics, cohorts)
    _check_same_rates(evaluation)
    return f"rates of {len(cohorts)} cohorts computed again from {sum(sizes.values())} scores"


def _sizes(documents: Documents) -> dict[CohortName, int]:
    split = documents.grant.split
    sizes: dict[CohortName, int] = {
        "told": split.told,
        "silent": split.silent,
        "told_only": split.told_only,
        "external": split.external,
        "calibration": split.calibration,
        "test": documents.request.test.size,
    }
    return {cohort: size for cohort, size in sizes.items() if size}


def _read_cohorts(
    data: bytes, sizes: Mapping[CohortName, int], *, codes: bool
) -> dict[CohortName, _Cohort]:
    try:
        tensors = load_safetensors(data)
        cohorts = {
            name: _Cohort(
                tensors[f"score/{name}"],
                tensors[f"loss/{name}"],
                tensors[f"correct/{name}"],
                tensors[f"own/{name}"] if codes else None,
            )
            for name in sizes
        }
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise ErrorRatesError(f"the scores file cannot be read: {error}") from error
    for name, cohort in cohorts.items():
        for values, kind in (
            (cohort.scores, np.float32),
            (cohort.losses, np.float32),
            (cohort.correct, np.bool_),
            *([] if cohort.own is None else [(cohort.own, np.float32)]),
        ):
            expected = (sizes[name],)
            if values.shape != expected or values.dtype != kind or not np.isfinite(values).all():
                raise ErrorRatesError(
                    f"expected {sizes[name]} finite values of type {np.dtype(kind)} for the cohort "
                    f"{name}, found {values.dtype} of shape {values.shape}"
                )
    return cohorts


def _check_cohort(metrics: CohortMetrics, cohorts: Mapping[CohortName, _Cohort]) -> None:
    name, cohort = metrics.cohort, cohorts[metrics.cohort]
    size = len(cohort.scores)
    _compare(name, "size", metrics.size, size, 0.0)
    _check_rate(name, "accuracy of M", metrics.task_accuracy, cohort.correct)
    p_values = _p_values(cohort.scores, cohorts["calibration"].scores)
    for flagged in metrics.flagged:
        rate = flagged.false_positive_rate
        _check_rate(name, f"share flagged at {rate:g}", flagged.flagged, p_values <= rate)
    _check_own_code(metrics, cohort)
    if (metrics.auc is None) != (name == "test"):
        raise ErrorRatesError(f"cohort {name}: every cohort but the test itself must have its AUC")
    if metrics.auc is not None:
        expected = _area_under_curve(cohort.scores, cohorts["test"].scores)
        _compare(name, "AUC", metrics.auc, expected, RATE_TOLERANCE)
    loss = float(cohort.losses.mean(dtype=np.float64))
    _compare(name, "loss of M", metrics.task_loss, loss, LOSS_TOLERANCE * max(1.0, abs(loss)))


def _check_own_code(metrics: CohortMetrics, cohort: _Cohort) -> None:
    expected = () if cohort.own is None else PROVABLE_RATES
    found = tuple(flagged.false_positive_rate for flagged in metrics.own_code)
    if found != expected:
        raise ErrorRatesError(
            f"cohort {metrics.cohort}: own codes are measured at the rates {found}, expected were "
            f"{expected}"
        )
    if cohort.own is None:
        return
    bounds = np.array([own_code_p_value(float(score)) for score in cohort.own])
    for flagged in metrics.own_code:
        rate = flagged.false_positive_rate
        what = f"share whose own code is found at {rate:g}"
        _check_rate(metrics.cohort, what, flagged.flagged, bounds <= rate)


def _check_same_rates(evaluation: EvaluationRecord) -> None:
    listed = {
        tuple(flagged.false_positive_rate for flagged in metrics.flagged)
        for metrics in evaluation.cohorts
        if metrics.cohort != "calibration"
    }
    if len(listed) > 1:
        raise ErrorRatesError(
            "the cohorts are not measured at the same false-positive rates: one was left out "
            "where it did not suit"
        )


def _check_rate(name: str, what: str, found: RateEstimate, flags: NDArray[np.bool_]) -> None:
    hits, trials = int(flags.sum()), len(flags)
    low, high = exact_interval(hits, trials)
    _compare(name, f"count behind the {what}", found.successes, hits, 0.0)
    _compare(name, f"number behind the {what}", found.trials, trials, 0.0)
    _compare(name, what, found.value, hits / trials, RATE_TOLERANCE)
    _compare(name, f"lower end of the {what}", found.low, low, RATE_TOLERANCE)
    _compare(name, f"upper end of the {what}", found.high, high, RATE_TOLERANCE)


def exact_interval(hits: int, trials: int) -> tuple[float, float]:
    """Return the exact 95 % interval of a share (Clopper and Pearson, Biometrika 1934)."""
    # The ends are quantiles of beta distributions.
    low = float(betaincinv(hits, trials - hits + 1, TAIL)) if hits else 0.0
    high = float(betaincinv(hits + 1, trials - hits, 1.0 - TAIL)) if hits < trials else 1.0
    return low, high


def _compare(name: str, what: str, found: float, expected: float, tolerance: float) -> None:
    if not math.isclose(found, expected, rel_tol=0.0, abs_tol=tolerance):
        raise ErrorRatesError(
            f"cohort {name}: the log declares {found:g} as {what}, the committed scores give "
            f"{expected:g}"
        )


def _p_values(scores: Numbers, calibration: Numbers) -> NDArray[np.float64]:
    at_least = len(calibration) - np.searchsorted(np.sort(calibration), scores, side="left")
    return np.asarray((1.0 + at_least) / (len(calibration) + 1.0), dtype=np.float64)


def _area_under_curve(scores: Numbers, others: Numbers) -> float:
    # Mann and Whitney, 1947: the share of pairs that are in order; ties count half.
    ordered = np.sort(others)
    below = np.searchsorted(ordered, scores, side="left")
    not_above = np.searchsorted(ordered, scores, side="right")
    return float((below + not_above).sum() / (2.0 * len(scores) * len(others)))
