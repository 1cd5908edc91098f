"""Rebuilding the weights that a training must have started from."""

import hashlib

from auditkit.mint.enhanced import EnhancedAuditedModel
from schemas import SessionRequest


def initial_weights_digest(request: SessionRequest, seed: int) -> str:
    """Return the SHA-256 of M+'s weights file before the first step, from the nonce's seed."""
    weights = EnhancedAuditedModel.build(request.config, seed).weights()
    return hashlib.sha256(weights).hexdigest()
