"""Images that developers trained in, kept by the auditor to ask models of their own code.

    images/<digest>.tar    as `auditkit server add-image` took it in, by its configuration's SHA-256

An image is only ever run by the digest that its session was granted for.
"""

import shutil
from pathlib import Path

from auditor_server.home import PRIVATE_FOLDER_MODE
from auditor_server.store.blobs import INCOMING_PREFIX, sync
from containers.identity import identify
from containers.progress import Progress, silent
from schemas import ImageIdentity

IMAGES_FOLDER = "images"


class TrainingImages:
    """The folder of images in one home."""

    def __init__(self, home: Path) -> None:
        """Take the home; the folder is made when the first image comes."""
        self._folder = home / IMAGES_FOLDER

    def path(self, config_digest: str) -> Path:
        """Return where an image lies, or would lie."""
        return self._folder / f"{config_digest}.tar"

    def has(self, config_digest: str | None) -> bool:
        """Tell whether an image is there."""
        return config_digest is not None and self.path(config_digest).is_file()

    def add(self, archive: Path, progress: Progress = silent) -> ImageIdentity:
        """Take in a saved image, under the digest that is recomputed from its every byte.

        Raises:
            ContainerError: the archive is no image, or is damaged.
            OSError: it can't be read, or there is no room for it.

        """
        self._folder.mkdir(mode=PRIVATE_FOLDER_MODE, exist_ok=True)
        # The copy is what is identified: the file may change meanwhile.
        incoming = self._folder / f"{INCOMING_PREFIX}{archive.name}"
        try:
            progress("copying the image")
            shutil.copyfile(archive, incoming)
            progress("hashing the copy")
            identity = identify(incoming)
            sync(incoming)
            incoming.replace(self.path(identity.config_digest))
        finally:
            incoming.unlink(missing_ok=True)
        return identity
