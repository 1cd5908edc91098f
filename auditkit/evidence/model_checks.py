"""Checks of what was handed over after training: weights, description, scores, verdicts."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors

from auditkit.evidence import statements, trust
from auditkit.evidence.canonical import sha256_hex, to_bytes
from auditkit.evidence.derivation import initialisation_seed
from auditkit.evidence.document_checks import Documents, open_envelope
from auditkit.evidence.errors import EvidenceError
from auditkit.evidence.findings import Result, Skipped
from schemas import (
    AssuranceLevel,
    MembershipVerdict,
    ModelDescription,
    SealRecord,
    SessionGrant,
    SessionRequest,
)

InitialWeights = Callable[[SessionRequest, int], str]
"""Rebuilds M+ from a request and a seed; returns the SHA-256 of its weights file, or raises
ValueError when there is no such model."""

CALIBRATION_TENSOR = "score/calibration"
CLOCK_GRAIN_SECONDS = 1  # cosignature times are whole seconds

NOT_SEALED = "the log has no seal"
NOT_SUBMITTED = "no model was submitted; run `auditkit submit`"


class InitialWeightsError(EvidenceError):
    """Training did not start from the weights that the nonce prescribes."""


class SealedWeightsError(EvidenceError):
    """The submitted model is not the sealed one."""


class CalibrationScoresError(EvidenceError):
    """The submitted scores are not the committed ones."""


class VerdictError(EvidenceError):
    """A verdict is not bound to this model and calibration, or does not follow from them."""


def initial_weights(
    documents: Documents, declared: str | None, rebuild: InitialWeights | None
) -> Result:
    """The initial state in the log has the weights that the nonce gives."""
    if declared is None:
        return Skipped("the log commits to no initial state")
    if documents.request.config.model.architecture.startswith("custom:"):
        return Skipped("the architecture is the developer's own code; only a replay can check it")
    if rebuild is None:
        return Skipped("the initial weights were not rebuilt in this verification")
    seed = initialisation_seed(bytes.fromhex(documents.grant.nonce))
    try:
        found = rebuild(documents.request, seed)
    except ValueError as error:
        raise InitialWeightsError(str(error)) from error
    if found != declared:
        raise InitialWeightsError(
            f"training started from weights {declared}, the nonce gives {found}"
        )
    return f"weights {declared[:16]}… rebuilt from the nonce"


def sealed_weights(documents: Documents, seal: SealRecord | None) -> Result:
    """Weights and description hash to what the log was sealed with."""
    bundle = documents.bundle
    if seal is None:
        return Skipped(NOT_SEALED)
    if bundle.weights is None or bundle.description is None:
        return Skipped(NOT_SUBMITTED)
    for what, data, expected in (
        ("weights", bundle.weights, seal.weights_digest),
        ("description", bundle.description, seal.description_digest),
    ):
        if sha256_hex(data) != expected:
            raise SealedWeightsError(
                f"the submitted {what} hash to {sha256_hex(data)}, sealed was {expected}"
            )
    description = _parse_description(bundle.description)
    config = documents.request.config
    for what, found, wanted in (
        ("session", description.session_id, documents.grant.session_id),
        ("weights", description.weights_digest, seal.weights_digest),
        ("model", description.model, config.model),
        ("taps", description.taps, config.taps),
        ("MINT Model", description.mint, config.mint),
    ):
        if found != wanted:
            raise SealedWeightsError(
                f"the model's description names {what} {found}, granted and sealed was {wanted}"
            )
    return f"weights {seal.weights_digest[:16]}… and their description"


def calibration_scores(documents: Documents, seal: SealRecord | None) -> Result:
    """The scores file hashes to what was sealed, and holds one score per sample of C."""
    scores = documents.bundle.scores
    if seal is None:
        return Skipped(NOT_SEALED)
    if scores is None:
        return Skipped(NOT_SUBMITTED)
    if sha256_hex(scores) != seal.scores_digest:
        raise CalibrationScoresError(
            f"the submitted scores hash to {sha256_hex(scores)}, sealed were {seal.scores_digest}"
        )
    found = len(_read_calibration(scores))
    if found != documents.grant.split.calibration:
        raise CalibrationScoresError(
            f"{found} calibration scores, the grant's C has {documents.grant.split.calibration}"
        )
    return f"{found} scores of C as committed"


def verdicts(
    documents: Documents, seal: SealRecord | None, sealed_at: int | None, level: AssuranceLevel
) -> Result:
    """Every verdict is signed, about this model, issued after the seal, and follows from C.

    `level` is what the evidence reaches without the verdicts.
    """
    bundle = documents.bundle
    if not bundle.verdicts:
        return Skipped("nothing has been asked yet")
    if seal is None or bundle.scores is None:
        raise VerdictError("there are verdicts, and no sealed model that they could be about")
    if sealed_at is None:
        return Skipped("no cosignature tells when the model was sealed")
    calibration = _read_calibration(bundle.scores)
    for data in bundle.verdicts:
        verdict = trust.verify_statement(
            documents.trust_root,
            "verdict",
            open_envelope(data),
            statements.VERDICT_PREDICATE,
            MembershipVerdict,
        )
        _check_binding(verdict, documents.grant, seal, sealed_at)
        _check_p_value(verdict, calibration)
        # At L0 a failed check says more than this could.
        if verdict.level > level > AssuranceLevel.L0:
            raise VerdictError(
                f"verdict {verdict.verdict_id} claims assurance level {verdict.level.name}, the "
                f"evidence here reaches {level.name}"
            )
    return f"{len(bundle.verdicts)} signed verdicts"


def _parse_description(data: bytes) -> ModelDescription:
    try:
        description = ModelDescription.from_bytes(data)
    except ValidationError as error:
        raise SealedWeightsError(f"the model's description is not valid: {error}") from error
    if to_bytes(description) != data:
        raise SealedWeightsError("the model's description is not in RFC 8785 form")
    return description


def _read_calibration(scores: bytes) -> NDArray[np.float32]:
    try:
        found = load_safetensors(scores)[CALIBRATION_TENSOR]
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise CalibrationScoresError(f"the scores file cannot be read: {error}") from error
    if found.ndim != 1 or found.dtype != np.float32 or not np.isfinite(found).all():
        raise CalibrationScoresError(
            f"expected one finite float32 score per sample of C, found {found.dtype} of shape "
            f"{found.shape}"
        )
    return found


def _check_binding(
    verdict: MembershipVerdict, grant: SessionGrant, seal: SealRecord, sealed_at: int
) -> None:
    bound = (verdict.session_id, verdict.weights_digest, verdict.scores_digest)
    if bound != (grant.session_id, seal.weights_digest, seal.scores_digest):
        raise VerdictError(
            f"verdict {verdict.verdict_id} is about another session, model or calibration"
        )
    if verdict.issued_at.timestamp() < sealed_at - CLOCK_GRAIN_SECONDS:
        raise VerdictError(f"verdict {verdict.verdict_id} was issued before the model was sealed")


def _check_p_value(verdict: MembershipVerdict, calibration: NDArray[np.float32]) -> None:
    # Conformal p-value; ties count against the sample.
    rank = 1 + int((calibration >= np.float32(verdict.score)).sum())
    p_value = rank / (len(calibration) + 1)
    if verdict.calibration_size != len(calibration) or verdict.p_value != p_value:
        raise VerdictError(
            f"verdict {verdict.verdict_id} says p = {verdict.p_value:g}, the committed scores "
            f"give {p_value:g}"
        )
    outcome = "member" if p_value <= verdict.false_positive_rate else "not_shown"
    if verdict.outcome != outcome:
        raise VerdictError(
            f"verdict {verdict.verdict_id} says {verdict.outcome!r}; p = {p_value:g} at rate "
            f"{verdict.false_positive_rate:g} gives {outcome!r}"
        )
