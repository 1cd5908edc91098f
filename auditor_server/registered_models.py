"""The models that were submitted, with what their logs say of the error rates."""

from collections.abc import Sequence
from dataclasses import dataclass

from auditor_server.context import Auditor
from auditor_server.documents import parse
from auditor_server.orders import find_order, read_order
from auditor_server.records import split_lines
from auditor_server.store import SessionRow
from schemas import EvaluationRecord, SealRecord, SessionRequest, TrainingConfig, parse_record

LAST_RECORDS = 200
"""The last evaluation is followed by the calibration, a state, the seal and receipts."""


@dataclass(frozen=True)
class RegisteredModel:
    """One submitted model. `evaluation` is the last one of its log, None if it has none."""

    session: SessionRow
    developer: str
    config: TrainingConfig
    false_positive_rate: float
    level: int | None
    evaluation: EvaluationRecord | None
    weights_digest: str | None


def describe(auditor: Auditor, sessions: Sequence[SessionRow]) -> list[RegisteredModel]:
    """Return the models of sessions that were submitted, in their order."""
    levels = auditor.store.levels([session.id for session in sessions])
    return [_describe(auditor, session, levels.get(session.id)) for session in sessions]


def _describe(auditor: Auditor, session: SessionRow, level: int | None) -> RegisteredModel:
    request = parse(SessionRequest, session.request)
    order = read_order(find_order(auditor, session.order_id))
    last = auditor.store.segments(session.id, max(0, session.size - LAST_RECORDS), session.size)
    records = [parse_record(line) for line in split_lines(last)[-LAST_RECORDS:]]
    evaluations = [record for record in records if isinstance(record, EvaluationRecord)]
    seals = [record for record in records if isinstance(record, SealRecord)]
    return RegisteredModel(
        session=session,
        developer=request.developer,
        config=request.config,
        false_positive_rate=order.false_positive_rate,
        level=level,
        evaluation=evaluations[-1] if evaluations else None,
        weights_digest=seals[-1].weights_digest if seals else None,
    )
