"""German traffic signs (GTSRB) as released, and as torchvision unpacks them.

`GTSRB/Final_Training/Images/<class>/GT-<class>.csv` or `GTSRB/Training/<class>/GT-<class>.csv` list
the training images, `GT-final_test.csv` those in `GTSRB/Final_Test/Images`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from auditkit.data.errors import AnnotationError, EmptyPoolError, LabelRangeError
from auditkit.data.images import open_file
from auditkit.data.layouts.files import beside, first_existing, read_table
from auditkit.data.layouts.listing import Listing
from auditkit.data.source import DataSource

CLASSES = 43
CLASS_NAMES = tuple(f"{number:05d}" for number in range(CLASSES))
REGION = ("Roi.X1", "Roi.Y1", "Roi.X2", "Roi.Y2")
COLUMNS = ("Filename", *REGION, "ClassId")


@dataclass(frozen=True)
class _Sign:
    """One row of a table: an image, where in it the sign is, and its class."""

    file: Path
    region: tuple[int, int, int, int]  # left, top, right, bottom; the last two are inside
    label: int


def listing(path: Path, source: DataSource) -> Listing:
    """List GTSRB in `path`, `path/GTSRB` or `path/gtsrb/GTSRB`, in the order of its tables.

    Raises:
        PoolNotFoundError, AnnotationError, LabelRangeError, EmptyPoolError.

    """
    bases = (path, path / "GTSRB", path / "gtsrb" / "GTSRB")
    signs = _test_signs(bases) if source.part == "test" else _training_signs(bases)
    if not signs:
        raise EmptyPoolError(f"{path}: expected images in the tables of GTSRB, found none")

    def sample(index: int) -> tuple[Image.Image, int]:
        sign = signs[index]
        image = open_file(sign.file)
        return (_cut(image, sign) if source.region_of_interest else image), sign.label

    return Listing(
        name=str(path),
        size=len(signs),
        class_names=CLASS_NAMES,
        sample=sample,
        sample_name=lambda index: str(signs[index].file),
        channels=3,
    )


def _training_signs(bases: tuple[Path, ...]) -> list[_Sign]:
    folder = first_existing(
        [base / name for base in bases for name in ("Final_Training/Images", "Training")],
        "the training images of GTSRB",
    )
    classes = sorted(entry for entry in folder.iterdir() if entry.is_dir())
    return [sign for entry in classes for sign in _signs(entry / f"GT-{entry.name}.csv", entry)]


def _test_signs(bases: tuple[Path, ...]) -> list[_Sign]:
    folder = first_existing(
        [base / "Final_Test" / "Images" for base in bases], "the test images of GTSRB"
    )
    base = folder.parent.parent
    places = [place / "GT-final_test.csv" for place in (folder, base, base.parent)]
    table = next((place for place in places if place.exists()), None)
    if table is None:
        raise AnnotationError(
            f"{folder}: expected GT-final_test.csv in {', '.join(str(p.parent) for p in places)}, "
            "found none; the labels of the test images are released in a file of their own"
        )
    return list(_signs(table, folder))


def _signs(table: Path, folder: Path) -> Iterator[_Sign]:
    for row in read_table(table, ";", COLUMNS):
        try:
            left, top, right, bottom = (int(row[name]) for name in REGION)
            label = int(row["ClassId"])
        except ValueError as error:
            raise AnnotationError(
                f"{table}: expected whole numbers for {row['Filename']!r}, found {error}"
            ) from error
        if not 0 <= label < CLASSES:
            raise LabelRangeError(
                f"{table}: expected a class from 0 to {CLASSES - 1} for {row['Filename']!r}, "
                f"found {label}"
            )
        yield _Sign(beside(table, folder, row["Filename"]), (left, top, right, bottom), label)


def _cut(image: Image.Image, sign: _Sign) -> Image.Image:
    left, top, right, bottom = sign.region
    if not (0 <= left <= right < image.width and 0 <= top <= bottom < image.height):
        raise AnnotationError(
            f"{sign.file}: expected a region of interest within {image.width} x {image.height} "
            f"pixels, found {left}, {top} to {right}, {bottom}; restore the table"
        )
    return image.crop((left, top, right + 1, bottom + 1))
