"""What is kept of a MINT Model that this server holds, below the home folder.

    custody/<session>/state-<step>.safetensors     T's state, where the training saves its own
    custody/<session>/step-<step>.activations      the payloads since the last of these states
    custody/<session>/<kind>-<step>-….answer       answers, so that a lost one can be given again
    custody/<session>/scores-<step>-….safetensors  scores of parts of cohorts

A server that was stopped puts T back to where it stood: from the last kept state, with the
activations that came since.
"""

from pathlib import Path

from auditkit.evidence import mint_exchange
from auditor_server.context import Auditor
from schemas import MintFinal
from schemas.custody import ExchangeKind

CUSTODY_FOLDER = "custody"


def session_folder(auditor: Auditor, session_id: str) -> Path:
    """Return the folder of one session's MINT Model."""
    return auditor.home.path / CUSTODY_FOLDER / session_id


def answer_name(kind: ExchangeKind, step: int, place: str = "") -> str:
    """Return the name of the file that keeps the answer to an exchange."""
    return f"{kind}-{step:08d}{place}.answer"


def final_of(auditor: Auditor, session_id: str, step: int) -> MintFinal | None:
    """Return what M+ of a session was put together to after a step; None: it was not."""
    if not auditor.store.custody.took_place(session_id, "final", step):
        return None
    path = session_folder(auditor, session_id) / answer_name("final", step)
    document, _ = mint_exchange.read_message(path.read_bytes())
    return mint_exchange.read_document(document, MintFinal)
