"""Which container image it is: recomputed from the image itself, never an engine's word."""

from typing import Literal

from pydantic import Field

from schemas.base import Schema, Sha256

ManifestSource = Literal["archive", "derived"]


class ImageIdentity(Schema):
    """Digests of a saved container image; `config_digest` is what an order's `images` lists.

    The configuration names every layer by the digest of its uncompressed bytes, so its own digest
    covers all that runs, however the image was saved or compressed.
    """

    schema_version: Literal[1] = 1
    config_digest: Sha256 = Field(description="SHA-256 of the exact bytes of the configuration")
    diff_ids: tuple[Sha256, ...] = Field(
        description="SHA-256 of each uncompressed layer, lowest first"
    )
    manifest_digest: Sha256 = Field(description="SHA-256 of the OCI image manifest")
    manifest_source: ManifestSource = Field(
        description="archive: the manifest's bytes as found; derived: the manifest that follows "
        "from the configuration and the uncompressed layers"
    )
    archive_digest: Sha256 = Field(description="SHA-256 of the saved file")
