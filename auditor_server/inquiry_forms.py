"""The form of an inquiry, as pages and programs send it."""

from dataclasses import dataclass

from starlette.datastructures import FormData, UploadFile

from auditor_server.documents import parse
from auditor_server.errors import InvalidDocumentError, ServerError
from auditor_server.inquiries import MOST_MODELS, Asked
from auditor_server.pictures import read_up_to, unpack
from auditor_server.settings import ServerSettings
from schemas import SampleOpening

MODEL, PURPOSE, RATE, DISCOVERIES, RESIZE = (
    "model",
    "purpose",
    "false_positive_rate",
    "false_discovery_rate",
    "resize",
)
PICTURES, FOLDER, OPENINGS = "pictures", "folder", "openings"
# As many models as may be asked, and as many again to be told that they are too many.
MOST_FIELDS = 2 * MOST_MODELS + 8
# A folder has what desktop systems add; empty fields of files are sent as well.
MORE_FILES = 32

USUAL_DISCOVERY_RATE = 0.05


def most_bytes(settings: ServerSettings) -> int:
    """Return how large a form may be."""
    return settings.most_query_bytes


def most_files(settings: ServerSettings) -> int:
    """Return how many files a form may have: pictures, openings, what is passed over."""
    return 2 * settings.most_images_per_query + MORE_FILES


@dataclass(frozen=True)
class InquiryForm:
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


def asked(
    form: InquiryForm,
    settings: ServerSettings,
) -> Asked:
    """Return what a form asks.

    Args:
        form: as it was sent.
        settings: that limit it.

    Raises:
        ServerError: the form could not be read, or a field is not what it should be.
        DataError: see `pictures.unpack`.

    """
    if form.problem is not None:
        raise form.problem
    rate = form.text(RATE)
    return Asked(
        session_ids=form.models,
        pictures=unpack([*form.files(PICTURES), *form.files(FOLDER)], settings),
        openings=tuple(
            parse(SampleOpening, read_up_to(part, settings.most_opening_bytes))
            for part in form.files(OPENINGS)
        ),
        purpose=form.text(PURPOSE),
        false_positive_rate=_number(rate) if rate else None,
        false_discovery_rate=_number(form.text(DISCOVERIES) or str(USUAL_DISCOVERY_RATE)),
        resize=bool(form.text(RESIZE)),
    )


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise InvalidDocumentError("expected a rate such as 0.01, found something else") from error
