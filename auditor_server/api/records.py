"""Records: an agent appends to its session's log."""

from typing import Annotated

from fastapi import APIRouter, Depends

from auditkit.evidence.errors import EvidenceError
from auditor_server import records
from auditor_server.api.answers import json_body, refusals
from auditor_server.api.dependencies import (
    AskedWitnesses,
    AuditorServer,
    SessionId,
    Trainer,
    body_up_to,
)
from auditor_server.documents import parse
from auditor_server.errors import (
    CheckpointRootError,
    CheckpointSizeError,
    ContinuationRecordError,
    EmptyFlushError,
    ForeignOriginError,
    ForkError,
    GapError,
    GrantRecordError,
    HeldExchangesError,
    InvalidDocumentError,
    InvalidRecordError,
    KeyNotInForceError,
    RecordSequenceError,
    RecordTimeError,
    SessionExpiredError,
    SessionSealedError,
    TooManyRecordsError,
)
from schemas import AppendReceipt, AppendRequest

router = APIRouter(prefix="/sessions/{session_id}/records", tags=["records"])

FlushBody = Annotated[bytes, Depends(body_up_to(lambda settings: settings.most_flush_bytes))]


@router.post(
    "",
    openapi_extra=json_body(AppendRequest),
    responses=refusals(
        KeyNotInForceError,
        SessionExpiredError,
        ForkError,
        GapError,
        SessionSealedError,
        TooManyRecordsError,
        InvalidDocumentError,
        CheckpointRootError,
        CheckpointSizeError,
        ContinuationRecordError,
        EmptyFlushError,
        ForeignOriginError,
        GrantRecordError,
        HeldExchangesError,
        InvalidRecordError,
        RecordSequenceError,
        RecordTimeError,
        EvidenceError,
    ),
)
def append_records(
    principal: Trainer,
    auditor: AuditorServer,
    witnesses: AskedWitnesses,
    session_id: SessionId,
    body: FlushBody,
) -> AppendReceipt:
    """Append one flush; the answer is its cosigned checkpoint. Sending it again is harmless."""
    session = auditor.session(session_id, principal)
    receipt = records.append(auditor, session, parse(AppendRequest, body))
    witnesses.notify(session.id)
    return receipt
