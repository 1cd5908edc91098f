"""The desk's form: what a browser sends with pictures, checked as every form of our pages is."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile

from auditor_server.api.dependencies import AuditorServer, form_up_to
from auditor_server.documents import parse
from auditor_server.errors import InvalidDocumentError, ServerError
from auditor_server.inquiries import MOST_MODELS, Asked
from auditor_server.pictures import Picture, read_up_to, unpack
from auditor_server.settings import ServerSettings
from auditor_server.web.dependencies import FORM_TOKEN, SignedInExaminer, check_origin
from auditor_server.web.sign_ins import check_form, current
from auditor_server.web.texts import text
from schemas import SampleOpening

MODEL, PURPOSE, RATE, DISCOVERIES, RESIZE, EXAMPLE = (
    "model",
    "purpose",
    "false_positive_rate",
    "false_discovery_rate",
    "resize",
    "example",
)
PICTURES, FOLDER, OPENINGS = "pictures", "folder", "openings"
# As many models as may be asked, and as many again to be told that they are too many.
MOST_FIELDS = 2 * MOST_MODELS + 8
# A folder has what desktop systems add; empty fields of files are sent as well.
MORE_FILES = 32

RATES = (0.1, 0.05, 0.01, 0.001, 0.0001, 0.000001)
DISCOVERY_RATES = (0.01, 0.05, 0.1, 0.2)
USUAL_DISCOVERY_RATE = 0.05

_opened = asynccontextmanager(
    form_up_to(
        lambda settings: settings.most_query_bytes,
        lambda settings: 2 * settings.most_images_per_query + MORE_FILES,
        most_fields=MOST_FIELDS,
    )
)


@dataclass(frozen=True)
class DeskForm:
    """A form as it was sent; `problem` says why its body was not even read."""

    data: FormData
    problem: ServerError | None = None

    def text(self, name: str) -> str:
        """Return a field; empty if it is missing."""
        found = self.data.get(name)
        return found if isinstance(found, str) else ""

    @property
    def models(self) -> tuple[str, ...]:
        """The sessions of the chosen models."""
        return tuple(item for item in self.data.getlist(MODEL) if isinstance(item, str))

    def files(self, name: str) -> list[UploadFile]:
        """Return the files of a field; browsers send one without a name where none was chosen."""
        found = self.data.getlist(name)
        return [part for part in found if isinstance(part, UploadFile) and part.filename]


async def _desk_form(
    request: Request,
    principal: SignedInExaminer,  # before the body is read
    auditor: AuditorServer,
) -> AsyncIterator[DeskForm]:
    del principal
    check_origin(request)
    async with AsyncExitStack() as stack:
        try:
            form = DeskForm(await stack.enter_async_context(_opened(request, auditor)))
        except ServerError as error:
            form = DeskForm(FormData(), error)
        else:
            await run_in_threadpool(current, request)
            check_form(request, form.text(FORM_TOKEN))
        yield form


SentForm = Annotated[DeskForm, Depends(_desk_form)]


def asked(
    form: DeskForm,
    settings: ServerSettings,
    examples: tuple[Picture, ...] = (),
    example_of: str | None = None,
) -> Asked:
    """Return what a form asks.

    Args:
        form: as it was sent.
        settings: that limit it.
        examples: pictures to ask about instead of those of the form, if there are any.
        example_of: the session of the model that is asked about them.

    Raises:
        ServerError: the form could not be read, or a field is not what it should be.
        DataError: see `pictures.unpack`.

    """
    if form.problem is not None:
        raise form.problem
    rate = form.text(RATE)
    return Asked(
        session_ids=form.models if example_of is None else (example_of,),
        pictures=examples or unpack([*form.files(PICTURES), *form.files(FOLDER)], settings),
        openings=tuple(
            parse(SampleOpening, read_up_to(part, settings.most_opening_bytes))
            for part in form.files(OPENINGS)
        ),
        purpose=form.text(PURPOSE) or (text("desk", "example_purpose") if examples else ""),
        false_positive_rate=_number(rate) if rate else None,
        false_discovery_rate=_number(form.text(DISCOVERIES) or str(USUAL_DISCOVERY_RATE)),
        resize=bool(form.text(RESIZE)),
    )


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise InvalidDocumentError("expected a rate such as 0.01, found something else") from error
