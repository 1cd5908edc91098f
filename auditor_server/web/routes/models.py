"""The models that were submitted, with their error rates."""

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from auditkit.reports import wording
from auditkit.reports.content import COHORT_ORDER
from auditor_server import registered_models
from auditor_server.registered_models import RegisteredModel
from auditor_server.web.dependencies import PAGE_SIZE, AuditorServer, PageNumber, SignedInReader
from auditor_server.web.paging import Paging
from auditor_server.web.rendering import page
from schemas import CohortName, RateEstimate
from schemas.wire import SessionState

STATES: tuple[SessionState, ...] = ("submitted",)

router = APIRouter(include_in_schema=False)


@router.get("/models")
def models_page(
    request: Request, principal: SignedInReader, auditor: AuditorServer, number: PageNumber = 1
) -> HTMLResponse:
    """List the models, the newest first."""
    paging = Paging(number, PAGE_SIZE, auditor.count_sessions(principal, STATES))
    rows = auditor.newest_sessions(principal, STATES, first=paging.first, most=PAGE_SIZE)
    models = registered_models.describe(auditor, rows)
    return page(
        request,
        "models",
        models=[(model, _rates(model)) for model in models],
        paging=paging,
    )


def _rates(model: RegisteredModel) -> list[tuple[CohortName, int, RateEstimate | None]]:
    """Return size and share called member of each cohort, at the rate that the order sets."""
    if model.evaluation is None:
        return []
    found = {metrics.cohort: metrics for metrics in model.evaluation.cohorts if metrics.size}
    return [
        (
            cohort,
            found[cohort].size,
            wording.flagged_at(found[cohort].flagged, model.false_positive_rate),
        )
        for cohort in COHORT_ORDER
        if cohort in found
    ]
