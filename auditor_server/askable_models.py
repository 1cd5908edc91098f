"""The models that somebody may ask about pictures."""

from dataclasses import dataclass
from typing import Literal

from auditor_server.access.principals import Principal
from auditor_server.context import Auditor
from auditor_server.documents import parse
from auditor_server.held_submissions import is_held
from auditor_server.orders import find_order, read_order
from auditor_server.store import SessionRow
from auditor_server.submissions import is_void
from auditor_server.training_images import TrainingImages
from schemas import AssuranceLevel, SessionRequest, TrustRoot
from schemas.training import CUSTOM_PREFIX
from schemas.wire import SessionState

MOST_OFFERED = 100
SUBMITTED: tuple[SessionState, ...] = ("submitted",)

Obstacle = Literal["void", "dropped", "custom", "held"]


@dataclass(frozen=True)
class AskableModel:
    """One submitted model, as the desk offers it."""

    session: SessionRow
    name: str
    developer: str
    height: int
    width: int
    level: AssuranceLevel | None
    false_positive_rate: float
    """Of its order."""
    codes: bool
    obstacle: Obstacle | None
    """Why this principal, or nobody, can ask it here."""


def askable_models(auditor: Auditor, principal: Principal) -> list[AskableModel]:
    """Return the newest models that the principal may see, newest first."""
    rows = auditor.newest_sessions(principal, SUBMITTED, first=0, most=MOST_OFFERED)
    ids, root = [row.id for row in rows], auditor.trust_root()
    levels, dropped = auditor.store.levels(ids), auditor.store.without_weights(ids)
    return [
        _describe(auditor, principal, row, levels.get(row.id), root, is_dropped=row.id in dropped)
        for row in rows
    ]


def model_names(session: SessionRow) -> tuple[str, str]:
    """Return the names of a session's model and of its developer."""
    request = parse(SessionRequest, session.request)
    return request.config.name, request.developer


def _describe(
    auditor: Auditor,
    principal: Principal,
    session: SessionRow,
    level: int | None,
    root: TrustRoot,
    *,
    is_dropped: bool,
) -> AskableModel:
    request = parse(SessionRequest, session.request)
    config = request.config
    return AskableModel(
        session=session,
        name=config.name,
        developer=request.developer,
        height=config.model.height,
        width=config.model.width,
        level=None if level is None else AssuranceLevel(level),
        false_positive_rate=read_order(find_order(auditor, session.order_id)).false_positive_rate,
        codes=config.mint.evidence == "codes",
        obstacle="dropped" if is_dropped else _obstacle(auditor, principal, session, request, root),
    )


def _obstacle(
    auditor: Auditor,
    principal: Principal,
    session: SessionRow,
    request: SessionRequest,
    root: TrustRoot,
) -> Obstacle | None:
    if is_void(auditor, session, root):
        return "void"
    is_custom = request.config.model.architecture.startswith(CUSTOM_PREFIX)
    if is_custom and not TrainingImages(auditor.home.path).has(request.image_digest):
        return "custom"
    return "held" if is_held(session) and not principal.sees_all else None
