"""Checks of what was handed over after training: weights, description, scores."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

from auditkit.evidence.canonical import sha256_hex, to_bytes
from auditkit.evidence.derivation import initialisation_seed
from auditkit.evidence.document_checks import Documents
from auditkit.evidence.errors import EvidenceError
from auditkit.evidence.findings import Result, Skipped
from schemas import ModelDescription, SealRecord, SessionRequest

InitialWeights = Callable[[SessionRequest, int], str]
"""Rebuilds M+ from a request and a seed; returns the SHA-256 of its weights file, or raises
ValueError when there is no such model, and RebuildingError when it can't tell."""

# Names of M's and of T's tensors in the weights of M+.
AUDITED_PREFIX, MINT_PREFIX = "audited.", "mint."
CALIBRATION_TENSOR = "score/calibration"

NOT_SEALED = "the log has no seal"
NOT_SUBMITTED = "no model was submitted; run `auditkit submit`"
WEIGHTS_DROPPED = (
    "the bundle is without the weights, which an auditor need not keep for good; what the auditor "
    "found when it had them is in the verifications that are signed in the bundle"
)


class RebuildingError(Exception):
    """The initial weights can't be rebuilt here, which says nothing about them."""


class InitialWeightsError(EvidenceError):
    """Training did not start from the weights that the nonce prescribes."""


class SealedWeightsError(EvidenceError):
    """The submitted model is not the sealed one."""


class CalibrationScoresError(EvidenceError):
    """The submitted scores are not the committed ones."""


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
    except RebuildingError as error:
        return Skipped(f"the initial weights could not be rebuilt here: {error}")
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
        return Skipped(NOT_SUBMITTED if bundle.scores is None else WEIGHTS_DROPPED)
    for what, data, expected in (
        ("weights", bundle.weights, seal.weights_digest),
        ("description", bundle.description, seal.description_digest),
    ):
        if sha256_hex(data) != expected:
            raise SealedWeightsError(
                f"the submitted {what} hash to {sha256_hex(data)}, sealed was {expected}"
            )
    if documents.request.config.mint.custody == "auditor":
        _check_parts(bundle.weights, seal)
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
    found = len(read_calibration(scores))
    if found != documents.grant.split.calibration:
        raise CalibrationScoresError(
            f"{found} calibration scores, the grant's C has {documents.grant.split.calibration}"
        )
    return f"{found} scores of C as committed"


def _check_parts(weights: bytes, seal: SealRecord) -> None:
    """Check that M+ was put together from the M and the T that the seal names."""
    try:
        tensors = load_safetensors(weights)
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise SealedWeightsError(f"the weights file cannot be read: {error}") from error
    for what, prefix, expected in (
        ("M", AUDITED_PREFIX, seal.audited_weights_digest),
        ("T", MINT_PREFIX, seal.mint_weights_digest),
    ):
        part = {name: value for name, value in tensors.items() if name.startswith(prefix)}
        found = sha256_hex(save_safetensors(part))
        if found != expected:
            raise SealedWeightsError(
                f"the weights of {what} in M+ hash to {found}, the seal names {expected}"
            )


def _parse_description(data: bytes) -> ModelDescription:
    try:
        description = ModelDescription.from_bytes(data)
    except ValidationError as error:
        raise SealedWeightsError(f"the model's description is not valid: {error}") from error
    if to_bytes(description) != data:
        raise SealedWeightsError("the model's description is not in RFC 8785 form")
    return description


def read_calibration(scores: bytes) -> NDArray[np.float32]:
    """Return the scores of C in a scores file, shape `(samples of C,)`.

    Raises:
        CalibrationScoresError: they are not there, or not finite float32 numbers.
    """
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
