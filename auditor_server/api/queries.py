"""Queries: whether an image was shown to the model."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from starlette.datastructures import FormData, UploadFile

from auditkit.evidence import canonical
from auditor_server import queries
from auditor_server.api.dependencies import AuditorServer, Examiner, form_up_to
from auditor_server.errors import BodyTooLargeError, MissingPartError
from auditor_server.queries import ModelCache, QueryImage

router = APIRouter(prefix="/sessions/{session_id}/queries", tags=["queries"])

IMAGES_PART = "images"
QueryForm = Annotated[
    FormData,
    Depends(
        form_up_to(
            lambda settings: settings.most_query_bytes,
            lambda settings: settings.most_images_per_query,
        )
    ),
]
FalsePositiveRate = Annotated[float | None, Query(gt=0.0, lt=1.0, allow_inf_nan=False)]


def _models(request: Request) -> ModelCache:
    models: ModelCache = request.app.state.models
    return models


@router.post("")
def query_images(
    *,
    principal: Examiner,
    auditor: AuditorServer,
    models: Annotated[ModelCache, Depends(_models)],
    session_id: str,
    form: QueryForm,
    false_positive_rate: FalsePositiveRate = None,
) -> dict[str, Any]:
    """Return one signed verdict (DSSE) per image, and p-values adjusted for their number."""
    session = auditor.session(session_id, principal)
    images = _images(form, auditor.settings.most_image_bytes)
    answer = queries.query(auditor, models, session, images, false_positive_rate)
    return {
        "verdicts": [canonical.parse(verdict.to_bytes()) for verdict in answer.verdicts],
        "adjusted_p_values": list(answer.adjusted_p_values),
    }


def _images(form: FormData, most_bytes: int) -> list[QueryImage]:
    parts = [part for part in form.getlist(IMAGES_PART) if isinstance(part, UploadFile)]
    if not parts:
        raise MissingPartError(
            f"expected a multipart form with image files named {IMAGES_PART!r}, found none"
        )
    return [_image(part, most_bytes) for part in parts]


def _image(part: UploadFile, most_bytes: int) -> QueryImage:
    data = part.file.read(most_bytes + 1)
    name = part.filename or IMAGES_PART
    if len(data) > most_bytes:
        raise BodyTooLargeError(f"{name}: expected an image of at most {most_bytes} bytes")
    return QueryImage(name, data)
