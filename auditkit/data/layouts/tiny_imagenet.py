"""Tiny ImageNet as released. Its test images have no labels: the test part is `val`."""

from pathlib import Path

from auditkit.data.errors import AnnotationError, EmptyPoolError, LabelRangeError
from auditkit.data.layouts.files import beside, first_existing, images_in, read_text
from auditkit.data.layouts.listing import Listing
from auditkit.data.source import DataSource

FOLDER = "tiny-imagenet-200"


def listing(path: Path, source: DataSource) -> Listing:
    """List Tiny ImageNet in `path` or `path/tiny-imagenet-200`; classes as in `wnids.txt`.

    Raises:
        PoolNotFoundError, AnnotationError, LabelRangeError, EmptyPoolError.

    """
    candidates = [path / "wnids.txt", path / FOLDER / "wnids.txt"]
    root = first_existing(candidates, "Tiny ImageNet (wnids.txt)").parent
    identifiers = read_text(root / "wnids.txt", "one class identifier per line").split()
    if len(set(identifiers)) != len(identifiers):
        raise AnnotationError(f"{root / 'wnids.txt'}: expected each class once, found one twice")
    words = _words(root / "words.txt")
    names = [f"{known} {words[known]}" if known in words else known for known in identifiers]
    labels = {known: label for label, known in enumerate(identifiers)}
    files = _validation(root / "val", labels) if source.part == "test" else _training(root, labels)
    if not files:
        raise EmptyPoolError(f"{root}: expected images of its classes, found none; add them")
    return Listing.of_files(str(root), names, [f for f, _ in files], [label for _, label in files])


def _training(root: Path, labels: dict[str, int]) -> list[tuple[Path, int]]:
    return [
        (file, label)
        for known, label in labels.items()
        for file in images_in(_folder(root / "train" / known / "images").iterdir())
    ]


def _validation(folder: Path, labels: dict[str, int]) -> list[tuple[Path, int]]:
    table = folder / "val_annotations.txt"
    files: list[tuple[Path, int]] = []
    text = read_text(table, "lines of a file name, a class and a box, with tabs between them")
    for number, line in enumerate(text.splitlines(), start=1):
        name, _, rest = line.partition("\t")
        known = rest.partition("\t")[0].strip()
        if known not in labels:
            raise LabelRangeError(
                f"{table}, line {number}: expected a class of wnids.txt, found {known!r}"
            )
        files.append((beside(table, folder / "images", name), labels[known]))
    return files


def _words(path: Path) -> dict[str, str]:
    """Return the first of each class's words: "goldfish" for "goldfish, Carassius auratus"."""
    lines = read_text(path, "lines of a class and its words, with a tab between them").splitlines()
    pairs = (line.partition("\t") for line in lines)
    return {known: words.split(",")[0].strip() for known, _, words in pairs if words.strip()}


def _folder(path: Path) -> Path:
    return first_existing([path], "the training images of a class")
