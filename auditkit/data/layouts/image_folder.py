"""An image folder: one folder per class, images anywhere below it."""

from pathlib import Path

from auditkit.data.errors import ClassFoldersError, EmptyPoolError, PoolNotFoundError
from auditkit.data.layouts.files import IMAGE_SUFFIXES, images_in
from auditkit.data.layouts.listing import Listing
from auditkit.data.source import PARTS, DataSource


def listing(path: Path, source: DataSource) -> Listing:
    """List the image folder at `path`, or the part of it that `source` names."""
    return listed(path / source.part if source.part else path)


def listed(folder: Path) -> Listing:
    """List `folder/<class>/.../<file>`; classes and files are sorted by name.

    Raises:
        PoolNotFoundError, ClassFoldersError, EmptyPoolError.

    """
    classes = class_folders(folder)
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = images_in((folder / name).rglob("*"))
        files += found
        labels += [label] * len(found)
    if not files:
        raise EmptyPoolError(
            f"{folder}: expected images ({', '.join(sorted(IMAGE_SUFFIXES))}) in the class "
            "folders, found none; add images"
        )
    return Listing.of_files(str(folder), classes, files, labels)


def class_folders(folder: Path) -> list[str]:
    """Return the names of the class folders, sorted.

    Raises:
        PoolNotFoundError, ClassFoldersError.

    """
    if not folder.is_dir():
        raise PoolNotFoundError(f"{folder}: expected an image folder, found none; check the path")
    classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    if not classes:
        raise ClassFoldersError(
            f"{folder}: expected one folder per class, found none; sort the images into "
            f"{folder}/<class>/"
        )
    if set(classes) <= set(PARTS):
        raise ClassFoldersError(
            f"{folder}: expected one folder per class, found the parts {', '.join(classes)}; "
            "choose one with `part`"
        )
    return classes
