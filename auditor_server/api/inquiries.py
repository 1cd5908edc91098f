"""Inquiries and verdicts: many pictures asked of many models at once, and what was answered."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from starlette.datastructures import FormData

from auditkit.evidence import canonical
from auditor_server import inquiries, inquiry_forms
from auditor_server.api.dependencies import AuditorServer, Examiner, Inquirer, form_up_to
from auditor_server.context import Auditor
from auditor_server.inquiries import Inquiry
from auditor_server.inquiry_forms import MOST_FIELDS, InquiryForm, most_bytes, most_files

router = APIRouter(tags=["queries"])

SentForm = Annotated[FormData, Depends(form_up_to(most_bytes, most_files, most_fields=MOST_FIELDS))]


@router.post("/inquiries", status_code=201)
def ask(
    request: Request, principal: Inquirer, auditor: AuditorServer, form: SentForm
) -> dict[str, Any]:
    """Ask one or many models about pictures, a ZIP archive of them, or both.

    Each answer is a signed verdict; the inquiry says how they read together.
    """
    asked = inquiry_forms.asked(InquiryForm(form), auditor.settings)
    for _ in asked.session_ids:
        request.app.state.query_rates.take(principal.name)
    return content(auditor, inquiries.ask(auditor, request.app.state.models, principal, asked))


@router.get("/inquiries/{inquiry_id}")
def inquiry(principal: Inquirer, auditor: AuditorServer, inquiry_id: str) -> dict[str, Any]:
    """Return an inquiry with its signed verdicts."""
    return content(auditor, inquiries.find(auditor, principal, inquiry_id))


@router.get("/sessions/{session_id}/verdicts/{verdict_id}")
def verdict(
    principal: Examiner, auditor: AuditorServer, session_id: str, verdict_id: str
) -> Response:
    """Return one verdict as it was signed (DSSE)."""
    seen = inquiries.find_verdict(auditor, principal, session_id, verdict_id)
    return Response(seen.envelope, media_type="application/json")


def content(auditor: Auditor, inquiry: Inquiry) -> dict[str, Any]:
    """Return an inquiry with its signed verdicts."""
    rows = inquiries.verdicts_of(auditor, inquiry).values()
    return {
        "inquiry": inquiry.as_json(),
        "verdicts": [canonical.parse(row.envelope) for row in rows],
    }
