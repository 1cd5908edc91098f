"""The desk: ask one or many models about pictures."""

from dataclasses import replace
from http import HTTPStatus

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.datastructures import FormData

from auditkit.data.errors import DataError
from auditkit.evidence.errors import EvidenceError
from auditkit.mint.errors import MintError
from auditor_server import examples, inquiries, inquiry_forms
from auditor_server.access.principals import Principal
from auditor_server.askable_models import askable_models
from auditor_server.context import Auditor
from auditor_server.errors import CsrfError, RateLimitError, ServerError
from auditor_server.inquiries import Asked
from auditor_server.inquiry_forms import InquiryForm
from auditor_server.problems import status_of
from auditor_server.web import desk_form
from auditor_server.web.dependencies import AuditorServer, SignedInExaminer
from auditor_server.web.desk_form import SentForm
from auditor_server.web.errors import PageNotFoundError
from auditor_server.web.rendering import fragment, page
from auditor_server.web.texts import text
from schemas.inquiry import Inquiry

router = APIRouter(include_in_schema=False)

DESK = "/desk"
HTMX = "HX-Request"
REFUSALS = (ServerError, DataError, MintError, EvidenceError)
"""What is told beside the form; anything else is an error of the server's."""


@router.get(DESK)
def desk_page(
    request: Request, principal: SignedInExaminer, auditor: AuditorServer, model: str = ""
) -> HTMLResponse:
    """Offer the models, and ask for pictures and a purpose."""
    return _page(request, principal, auditor, chosen=(model,))


@router.post(DESK)
def ask(
    request: Request, principal: SignedInExaminer, auditor: AuditorServer, form: SentForm
) -> Response:
    """Ask, and go on to the answers; or say beside the form why that is not possible."""
    try:
        inquiry = _ask(request, principal, auditor, form)
    except CsrfError:
        raise
    except REFUSALS as error:
        return _refused(request, principal, auditor, form, error)
    target = _place(inquiry)
    if HTMX in request.headers:
        return Response(headers={"HX-Redirect": target})
    return RedirectResponse(target, HTTPStatus.SEE_OTHER)


@router.get(f"{DESK}/examples/{{session_id}}/{{name}}")
def example(
    principal: SignedInExaminer, auditor: AuditorServer, session_id: str, name: str
) -> Response:
    """Return an example picture."""
    found = examples.read_example(auditor, auditor.session(session_id, principal), name)
    if found is None:
        raise PageNotFoundError(text("desk", "no_example"))
    return Response(found, media_type="image/png")


def _ask(request: Request, principal: Principal, auditor: Auditor, form: InquiryForm) -> Inquiry:
    asked = _example(principal, auditor, form) or inquiry_forms.asked(form, auditor.settings)
    for _ in asked.session_ids:
        request.app.state.query_rates.take(principal.name)
    return inquiries.ask(auditor, request.app.state.models, principal, asked)


def _example(principal: Principal, auditor: Auditor, form: InquiryForm) -> Asked | None:
    """Return what a click on an example asks; None: it was none."""
    session_id, _, name = form.text(desk_form.EXAMPLE).partition("/")
    if not session_id:
        return None
    found = examples.read_example(auditor, auditor.session(session_id, principal), name)
    if found is None:
        raise PageNotFoundError(text("desk", "no_example"))
    asked = inquiry_forms.asked(replace(form, data=_without_files(form)), auditor.settings)
    return replace(
        asked,
        session_ids=(session_id,),
        pictures=((name, found),),
        purpose=asked.purpose or text("desk", "example_purpose"),
    )


def _without_files(form: InquiryForm) -> FormData:
    return FormData([item for item in form.data.multi_items() if isinstance(item[1], str)])


def _place(inquiry: Inquiry) -> str:
    """Return where the answers are: a single one is a page of its own."""
    answers = [(model.session_id, answer) for model in inquiry.models for answer in model.answers]
    if len(answers) == 1:
        session_id, answer = answers[0]
        return f"/verdicts/{session_id}/{answer.verdict_id}"
    return f"/inquiries/{inquiry.id}"


def _refused(
    request: Request, principal: Principal, auditor: Auditor, form: InquiryForm, error: Exception
) -> HTMLResponse:
    problem = fragment("desk_refused", problem=str(error), kind=type(error).__name__)
    status = status_of(type(error))
    answer = (
        HTMLResponse(problem, status)
        if HTMX in request.headers
        else _page(
            request, principal, auditor, form.models, form=form, problem=problem, status=status
        )
    )
    if isinstance(error, RateLimitError):
        answer.headers["Retry-After"] = str(error.retry_after_seconds)
    return answer


def _page(
    request: Request,
    principal: Principal,
    auditor: Auditor,
    chosen: tuple[str, ...],
    *,
    form: InquiryForm | None = None,
    problem: str = "",
    status: int = HTTPStatus.OK,
) -> HTMLResponse:
    models = askable_models(auditor, principal)
    single = len(models) == 1 and models[0].obstacle is None
    return page(
        request,
        "desk",
        code=status,
        models=models,
        chosen={models[0].session.id} if single else set(chosen),
        examples=[e for m in models for e in examples.list_examples(auditor, m.session)],
        names={model.session.id: model.name for model in models},
        problem=problem,
        form=form,
        purpose_needed=principal.role != "auditor",
        rates=desk_form.RATES,
        discovery_rates=desk_form.DISCOVERY_RATES,
        usual_discovery_rate=inquiry_forms.USUAL_DISCOVERY_RATE,
        inquiries=inquiries.newest(auditor, principal),
        settings=auditor.settings,
        trail_days=auditor.settings.trail_days,
    )
