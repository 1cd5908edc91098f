"""Inquiries and verdicts: many pictures asked of many models at once, and what was answered."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request, Response
from starlette.datastructures import FormData

from auditor_server import inquiries, inquiry_forms
from auditor_server.api.answers import JSON, document, file_field, form_body, refusals
from auditor_server.api.asking import NO_ANSWER, PURPOSE_SCHEMA
from auditor_server.api.dependencies import (
    AuditorServer,
    Examiner,
    Inquirer,
    SessionId,
    form_up_to,
)
from auditor_server.context import Auditor
from auditor_server.errors import (
    InquiryNotFoundError,
    SessionNotFoundError,
    VerdictNotFoundError,
)
from auditor_server.inquiry_forms import (
    DISCOVERIES,
    MODEL,
    MOST_FIELDS,
    OPENINGS,
    PICTURES,
    PURPOSE,
    RATE,
    RESIZE,
    USUAL_DISCOVERY_RATE,
    InquiryForm,
    most_bytes,
    most_files,
)
from schemas.base import Name
from schemas.inquiry import Inquiry, InquiryAnswer, InquiryId
from schemas.wire import SignedDocument

router = APIRouter(tags=["queries"])

SentForm = Annotated[FormData, Depends(form_up_to(most_bytes, most_files, most_fields=MOST_FIELDS))]
VerdictId = Annotated[Name, Path(description="a verdict, as it names itself")]
AskedInquiry = Annotated[InquiryId, Path(description="an inquiry, as its answer names it")]


def _rate(description: str) -> dict[str, str]:
    # A form's fields are text.
    return {"type": "string", "description": description}


@router.post(
    "/inquiries",
    status_code=HTTPStatus.CREATED,
    openapi_extra=form_body(
        {
            MODEL: {
                "type": "array",
                "items": {"type": "string"},
                "minItems": 1,
                "maxItems": inquiries.MOST_MODELS,
                "description": "sessions of the models that are asked",
            },
            PICTURES: {
                "type": "array",
                "items": file_field("PNG, JPEG, BMP, GIF, PPM, TIFF, WebP, or a ZIP of them"),
                "minItems": 1,
            },
            OPENINGS: {
                "type": "array",
                "items": file_field("a SampleOpening", JSON),
                "description": "of pictures among these, to ask for their own codes",
            },
            PURPOSE: PURPOSE_SCHEMA,
            RATE: _rate(
                "false-positive rate of each verdict; left out: that of each model's order"
            ),
            DISCOVERIES: _rate(
                f"false-discovery rate of the whole; left out: {USUAL_DISCOVERY_RATE}"
            ),
            RESIZE: {
                "type": "string",
                "enum": ["", "yes"],
                "description": "`yes`: pictures of another size than a model's are resized",
            },
        },
        required=(MODEL, PICTURES),
    ),
    responses=refusals(*NO_ANSWER, SessionNotFoundError),
)
def ask(
    request: Request, principal: Inquirer, auditor: AuditorServer, form: SentForm
) -> InquiryAnswer:
    """Ask one or many models about pictures, a ZIP archive of them, or both.

    Each answer is a signed verdict; the inquiry says how they read together.
    """
    asked = inquiry_forms.asked(InquiryForm(form), auditor.settings)
    for _ in asked.session_ids:
        request.app.state.query_rates.take(principal.name)
    return content(auditor, inquiries.ask(auditor, request.app.state.models, principal, asked))


@router.get("/inquiries/{inquiry_id}", responses=refusals(InquiryNotFoundError))
def inquiry(principal: Inquirer, auditor: AuditorServer, inquiry_id: AskedInquiry) -> InquiryAnswer:
    """Return an inquiry with its signed verdicts."""
    return content(auditor, inquiries.find(auditor, principal, inquiry_id))


@router.get(
    "/sessions/{session_id}/verdicts/{verdict_id}",
    response_class=Response,
    responses=document(SignedDocument, "a signed MembershipVerdict")
    | refusals(VerdictNotFoundError, SessionNotFoundError),
)
def verdict(
    principal: Examiner, auditor: AuditorServer, session_id: SessionId, verdict_id: VerdictId
) -> Response:
    """Return one verdict as it was signed (DSSE)."""
    seen = inquiries.find_verdict(auditor, principal, session_id, verdict_id)
    return Response(seen.envelope, media_type=JSON)


def content(auditor: Auditor, inquiry: Inquiry) -> InquiryAnswer:
    """Return an inquiry with its signed verdicts."""
    rows = inquiries.verdicts_of(auditor, inquiry).values()
    return InquiryAnswer(
        inquiry=inquiry,
        verdicts=tuple(SignedDocument.from_bytes(row.envelope) for row in rows),
    )
