"""Pictures as a form brings them: one by one, as a folder, or in ZIP archives."""

from collections.abc import Sequence
from pathlib import PurePosixPath

from starlette.datastructures import UploadFile

from auditkit.data.names import shown
from auditkit.data.uploads import UploadLimits, images_in_zip, is_foreign
from auditor_server.errors import BodyTooLargeError, InvalidDocumentError
from auditor_server.settings import ServerSettings

ARCHIVE_SUFFIX = ".zip"
# A folder and its sub-folders have entries of their own in an archive.
ENTRIES_PER_PICTURE = 2

Picture = tuple[str, bytes]
"""A name that may be shown, and the file as it was sent."""


def unpack(parts: Sequence[UploadFile], settings: ServerSettings) -> tuple[Picture, ...]:
    """Return the pictures of an upload in its order; those of an archive by their names.

    Nothing is decoded, and nothing is written. What desktop systems add to folders is passed over.

    Raises:
        BodyTooLargeError: a picture, or all of them unpacked, are larger than the settings allow.
        InvalidDocumentError: they are too many.
        ArchiveFormatError, ArchiveTooLargeError, ArchiveNameError, ArchiveEntryError,
            NestedArchiveError: see `images_in_zip`.

    """
    found: list[Picture] = []
    left = settings.most_query_bytes
    for part in parts:
        name = part.filename or ""
        if PurePosixPath(name).suffix.lower() == ARCHIVE_SUFFIX:
            limits = UploadLimits(
                most_files=ENTRIES_PER_PICTURE * settings.most_images_per_query,
                most_file_bytes=settings.most_image_bytes,
                most_total_bytes=left,
            )
            taken = [(image.name, image.data) for image in images_in_zip(part.file, limits)]
        elif is_foreign(name):
            taken = []
        else:
            taken = [(shown(name), read_up_to(part, settings.most_image_bytes))]
        found += taken
        left -= sum(len(data) for _, data in taken)
        _check(len(found), left, settings)
    return tuple(found)


def read_up_to(part: UploadFile, most_bytes: int) -> bytes:
    """Return what a part holds.

    Raises:
        BodyTooLargeError: it holds more.

    """
    data = part.file.read(most_bytes + 1)
    if len(data) > most_bytes:
        name = shown(part.filename or "a file")
        raise BodyTooLargeError(f"{name}: expected a file of at most {most_bytes} bytes")
    return data


def _check(number: int, left: int, settings: ServerSettings) -> None:
    if number > settings.most_images_per_query:
        raise InvalidDocumentError(
            f"expected at most {settings.most_images_per_query} pictures at once, found more; ask "
            "in parts"
        )
    if left < 0:
        raise BodyTooLargeError(
            f"expected pictures of at most {settings.most_query_bytes} bytes together, found more; "
            "ask in parts"
        )
