"""What every launch of a container shares: the image is brought in, and nothing is left behind."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from containers.container import Container
from containers.engine import Engine
from containers.engine_calls import Progress, report_nothing
from containers.engine_errors import EngineError
from containers.filesystem import FileState, FileSystem
from containers.identity import InspectedImage, inspect_image
from containers.limits import DEFAULT_LIMITS
from containers.repack import loadable

# Who the agent is inside when root launches it; anybody else stays who they are.
AGENT_USER = (10001, 10001)
MOST_PROCESSES = 512  # the libraries' threads count as processes
PUBLIC_FOLDER_MODE = 0o755
PUBLIC_FILE_MODE = 0o644


def inspect_with_files(archive: Path) -> tuple[InspectedImage, Mapping[str, FileState]]:
    """Hash an archive; return the image, and the files that a container of it must see.

    Raises:
        ContainerError: the archive is no image, or is damaged.
        OSError: it can't be read.
    """
    system = FileSystem(DEFAULT_LIMITS.files)
    image = inspect_image(archive, system.apply)
    return image, dict(system.files())


def bring_in(
    engine: Engine, archive: Path, image: InspectedImage, on_progress: Progress = report_nothing
) -> str:
    """Have the engine load the image unless it has it; return its name there."""
    image_id = engine.find_image(image.identity)
    if image_id is None:
        with loadable(archive) as path:
            image_id = engine.load(path, image.identity, on_progress)
    return image_id


def user_inside(*, rootless: bool) -> tuple[int, int]:
    """Return who the agent is inside a container: numbers of user and group."""
    if rootless:
        return (0, 0)  # which is whoever runs the engine, outside
    if os.getuid() != 0:
        return (os.getuid(), os.getgid())
    return AGENT_USER


def make_readable(folder: Path) -> None:
    """Let everybody read a folder and all that is in it: the user inside is somebody else."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(PUBLIC_FOLDER_MODE if path.is_dir() else PUBLIC_FILE_MODE)


@contextlib.contextmanager
def removed_at_the_end(container: Container) -> Iterator[Container]:
    """Lend a container out; whatever happens, nothing of it is left running."""
    try:
        yield container
    finally:
        with contextlib.suppress(EngineError):  # an engine that is gone has said so already
            container.remove()
