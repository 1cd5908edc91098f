"""Rebuilding the weights that a training must have started from."""

import hashlib

from auditkit.mint.enhanced import EnhancedAuditedModel
from auditkit.mint.errors import MintError, UnbuildableModelError
from schemas import SessionRequest


def initial_weights_digest(request: SessionRequest, seed: int) -> str:
    """Return the SHA-256 of M+'s weights file before the first step, from the nonce's seed.

    Where the auditor holds T, whose weights do not follow from the nonce, it is that of M alone.

    Raises:
        UnbuildableModelError: no such model can be built; a ValueError, as the verifier expects it.
    """
    try:
        head = request.config.mint.custody == "developer"
        weights = EnhancedAuditedModel.build(request.config, seed, head=head).weights()
    except MintError as error:
        raise UnbuildableModelError(f"the requested model cannot be built: {error}") from error
    return hashlib.sha256(weights).hexdigest()
