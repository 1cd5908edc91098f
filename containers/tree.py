"""Folders and files as the members of a layer: sorted, and without anything that differs by host.

Owner and group are 0, times are left to the writer, and permissions are 0755 for folders and
programs and 0644 for other files, whatever the umask was when they were made.
"""

import os
import posixpath
import stat
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from containers.errors import SourceChangedError, UnsafeSourceError
from containers.filesystem import WHITEOUT
from containers.tar import CHUNK, MAX_NAME_CHARACTERS, MAX_PART_CHARACTERS
from containers.tar_writer import Member

FOLDER_MODE = 0o755
PROGRAM_MODE = 0o755
FILE_MODE = 0o644


def folder(name: str) -> Member:
    """Return a folder as a member, by its path in the image."""
    return Member(name=name, kind="directory", mode=FOLDER_MODE)


def parents(name: str) -> Iterator[Member]:
    """Return the folders above a path in the image, the highest first."""
    parts = name.split("/")[:-1]
    for count in range(1, len(parts) + 1):
        yield folder("/".join(parts[:count]))


def from_file(source: Path, name: str) -> Member:
    """Return one file of the host as a member.

    Args:
        source: the file; a link is followed.
        name: its path in the image, without a leading slash.

    Raises:
        OSError: it cannot be read.
        UnsafeSourceError: it is no regular file, or the name cannot stand in a layer.
    """
    _check_name(source, name)
    status = source.stat()
    if not stat.S_ISREG(status.st_mode):
        raise UnsafeSourceError(f"expected a file, found {source}, which is none; leave it out")
    mode = PROGRAM_MODE if status.st_mode & stat.S_IXUSR else FILE_MODE
    return Member(
        name=name,
        kind="file",
        mode=mode,
        size=status.st_size,
        content=partial(read_exactly, source, 0, status.st_size),
    )


def from_folder(source: Path, name: str) -> Iterator[Member]:
    """Return a folder of the host and all that is in it as members, sorted.

    Links are kept as links; each must lead to something within the folder, by a relative path.

    Args:
        source: the folder.
        name: its path in the image, without a leading slash.

    Raises:
        OSError: something in it cannot be read.
        UnsafeSourceError: a link leads out of the folder or to nothing, something is neither file,
            folder nor link, or a name cannot stand in a layer.
    """
    _check_name(source, name)
    yield folder(name)
    for path in sorted(source.iterdir(), key=os.fsencode):
        yield from _below(source, path, f"{name}/{path.name}")


def layer(members: Iterable[Member]) -> list[Member]:
    """Return members in the order in which they stand in a layer, with the folders above them.

    Raises:
        UnsafeSourceError: two different members have the same path.
    """
    found: dict[str, Member] = {}
    for member in members:
        for one in (*parents(member.name), member):
            before = found.setdefault(one.name, one)
            if before is not one and "directory" not in {one.kind} & {before.kind}:
                raise UnsafeSourceError(
                    f"two files would lie at /{one.name}; rename one, or leave it out"
                )
    return sorted(found.values(), key=lambda member: member.name.encode())


def normalise_modes(source: Path) -> None:
    """Give files and folders on the host the permissions that they have in a layer."""
    for path in (source, *source.rglob("*")):
        if not path.is_symlink():
            is_program = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
            path.chmod(PROGRAM_MODE if is_program else FILE_MODE)


def read_exactly(source: Path, offset: int, size: int) -> Iterator[bytes]:
    """Return a part of a file in pieces.

    Raises:
        OSError: it cannot be read.
        SourceChangedError: the file has become shorter.
    """
    with source.open("rb") as file:
        file.seek(offset)
        while size:
            piece = file.read(min(CHUNK, size))
            if not piece:
                raise SourceChangedError(f"{source} was changed while it was read; try again")
            size -= len(piece)
            yield piece


def _below(top: Path, path: Path, name: str) -> Iterator[Member]:
    if path.is_symlink():
        yield _link(top, path, name)
    elif path.is_dir():
        _check_name(path, name)
        yield folder(name)
        for inner in sorted(path.iterdir(), key=os.fsencode):
            yield from _below(top, inner, f"{name}/{inner.name}")
    else:
        yield from_file(path, name)


def _link(top: Path, path: Path, name: str) -> Member:
    _check_name(path, name)
    target = os.readlink(path)  # noqa: PTH115 - as it is, not normalised
    place = posixpath.normpath(posixpath.join(path.relative_to(top).parent.as_posix(), target))
    stays = not posixpath.isabs(target) and place.split("/")[0] != ".."
    if not (stays and path.exists() and path.resolve().is_relative_to(top.resolve())):
        raise UnsafeSourceError(
            f"{path} is a link to {target!r}; expected one that leads, by a relative path, to "
            f"something in {top}. Put the file itself there, or leave the link out"
        )
    _check_name(path, target)
    return Member(name=name, kind="symbolic link", mode=0o777, link=target)


def _check_name(source: Path, name: str) -> None:
    parts = name.split("/")
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise UnsafeSourceError(f"the name of {source!r} is not UTF-8; rename it") from error
    if any(part.startswith(WHITEOUT) for part in parts):
        raise UnsafeSourceError(
            f"{source} has a name that begins with {WHITEOUT!r}, by which a layer hides files of "
            "lower ones; rename it"
        )
    is_long = any(len(part.encode()) > MAX_PART_CHARACTERS for part in parts)
    if is_long or len(name.encode()) > MAX_NAME_CHARACTERS:
        raise UnsafeSourceError(f"the path of {source} is too long for a layer; shorten it")
