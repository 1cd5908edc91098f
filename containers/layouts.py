"""Where in a saved image its configuration and layers lie, by either layout.

Every document is verified against the digest that names it, if one does, before it is believed.
"""

import re
from dataclasses import dataclass

from auditkit.evidence import canonical
from containers.archive import Archive
from containers.documents import (
    DOCKER_CONFIG,
    INDEXES,
    MANIFESTS,
    OCI_CONFIG,
    Descriptor,
    DockerImage,
    Index,
    LayoutMarker,
    Manifest,
    parse,
)
from containers.errors import (
    AmbiguousImageError,
    ArchiveFormatError,
    BlobDigestError,
    BlobSizeError,
    DocumentFormatError,
    NoImageError,
)

DOCKER_MEMBER = "manifest.json"
OCI_INDEX_MEMBER = "index.json"
OCI_MARKER_MEMBER = "oci-layout"

MAX_INDEX_DEPTH = 4
"""How deep indexes may be nested; builders nest them once."""

ATTESTATION_ANNOTATION = ("vnd.docker.reference.type", "attestation-manifest")
ATTESTATION_LAYER = "application/vnd.in-toto+json"

# `<digest>.json`, as Docker names configurations, and `blobs/sha256/<digest>`.
NAMED_BY_DIGEST = re.compile(r"(?:blobs/sha256/([0-9a-f]{64})|([0-9a-f]{64})\.json)")


@dataclass(frozen=True)
class Blob:
    """A member of the archive, and what its stored bytes are said to be, where it is said."""

    member: str
    digest: str | None
    size: int | None = None

    def check(self, digest: str, size: int) -> None:
        """Compare with what was found.

        Raises:
            BlobSizeError: another size.
            BlobDigestError: other bytes.
        """
        if self.size is not None and size != self.size:
            raise BlobSizeError(
                f"expected {self.member[:200]!r} to have {self.size} bytes, found {size}; the "
                "image has been changed or damaged"
            )
        if self.digest is not None and digest != self.digest:
            raise BlobDigestError(
                f"expected {self.member[:200]!r} to have the SHA-256 {self.digest}, found {digest};"
                " the image has been changed or damaged"
            )


@dataclass(frozen=True)
class Layout:
    """An image as one of the layouts describes it; the exact manifest if it has one."""

    name: str
    config: bytes
    layers: tuple[Blob, ...]
    manifest: bytes | None

    @property
    def config_digest(self) -> str:
        """SHA-256 of the configuration, in lower-case hexadecimal."""
        return canonical.sha256_hex(self.config)


def find_layouts(archive: Archive) -> tuple[Layout, ...]:
    """Return the image by each layout that the archive has, the OCI layout first.

    Raises:
        NoImageError: the archive has neither layout, or an empty one.
        AmbiguousImageError: it has several images.
        ContainerError: a document is missing, damaged, changed or too large.
    """
    layouts = []
    if (OCI_INDEX_MEMBER in archive) != (OCI_MARKER_MEMBER in archive):
        raise ArchiveFormatError(
            f"expected both or none of {OCI_INDEX_MEMBER!r} and {OCI_MARKER_MEMBER!r}, found one; "
            "save the image again"
        )
    if OCI_INDEX_MEMBER in archive:
        layouts.append(_oci_layout(archive))
    if DOCKER_MEMBER in archive:
        layouts.append(_docker_layout(archive))
    if not layouts:
        raise NoImageError(
            f"expected {DOCKER_MEMBER!r} (a Docker archive) or {OCI_INDEX_MEMBER!r} (an OCI "
            "layout), found neither; save the image with `docker save` or `skopeo copy`"
        )
    return tuple(layouts)


def _docker_layout(archive: Archive) -> Layout:
    images = parse(archive.document(DOCKER_MEMBER), list[DockerImage], DOCKER_MEMBER)
    if not images:
        raise NoImageError(f"{DOCKER_MEMBER!r} lists no image; save the image again")
    if len(images) > 1:
        names = [(image.tags or [image.config])[0] for image in images]
        raise _ambiguous(names)
    image = images[0]
    return Layout(
        name="Docker archive",
        config=_read(archive, _docker_blob(image.config)),
        layers=tuple(_docker_blob(member) for member in image.layers or ()),
        manifest=None,
    )


def _docker_blob(member: str) -> Blob:
    named = NAMED_BY_DIGEST.fullmatch(member)
    return Blob(member, (named[1] or named[2]) if named else None)


