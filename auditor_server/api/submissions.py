"""Submissions: the finished model, and what the server finds out about its session."""

from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.datastructures import FormData

from auditkit.evidence.errors import EvidenceError
from auditkit.mint.errors import MintError
from auditor_server import submissions, verification
from auditor_server.api.answers import JSON, file_field, form_body, refusals
from auditor_server.api.dependencies import (
    AskedWitnesses,
    AuditorServer,
    SessionId,
    Trainer,
    file_part,
    form_up_to,
)
from auditor_server.errors import (
    CalibrationScoresError,
    DescriptionMismatchError,
    HeldExchangesError,
    HeldPartError,
    InferenceBusyError,
    InferenceCrashedError,
    InferenceMemoryError,
    InferenceTimeoutError,
    InvalidDocumentError,
    MissingPartError,
    ScoresMismatchError,
    SessionNotSealedError,
    WeightsDroppedError,
    WeightsError,
)
from auditor_server.held_submissions import is_held
from auditor_server.settings import ServerSettings
from schemas import VerificationReport

router = APIRouter(prefix="/sessions/{session_id}/submission", tags=["submissions"])

PARTS = ("weights", "description", "scores")
HELD_PARTS = ("weights", "scores")  # where the auditor holds T


def _most_bytes(settings: ServerSettings) -> int:
    return (
        settings.most_weights_bytes + settings.most_description_bytes + settings.most_scores_bytes
    )


SubmissionForm = Annotated[FormData, Depends(form_up_to(_most_bytes, lambda _: len(PARTS)))]


@router.put(
    "",
    openapi_extra=form_body(
        {
            "weights": file_field("M+ (safetensors)"),
            "description": file_field("a ModelDescription", JSON),
            "scores": file_field("scores of the cohorts (safetensors)"),
        },
        required=("description",),
        description="All three files; where the auditor holds T, the description alone.",
    ),
    responses=refusals(
        SessionNotSealedError,
        WeightsDroppedError,
        InvalidDocumentError,
        MissingPartError,
        HeldPartError,
        HeldExchangesError,
        CalibrationScoresError,
        DescriptionMismatchError,
        ScoresMismatchError,
        WeightsError,
        EvidenceError,
        MintError,
        InferenceMemoryError,
        InferenceTimeoutError,
        InferenceCrashedError,
        InferenceBusyError,
    ),
)
def submit_model(
    principal: Trainer,
    auditor: AuditorServer,
    witnesses: AskedWitnesses,
    session_id: SessionId,
    form: SubmissionForm,
) -> VerificationReport:
    """Submit weights, description and scores; the answer is the verification of the session."""
    session = auditor.session(session_id, principal)
    if is_held(session):
        _refuse_held_parts(form)
        submissions.submit_held(auditor, session, file_part(form, "description").file)
    else:
        weights, description, scores = (file_part(form, name).file for name in PARTS)
        submissions.submit(
            auditor, session, weights=weights, description=description, scores=scores
        )
    witnesses.gather(session)
    return verification.verify_submission(auditor, session)


def _refuse_held_parts(form: FormData) -> None:
    found = [name for name in HELD_PARTS if name in form]
    if found:
        raise HeldPartError(
            f"the auditor holds the MINT Model of this session and has put M+ together; expected "
            f"the description alone, found also {', '.join(found)}"
        )
