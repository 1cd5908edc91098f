"""Queries: whether an image was shown to the model."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from starlette.datastructures import FormData, UploadFile

from auditkit.data.names import shown
from auditor_server import queries
from auditor_server.access import questions
from auditor_server.api.answers import JSON, file_field, form_body, refusals
from auditor_server.api.asking import NO_ANSWER, PURPOSE_SCHEMA
from auditor_server.api.dependencies import AuditorServer, Examiner, SessionId, form_up_to
from auditor_server.documents import parse
from auditor_server.errors import (
    InvalidDocumentError,
    MissingPartError,
    OpeningsNumberError,
)
from auditor_server.loaded_models import ModelCache
from auditor_server.pictures import read_up_to
from auditor_server.queries import QueryImage
from auditor_server.settings import ServerSettings
from schemas import SampleOpening
from schemas.wire import QueryAnswer, SignedDocument

router = APIRouter(prefix="/sessions/{session_id}/queries", tags=["queries"])

IMAGES_PART = "images"
OPENINGS_PART = "openings"
PURPOSE_FIELD = "purpose"
QueryForm = Annotated[
    FormData,
    Depends(
        form_up_to(
            lambda settings: settings.most_query_bytes,
            # An image may come with its opening.
            lambda settings: 2 * settings.most_images_per_query,
            most_fields=1,
        )
    ),
]
FalsePositiveRate = Annotated[float | None, Query(gt=0.0, lt=1.0, allow_inf_nan=False)]


def _models(request: Request) -> ModelCache:
    models: ModelCache = request.app.state.models
    return models


@router.post(
    "",
    openapi_extra=form_body(
        {
            IMAGES_PART: {
                "type": "array",
                "items": file_field("PNG, JPEG, BMP, GIF, PPM, TIFF or WebP"),
                "minItems": 1,
            },
            OPENINGS_PART: {
                "type": "array",
                "items": file_field("a SampleOpening", JSON),
                "description": "one for each image, to ask for its own code; or none",
            },
            PURPOSE_FIELD: PURPOSE_SCHEMA,
        },
        required=(IMAGES_PART,),
    ),
    responses=refusals(*NO_ANSWER, OpeningsNumberError),
)
def query_images(
    *,
    request: Request,
    principal: Examiner,
    auditor: AuditorServer,
    models: Annotated[ModelCache, Depends(_models)],
    session_id: SessionId,
    form: QueryForm,
    false_positive_rate: FalsePositiveRate = None,
) -> QueryAnswer:
    """Return one signed verdict (DSSE) per image, and p-values adjusted for their number.

    Who asks, and what for, is in the audit trail before anything is answered.
    """
    session = auditor.session(session_id, principal)
    request.app.state.query_rates.take(principal.name)
    images = _images(form, auditor.settings)
    questions.admit(auditor, principal, session, _purpose(form), [image.data for image in images])
    answer = queries.query(auditor, models, session, images, false_positive_rate)
    return QueryAnswer(
        verdicts=tuple(
            SignedDocument.from_bytes(verdict.to_bytes()) for verdict in answer.envelopes
        ),
        adjusted_p_values=tuple(answer.adjusted_p_values),
    )


def _purpose(form: FormData) -> str | None:
    found = form.get(PURPOSE_FIELD)
    return found if isinstance(found, str) else None


def _images(form: FormData, settings: ServerSettings) -> list[QueryImage]:
    parts, openings = (
        [part for part in form.getlist(name) if isinstance(part, UploadFile)]
        for name in (IMAGES_PART, OPENINGS_PART)
    )
    if not parts:
        raise MissingPartError(
            f"expected a multipart form with image files named {IMAGES_PART!r}, found none"
        )
    if len(parts) > settings.most_images_per_query:
        raise InvalidDocumentError(
            f"expected at most {settings.most_images_per_query} images in one call, found "
            f"{len(parts)}; send them in several"
        )
    if openings and len(openings) != len(parts):
        raise OpeningsNumberError(
            f"expected as many openings as images or none, found {len(openings)} for {len(parts)} "
            "images; ask about the others in another call"
        )
    found: list[SampleOpening | None] = [
        parse(SampleOpening, read_up_to(part, settings.most_opening_bytes)) for part in openings
    ]
    return [
        QueryImage(
            shown(part.filename or IMAGES_PART),
            read_up_to(part, settings.most_image_bytes),
            opening,
        )
        for part, opening in zip(parts, found or [None] * len(parts), strict=True)
    ]
