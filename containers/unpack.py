"""An image's file system on disk, for running a program of it: contents only, no owners, no times.

Nothing is ever written outside the folder: links in the image are followed as they would be inside
it (OCI Image Format Specification 1.1, `layer.md`, sections "Applying Changesets" and "Whiteouts").
"""

import os
import shutil
import stat
from pathlib import Path

from containers.errors import LayerFormatError
from containers.filesystem import OPAQUE, WHITEOUT
from containers.layers import LayerStream
from containers.tar import Entry, TarReader, path_parts
from containers.tree import FILE_MODE, PROGRAM_MODE

MAX_LINKS = 40
"""Most links followed for one path, as on Linux."""


def resolve(root: Path, path: str) -> Path:
    """Return where a path of the image lies on disk, all links followed inside the image.

    What does not exist is taken to be no link.

    Raises:
        LayerFormatError: links that lead in a circle.
    """
    pending = path.split("/")[::-1]
    found: list[str] = []
    links = 0
    while pending:
        part = pending.pop()
        if part == "..":
            found = found[:-1]
        elif part not in {"", "."}:
            place = root.joinpath(*found, part)
            if not place.is_symlink():
                found.append(part)
                continue
            links += 1
            if links > MAX_LINKS:
                raise LayerFormatError(f"links of the image lead in a circle at /{path}")
            target = str(place.readlink())
            found = [] if target.startswith("/") else found
            pending += target.split("/")[::-1]
    return root.joinpath(*found)


class Unpacker:
    """Applies layers to a folder, lowest first."""

    def __init__(self, root: Path, most_files: int) -> None:
        """Take an empty folder, and how many files of each layer to accept."""
        self._root = root
        self._most_files = most_files

    def apply(self, what: str, layer: LayerStream) -> None:
        """Put a layer on top: a `LayerVisitor`.

        Raises:
            OSError: the folder cannot be written to.
            ArchiveFormatError: the layer is not a tar archive, or a name leads out of it.
            LayerFormatError: a hard link to nothing, or a file in place of a folder.
        """
        written: set[Path] = set()
        reader = TarReader(layer, what, self._most_files)
        for entry in reader:
            parts = path_parts(entry.name, what)
            if not parts:
                continue
            folder = resolve(self._root, "/".join(parts[:-1]))
            if parts[-1].startswith(WHITEOUT):
                _white_out(folder, parts[-1], written)
                continue
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except (FileExistsError, NotADirectoryError) as error:
                raise LayerFormatError(
                    f"{what} has a file below {'/'.join(parts[:-1])[:200]!r}, which is no folder"
                ) from error
            self._put(entry, reader, folder / parts[-1], what)
            written.add(folder / parts[-1])

    def _put(self, entry: Entry, reader: TarReader, place: Path, what: str) -> None:
        if entry.kind == "directory":
            if place.is_symlink() or not place.is_dir():
                _remove(place)
                place.mkdir()
            return
        _remove(place)
        if entry.kind == "symbolic link":
            place.symlink_to(entry.link)
        elif entry.kind == "hard link":
            *folder, name = path_parts(entry.link, what)
            source = resolve(self._root, "/".join(folder)) / name
            if not source.is_file() and not source.is_symlink():
                raise LayerFormatError(f"{what} has a hard link to {entry.link[:200]!r}: no file")
            os.link(source, place, follow_symlinks=False)
        elif entry.kind == "file":
            with place.open("xb") as file:
                file.writelines(reader.data())
            place.chmod(PROGRAM_MODE if entry.mode & stat.S_IXUSR else FILE_MODE)


def _white_out(folder: Path, name: str, written: set[Path]) -> None:
    if not folder.is_dir():
        return
    hidden = folder.iterdir() if name == OPAQUE else [folder / name.removeprefix(WHITEOUT)]
    for place in list(hidden):
        # What the same layer brings is not hidden by it.
        if place not in written and place.parent == folder and place != folder:
            _remove(place)


def _remove(place: Path) -> None:
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)
