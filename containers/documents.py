"""The JSON documents of a saved image, as far as they say which image it is.

Sources: OCI Image Format Specification 1.1 (`descriptor.md`, `manifest.md`, `image-index.md`,
`config.md`, `image-layout.md`), and the `manifest.json` of Docker's archives (Docker Image
Specification 1.2, "Combined Image JSON + Filesystem Changeset Format").
"""

from types import MappingProxyType
from typing import Any, Literal, TypeVar

from pydantic import (
    Field,
    JsonValue,
    TypeAdapter,
    ValidationError,
)

from auditkit.evidence import canonical
from auditkit.evidence.errors import CanonicalFormError
from auditkit.evidence.image_documents import (
    DIGEST_PREFIX,
    Digest,
    ImageDocument,
    RootFileSystem,
)
from containers.errors import DocumentFormatError
from schemas.base import Count

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
INDEXES = frozenset({OCI_INDEX, DOCKER_INDEX})
MANIFESTS = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})

T = TypeVar("T")


class Platform(ImageDocument):
    """What an image of an index runs on."""

    architecture: str = "unknown"
    os: str = "unknown"
    variant: str | None = None

    def __str__(self) -> str:
        """Return it as engines take it: `linux/arm64/v8`."""
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


class Descriptor(ImageDocument):
    """A reference to a blob by digest and size (OCI `descriptor.md`)."""

    media_type: str = Field(alias="mediaType")
    digest: Digest
    size: Count
    platform: Platform | None = None
    annotations: dict[str, str] | None = None

    @property
    def hex_digest(self) -> str:
        """The SHA-256 alone."""
        return self.digest.removeprefix(DIGEST_PREFIX)

    @property
    def member(self) -> str:
        """Where an OCI layout keeps the blob (OCI `image-layout.md`)."""
        return f"blobs/sha256/{self.hex_digest}"


class Index(ImageDocument):
    """A list of images (OCI `image-index.md`); what makes a manifest of it is refused."""

    schema_version: Literal[2] = Field(alias="schemaVersion")
    media_type: str | None = Field(default=None, alias="mediaType")
    manifests: list[Descriptor]
    config: None = None
    layers: None = None


class Manifest(ImageDocument):
    """One image (OCI `manifest.md`); what makes an index of it is refused."""

    schema_version: Literal[2] = Field(alias="schemaVersion")
    media_type: str | None = Field(default=None, alias="mediaType")
    config: Descriptor
    layers: list[Descriptor] | None
    manifests: None = None


class LayoutMarker(ImageDocument):
    """The file `oci-layout`."""

    version: Literal["1.0.0"] = Field(alias="imageLayoutVersion")


class DockerImage(ImageDocument):
    """One image of Docker's `manifest.json`: names of members of the archive."""

    config: str = Field(alias="Config")
    tags: list[str] | None = Field(default=None, alias="RepoTags")
    layers: list[str] | None = Field(alias="Layers")


class ImageConfig(ImageDocument):
    """The configuration of an image (OCI `config.md`)."""

    rootfs: RootFileSystem
    config: dict[str, JsonValue] | None = None

    @property
    def diff_ids(self) -> tuple[str, ...]:
        """The layers' SHA-256 alone."""
        return tuple(digest.removeprefix(DIGEST_PREFIX) for digest in self.rootfs.diff_ids or ())


ADAPTERS: MappingProxyType[Any, TypeAdapter[Any]] = MappingProxyType(
    {
        model: TypeAdapter(model)
        for model in (Index, Manifest, LayoutMarker, ImageConfig, list[DockerImage])
    }
)


def parse(data: bytes, model: type[T], what: str) -> T:
    """Read one document.

    Raises:
        DocumentFormatError: it is not strict JSON (RFC 7493), or not the document it should be.
    """
    try:
        canonical.parse(data)  # refuses what another reader could understand differently
        document: T = ADAPTERS[model].validate_json(data)
    except CanonicalFormError as error:
        raise DocumentFormatError(f"{what}: {error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise DocumentFormatError(
            f"{what} is not what it should be: {place or 'document'}: {first['msg']}"
        ) from error
    return document


def derived_manifest(config: bytes, layers: tuple[tuple[str, int], ...]) -> bytes:
    """Return the OCI manifest of an image that was saved without one.

    It lists the configuration and the uncompressed layers, with OCI's media types and nothing else,
    as canonical JSON (RFC 8785), so that an image has exactly one.

    Args:
        config: the exact bytes of the configuration.
        layers: SHA-256 (lower-case hexadecimal) and size in bytes of each uncompressed layer.
    """

    def descriptor(media_type: str, digest: str, size: int) -> dict[str, str | int]:
        return {"mediaType": media_type, "digest": DIGEST_PREFIX + digest, "size": size}

    return canonical.to_bytes(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": descriptor(OCI_CONFIG, canonical.sha256_hex(config), len(config)),
            "layers": [descriptor(OCI_LAYER, digest, size) for digest, size in layers],
        }
    )
