"""Answers: one verdict, or all of an inquiry, each with a permanent address and files to keep."""

import json

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from auditkit.evidence import dsse
from auditkit.evidence.canonical import sha256_hex
from auditkit.reports import answers
from auditkit.reports.answer_pdf import answer_pdf, batch_pdf
from auditkit.reports.answers import AskedModel, ShownAnswer, ShownBatch, shown_set
from auditor_server import inquiries
from auditor_server.access import trail
from auditor_server.access.principals import Principal
from auditor_server.api.inquiries import content
from auditor_server.askable_models import model_names
from auditor_server.context import Auditor
from auditor_server.inquiries import SeenVerdict
from auditor_server.store import SessionRow, VerdictRow
from auditor_server.web.dependencies import AuditorServer, SignedInExaminer
from auditor_server.web.rendering import download, page
from schemas.inquiry import Answer, Inquiry

router = APIRouter(include_in_schema=False)

PDF = "application/pdf"
JSON = "application/json"


@router.get("/verdicts/{session_id}/{verdict_id}")
def verdict_page(
    request: Request,
    principal: SignedInExaminer,
    auditor: AuditorServer,
    session_id: str,
    verdict_id: str,
) -> HTMLResponse:
    """Show one verdict: the answer, what it rests on, and what it does not say."""
    seen = _verdict(auditor, principal, session_id, verdict_id)
    shown = _of_verdict(seen)
    return page(
        request,
        "verdict",
        shown=shown,
        verdict=seen.verdict,
        model=_model(seen.session),
        inquiry=seen.inquiry,
        answer=answers.answer(seen.verdict),
        kind=answers.kind_words(seen.verdict),
        match=answers.match_words(shown.match),
        limits=answers.limits(seen.verdict),
    )


@router.get("/verdicts/{session_id}/{verdict_id}/envelope")
def verdict_envelope(
    principal: SignedInExaminer, auditor: AuditorServer, session_id: str, verdict_id: str
) -> Response:
    """Return one verdict as it was signed (DSSE)."""
    seen = inquiries.find_verdict(auditor, principal, session_id, verdict_id)
    return download(seen.envelope, f"{verdict_id}.dsse.json", JSON)


@router.get("/verdicts/{session_id}/{verdict_id}/pdf")
def verdict_pdf(
    principal: SignedInExaminer, auditor: AuditorServer, session_id: str, verdict_id: str
) -> Response:
    """Return one verdict as a document for people."""
    seen = _verdict(auditor, principal, session_id, verdict_id)
    document = answer_pdf(
        _of_verdict(seen),
        _model(seen.session),
        auditor.trust_root().auditor,
        seen.inquiry.purpose if seen.inquiry else None,
    )
    return download(document, f"{verdict_id}.pdf", PDF)


@router.get("/inquiries/{inquiry_id}")
def inquiry_page(
    request: Request, principal: SignedInExaminer, auditor: AuditorServer, inquiry_id: str
) -> HTMLResponse:
    """Show the answers of an inquiry together, model by model."""
    inquiry = inquiries.find(auditor, principal, inquiry_id)
    batches = _batches(auditor, principal, inquiry)
    return page(
        request,
        "inquiry",
        inquiry=inquiry,
        batches=batches,
        limits=answers.limits_of_all(batches),
        words=answers.short_answer,
        kind=answers.kind_words,
        match=answers.match_words,
        set_limit=answers.SET_LIMIT,
    )


@router.get("/inquiries/{inquiry_id}/pdf")
def inquiry_pdf(principal: SignedInExaminer, auditor: AuditorServer, inquiry_id: str) -> Response:
    """Return the answers of an inquiry as a document for people."""
    inquiry = inquiries.find(auditor, principal, inquiry_id)
    document = batch_pdf(
        _batches(auditor, principal, inquiry),
        auditor=auditor.trust_root().auditor,
        purpose=inquiry.purpose,
        at=inquiry.at,
        false_discovery_rate=inquiry.false_discovery_rate,
        name=inquiry.id,
    )
    return download(document, f"inquiry-{inquiry.id}.pdf", PDF)


@router.get("/inquiries/{inquiry_id}/verdicts")
def inquiry_verdicts(
    principal: SignedInExaminer, auditor: AuditorServer, inquiry_id: str
) -> Response:
    """Return an inquiry with all its signed verdicts."""
    inquiry = inquiries.find(auditor, principal, inquiry_id)
    data = json.dumps(content(auditor, inquiry).as_json(), indent=2, ensure_ascii=False).encode()
    return download(data, f"inquiry-{inquiry.id}.json", JSON)


def _verdict(
    auditor: Auditor, principal: Principal, session_id: str, verdict_id: str
) -> SeenVerdict:
    seen = inquiries.find_verdict(auditor, principal, session_id, verdict_id)
    trail.record(auditor, principal, "report", seen.session.id)
    return seen


def _of_verdict(seen: SeenVerdict) -> ShownAnswer:
    match = seen.answer.match if seen.answer else None
    return ShownAnswer(
        verdict=seen.verdict,
        digest=_digest(seen.envelope),
        picture=seen.picture,
        match=None if match is None else (match.index, match.cohort),
    )


def _batches(auditor: Auditor, principal: Principal, inquiry: Inquiry) -> list[ShownBatch]:
    rows = inquiries.verdicts_of(auditor, inquiry)
    batches = []
    for model in inquiry.models:
        session = auditor.session(model.session_id, principal)
        trail.record(auditor, principal, "report", session.id)
        batches.append(
            ShownBatch(
                model=_model(session),
                answers=tuple(
                    _of_row(rows[answer.verdict_id], answer, inquiry) for answer in model.answers
                ),
                sets=tuple(
                    shown_set(
                        found.evidence,
                        found.samples,
                        found.outcome,
                        found.p_value,
                        found.false_positive_rate,
                    )
                    for found in model.sets
                ),
            )
        )
    return batches


def _of_row(row: VerdictRow, answer: Answer, inquiry: Inquiry) -> ShownAnswer:
    return ShownAnswer(
        verdict=inquiries.read_verdict(row),
        digest=_digest(row.envelope),
        picture=inquiry.pictures[answer.picture],
        match=None if answer.match is None else (answer.match.index, answer.match.cohort),
        adjusted_p_value=answer.adjusted_p_value,
    )


def _model(session: SessionRow) -> AskedModel:
    name, developer = model_names(session)
    return AskedModel(name, developer, session.id)


def _digest(envelope: bytes) -> str:
    return sha256_hex(dsse.Envelope.from_bytes(envelope).payload)
