"""The same image in an archive that every engine loads.

Engines before Docker 25 do not load a plain OCI layout, which is how an image comes out of a
registry with the manifest that was signed. The configuration, and with it the image, stays what it
was.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from containers.archive import open_archive
from containers.derive import copy_layer
from containers.identity import inspect_image
from containers.layouts import DOCKER_MEMBER
from containers.limits import DEFAULT_LIMITS
from containers.progress import Counter, silent
from containers.write import new_image

REPACKING = "writing the image for the engine"


@contextmanager
def loadable(path: Path) -> Iterator[Path]:
    """Give an archive of this image that `docker load` takes: the file itself where that can be.

    Raises:
        OSError: a file cannot be read or written.
        ContainerError: the archive does not hold.
    """
    with open_archive(path, DEFAULT_LIMITS) as archive:
        is_docker_archive = DOCKER_MEMBER in archive
    if is_docker_archive:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="auditkit-", dir=path.parent) as folder:
        repacked = Path(folder) / path.name
        counter = Counter(silent, REPACKING, path.stat().st_size)
        with new_image(repacked) as writer:
            image = inspect_image(path, partial(copy_layer, writer, counter))
            writer.finish_as(image.config)
        yield repacked