def _oci_layout(archive: Archive) -> Layout:
    parse(archive.document(OCI_MARKER_MEMBER), LayoutMarker, OCI_MARKER_MEMBER)
    descriptor = _only_image(archive)
    manifest = _manifest(archive, descriptor)
    if manifest.config.media_type not in {OCI_CONFIG, DOCKER_CONFIG}:
        raise NoImageError(
            f"expected the configuration of an image, found {manifest.config.media_type[:200]!r}; "
            "this is an artefact of another kind"
        )
    return Layout(
        name="OCI layout",
        config=_read(archive, _oci_blob(manifest.config)),
        layers=tuple(_oci_blob(layer) for layer in manifest.layers or ()),
        manifest=_read(archive, _oci_blob(descriptor)),
    )


def _only_image(archive: Archive) -> Descriptor:
    listed = _listed_manifests(archive)
    # An engine that saves one platform of several keeps the whole index, and the blobs of one.
    present = [descriptor for descriptor in listed if descriptor.member in archive]
    images = [found for found in present if not _is_attestation(archive, found)]
    if len(images) > 1:
        raise _ambiguous([str(found.platform or found.digest) for found in images])
    if images:
        return images[0]
    if listed and not present:
        return listed[0]  # reading it says which blob is missing
    raise NoImageError(f"{OCI_INDEX_MEMBER!r} lists no image; save the image again")


def _listed_manifests(archive: Archive) -> list[Descriptor]:
    """Return every manifest in the index and in those nested in it, each once."""
    found: dict[str, Descriptor] = {}
    seen: set[str] = set()
    indexes = [parse(archive.document(OCI_INDEX_MEMBER), Index, OCI_INDEX_MEMBER)]
    for _ in range(MAX_INDEX_DEPTH):
        nested = []
        for descriptor in (one for index in indexes for one in index.manifests):
            if descriptor.media_type in MANIFESTS:
                found.setdefault(descriptor.digest, descriptor)
            elif descriptor.media_type not in INDEXES:
                raise DocumentFormatError(
                    f"{OCI_INDEX_MEMBER} lists {descriptor.media_type[:200]!r}; expected manifests "
                    "and indexes of images"
                )
            elif descriptor.digest not in seen:
                seen.add(descriptor.digest)
                nested.append(_index(archive, descriptor))
        if not nested:
            return list(found.values())
        indexes = nested
    raise DocumentFormatError(f"expected indexes nested at most {MAX_INDEX_DEPTH} deep, found more")


def _is_attestation(archive: Archive, descriptor: Descriptor) -> bool:
    """Tell whether this is a build attestation, which builders file beside the image.

    The annotation alone is only a claim; that no layer is a file system makes it nothing to run.
    """
    name, value = ATTESTATION_ANNOTATION
    if (descriptor.annotations or {}).get(name) != value:
        return False
    layers = _manifest(archive, descriptor).layers or ()
    return bool(layers) and all(layer.media_type == ATTESTATION_LAYER for layer in layers)


def _index(archive: Archive, descriptor: Descriptor) -> Index:
    index = parse(_read(archive, _oci_blob(descriptor)), Index, descriptor.member)
    _check_media_type(descriptor, index.media_type)
    return index


def _manifest(archive: Archive, descriptor: Descriptor) -> Manifest:
    manifest = parse(_read(archive, _oci_blob(descriptor)), Manifest, descriptor.member)
    _check_media_type(descriptor, manifest.media_type)
    return manifest


def _check_media_type(descriptor: Descriptor, found: str | None) -> None:
    if found not in {None, descriptor.media_type}:
        raise DocumentFormatError(
            f"{descriptor.member} is listed as {descriptor.media_type[:200]!r} and says that it is "
            f"{(found or '')[:200]!r}"
        )


def _oci_blob(descriptor: Descriptor) -> Blob:
    return Blob(descriptor.member, descriptor.hex_digest, descriptor.size)


def _read(archive: Archive, blob: Blob) -> bytes:
    data = archive.document(blob.member)
    blob.check(canonical.sha256_hex(data), len(data))
    return data


def _ambiguous(names: list[str]) -> AmbiguousImageError:
    return AmbiguousImageError(
        f"expected one image, found {len(names)}: {', '.join(names)[:1000]!r}; save the one to be "
        "identified alone, for instance with `docker save --platform` or `skopeo copy`"
    )
