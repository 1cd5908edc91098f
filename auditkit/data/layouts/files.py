"""Finding the folders, images and tables of a layout."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from auditkit.data.errors import AnnotationError, PoolNotFoundError

IMAGE_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)


def first_existing(candidates: Sequence[Path], what: str) -> Path:
    """Return the first path that exists.

    Raises:
        PoolNotFoundError: none does; the message says `what` was looked for, and where.

    """
    for path in candidates:
        if path.exists():
            return path
    places = ", ".join(str(path) for path in candidates)
    raise PoolNotFoundError(
        f"expected {what}, found none of {places}; put the files there in the layout in which they "
        "were released; nothing is downloaded"
    )


def images_in(paths: Iterable[Path]) -> list[Path]:
    """Return the image files among `paths`, sorted by name."""
    return sorted(
        path for path in paths if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
    )


def read_text(path: Path, what: str) -> str:
    """Return the text of an annotation file.

    Raises:
        AnnotationError: it is missing or cannot be read.

    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise AnnotationError(
            f"{path}: expected {what}, found {error}; restore the file"
        ) from error


def read_table(path: Path, delimiter: str, columns: Sequence[str]) -> Iterator[dict[str, str]]:
    """Yield the rows of a table with a header line, each with all of `columns`.

    Raises:
        AnnotationError: the table is missing, cannot be read, or a row lacks a column.

    """
    text = read_text(path, f"a table with the columns {', '.join(columns)}")
    for number, row in enumerate(csv.DictReader(text.splitlines(), delimiter=delimiter), start=2):
        if any(row.get(column) is None for column in columns):
            raise AnnotationError(
                f"{path}, line {number}: expected the columns {', '.join(columns)}, found "
                f"{', '.join(str(key) for key in row)}; restore the file"
            )
        yield row


def beside(table: Path, folder: Path, name: str) -> Path:
    """Return the file that a table names; the name must be that of a file in `folder`.

    Raises:
        AnnotationError: the name leads elsewhere.

    """
    if Path(name).name != name:
        raise AnnotationError(
            f"{table}: expected names of files in {folder}, found {name!r}; restore the file"
        )
    return folder / name
