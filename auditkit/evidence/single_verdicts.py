"""A verdict on its own: what can be checked of it without the evidence that it rests on."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from auditkit.evidence import dsse, statements
from auditkit.evidence.trust_history import TrustHistory
from auditkit.evidence.verdict_checks import (
    VerdictError,
    check_bound,
    check_outcome,
    check_rank,
)
from schemas import MembershipVerdict

Calibrations = Mapping[str, NDArray[np.floating]]
"""Scores of C, by the digest of the scores file that they are in."""

RANK_TOLERANCE = 1e-6  # of a rank, which is a whole number


def check_verdict(
    data: bytes, history: TrustHistory, calibrations: Calibrations = MappingProxyType({})
) -> MembershipVerdict:
    """Return a verdict that is signed, and whose answer follows from its own numbers.

    That the numbers follow from the model, and the model from an honest training, is for the
    checks of the bundle (`auditkit verify`).

    Args:
        data: the verdict in its DSSE envelope.
        history: the auditor's trust root.
        calibrations: to compute calibrated p-values again; without that of the verdict's own
            model, its p-value is believed if it is one that a rank can give.

    Raises:
        EnvelopeFormatError, PayloadTypeError, StatementError: no signed verdict.
        TrustRootError, ThresholdError, RevokedKeyError: see `TrustHistory.verify_statement`.
        VerdictError: the p-value or the outcome does not follow.

    """
    verdict = history.verify_statement(
        "verdict",
        dsse.Envelope.from_bytes(data),
        statements.VERDICT_PREDICATE,
        MembershipVerdict,
        dated=lambda verdict: verdict.issued_at,
    )
    match verdict.evidence:
        case "declared":
            check_bound(verdict)
        case "calibrated":
            _check_calibrated(verdict, calibrations.get(verdict.scores_digest))
        case other:
            raise VerdictError(
                f"verdict {verdict.verdict_id} rests on {other!r} evidence, which no answer about "
                "a single sample can"
            )
    check_outcome(verdict)
    return verdict


def _check_calibrated(verdict: MembershipVerdict, scores: NDArray[np.floating] | None) -> None:
    if scores is not None:
        check_rank(verdict, scores)
        return
    rank = verdict.p_value * (verdict.calibration_size + 1)
    if verdict.calibration_size == 0 or abs(rank - round(rank)) > RANK_TOLERANCE:
        raise VerdictError(
            f"verdict {verdict.verdict_id} says p = {verdict.p_value:g}, which no rank among "
            f"{verdict.calibration_size} calibration samples gives"
        )
