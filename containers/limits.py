"""How much of another party's archive is read before it is refused."""

from dataclasses import dataclass

MAX_ARCHIVE_BYTES = 128 * 2**30
"""Largest saved image; those with a complete CUDA development kit have about 20 GiB."""

MAX_MEMBERS = 20_000
"""Most members of the archive: an image has at most a few per layer."""

MAX_DOCUMENT_BYTES = 4_000_000
"""Largest JSON document; the size that registries accept for a manifest as well."""

MAX_LAYERS = 1000
"""Most layers; engines that stack file systems stop at 127 or a little above."""

MAX_LAYER_BYTES = 64 * 2**30
"""Largest layer after decompression."""

MAX_TOTAL_BYTES = 128 * 2**30
"""Largest sum of all layers after decompression."""

MAX_FILES = 1_000_000
"""Most files in all layers together, when images are compared file by file in memory."""


@dataclass(frozen=True)
class Limits:
    """Bounds on one archive; sizes in bytes."""

    archive_bytes: int = MAX_ARCHIVE_BYTES
    members: int = MAX_MEMBERS
    document_bytes: int = MAX_DOCUMENT_BYTES
    layers: int = MAX_LAYERS
    layer_bytes: int = MAX_LAYER_BYTES
    total_bytes: int = MAX_TOTAL_BYTES
    files: int = MAX_FILES


DEFAULT_LIMITS = Limits()
