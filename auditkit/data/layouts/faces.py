"""Faces for identification: one folder per identity (the layout of CASIA WebFace), no test part.

A fixed share of each identity's images is held out instead. An image's place depends on its name
and on nothing else about the set but how many images the identity has.
"""

import hashlib
import logging
from pathlib import Path

from auditkit.data.errors import EmptyPoolError
from auditkit.data.layouts.files import images_in
from auditkit.data.layouts.image_folder import class_folders
from auditkit.data.layouts.listing import Listing
from auditkit.data.source import DataSource, Part

# Below it an identity cannot be both trained on and tested.
LEAST_IMAGES = 2

HELD_OUT_DOMAIN = b"auditkit/held-out/v1\0"

_LOG = logging.getLogger(__name__)


def listing(path: Path, source: DataSource) -> Listing:
    """List one part of the faces in `path/<identity>/<image>`, sorted by name.

    An identity with fewer than two images is left out, in both parts, with a warning in the log.

    Raises:
        PoolNotFoundError, ClassFoldersError, EmptyPoolError.

    """
    found = {name: images_in((path / name).iterdir()) for name in class_folders(path)}
    identities = [name for name, files in found.items() if len(files) >= LEAST_IMAGES]
    if not identities:
        raise EmptyPoolError(
            f"{path}: expected identities with at least {LEAST_IMAGES} images each, found none "
            f"among {len(found)} folders; add images"
        )
    if len(identities) < len(found):
        _LOG.warning(
            "%s: %d of %d identities have fewer than %d images and are left out",
            path,
            len(found) - len(identities),
            len(found),
            LEAST_IMAGES,
        )
    part = source.part or "train"
    samples = [
        (file, label)
        for label, name in enumerate(identities)
        for file in part_of(found[name], part, source.held_out)
    ]
    return Listing.of_files(
        str(path), identities, [file for file, _ in samples], [label for _, label in samples]
    )


def part_of(files: list[Path], part: Part, share: float) -> list[Path]:
    """Return one part of an identity's images, sorted: those with the lowest digests are held out.

    At least one image is in each part.
    """
    count = min(max(round(share * len(files)), 1), len(files) - 1)
    held_out = set(sorted(files, key=_place)[:count])
    return [file for file in files if (file in held_out) == (part == "test")]


def _place(file: Path) -> bytes:
    name = f"{file.parent.name}/{file.name}".encode(errors="surrogateescape")
    return hashlib.sha256(HELD_OUT_DOMAIN + name).digest()
