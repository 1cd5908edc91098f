"""Are the files that a container sees those of its image? Read from the container itself.

A saved image does not show it: engines write saved layers by the list of files that they kept when
they loaded the image, so that a file which was added to their folder, or a changed mode or owner,
is in none of them. The container's own file system, exported before it starts, hides nothing.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import PurePosixPath

from containers.engine_errors import StoredImageError
from containers.errors import LayerFormatError
from containers.filesystem import FileState, state_of
from containers.limits import DEFAULT_LIMITS, Limits
from containers.tar import PieceSource, TarReader, check_new, path_parts

WHAT = "the container's file system"
ROOT = "/"
MOST_SHOWN = 5

ENGINE_PLACES = frozenset(
    {
        "/.dockerenv",
        "/dev",
        "/dev/console",
        "/dev/pts",
        "/dev/shm",  # noqa: S108 - inside
        "/etc",
        "/etc/hostname",
        "/etc/hosts",
        "/etc/mtab",
        "/etc/resolv.conf",
        "/proc",
        "/run",
        "/run/.containerenv",
        "/sys",
    }
)
"""What engines put into every container, empty, to mount something there when it starts."""

MOUNT_TABLE = "/proc/mounts"
WRITABLE_BY_OTHERS = 0o022


def check_exported(
    pieces: Iterable[bytes], expected: Mapping[str, FileState], limits: Limits = DEFAULT_LIMITS
) -> None:
    """Check the exported file system of a container that has not been started yet.

    Args:
        pieces: a tar stream, in pieces of any size.
        expected: every file of the image by its absolute path.
        limits: bounds on what is read.

    Raises:
        StoredImageError: a file was added, removed or changed.
        ContainerError: the stream is no tar archive, damaged, or too large.
    """
    found = dict(_files(pieces, limits))
    differences = tuple(islice(_differences(expected, found), MOST_SHOWN))
    if differences:
        raise StoredImageError(
            "the engine's copy of the image has been changed: the container would not see the "
            f"image's files ({'; '.join(differences)}). Remove the image from the engine, and "
            "load it again"
        )


def _files(pieces: Iterable[bytes], limits: Limits) -> Iterator[tuple[str, FileState]]:
    seen: dict[str, FileState] = {}
    reader = TarReader(PieceSource(pieces), WHAT, limits.files)
    for entry in reader:
        path = _absolute(entry.name)
        check_new(path, seen, WHAT)
        if entry.kind == "hard link":
            target = _absolute(entry.link)
            if target not in seen:
                raise LayerFormatError(
                    f"{path[:200]!r} in {WHAT} is a hard link to {target[:200]!r}, which has not "
                    "come before it"
                )
            seen[path] = seen[target]
        else:
            seen[path] = state_of(entry, reader)
        yield path, seen[path]


def _absolute(name: str) -> str:
    return ROOT + "/".join(path_parts(name, WHAT))


def _differences(
    expected: Mapping[str, FileState], found: Mapping[str, FileState]
) -> Iterator[str]:
    # Folders that a layer does not list, and that engines make for the files in them.
    implied = {str(one) for path in expected for one in PurePosixPath(path).parents}
    for path in sorted(expected.keys() | found.keys()):
        before, after = expected.get(path), found.get(path)
        if path == ROOT or _is_same(before, after):
            continue
        if after is None:
            yield f"{path[:200]!r} is missing"
            continue
        is_implied = before is None and path in implied and _is_plain_folder(after)
        if not is_implied and not (path in ENGINE_PLACES and _is_engines_own(after)):
            yield f"{path[:200]!r} was {'added' if before is None else 'changed'}"


def _is_same(before: FileState | None, after: FileState | None) -> bool:
    if before is None or after is None:
        return before is after
    if before.kind == "symbolic link":
        before = replace(before, mode=after.mode)  # on disk links have no mode of their own
    return before == after


def _is_engines_own(state: FileState) -> bool:
    is_empty = state.kind == "file" and state.size == 0
    is_mount_table = state.kind == "symbolic link" and state.link == MOUNT_TABLE
    return is_empty or is_mount_table or _is_plain_folder(state)


def _is_plain_folder(state: FileState) -> bool:
    is_roots = (state.user, state.group) == (0, 0)
    return state.kind == "directory" and is_roots and not state.mode & WRITABLE_BY_OTHERS
