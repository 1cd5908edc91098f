"""The identity of a container image, recomputed from a saved archive.

An engine's own digests are never asked for: every byte of the image is hashed here. Nothing is
unpacked to disk, and layers pass through memory in pieces.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from auditkit.evidence import canonical
from containers.archive import Archive, open_archive
from containers.documents import ImageConfig, derived_manifest, parse
from containers.errors import (
    ArchiveSizeError,
    IdentityMismatchError,
    LayerCountError,
    LayerDigestError,
)
from containers.layers import Budget, LayerDigests, LayerStream
from containers.layouts import Blob, Layout, find_layouts
from containers.limits import DEFAULT_LIMITS, Limits
from schemas import ImageIdentity

LayerVisitor = Callable[[str, LayerStream], None]
"""Reads what it likes of a layer, given what to call it in errors and its uncompressed bytes."""


@dataclass(frozen=True)
class InspectedImage:
    """A verified image: what identifies it, and the exact bytes of its two documents."""

    identity: ImageIdentity
    config: bytes
    manifest: bytes


def identify(path: Path, limits: Limits = DEFAULT_LIMITS) -> ImageIdentity:
    """Return which image a saved archive contains.

    Reads Docker archives (`manifest.json`) and OCI layouts as one tar file (`index.json`); in an
    archive that is both, both must describe the same image. A manifest digest is that of the OCI
    manifest as found; an archive without one gets the digest of `documents.derived_manifest`.

    Args:
        path: the saved image, not compressed as a whole.
        limits: bounds on what is read.

    Raises:
        OSError: the file cannot be read.
        ContainerError: it is no saved image, is damaged, too large, or does not hash to what it
            says; the subclass names the rule.
    """
    return inspect_image(path, limits=limits).identity


def see_nothing(_what: str, _stream: LayerStream) -> None:
    """Visit a layer without reading it."""


def inspect_image(
    path: Path, visit_layer: LayerVisitor = see_nothing, limits: Limits = DEFAULT_LIMITS
) -> InspectedImage:
    """Identify an image, showing its layers to a visitor on the way, lowest first.

    What a visitor has seen of an image is verified only once this function returns.

    Raises:
        OSError: the file cannot be read.
        ContainerError: as for `identify`, or raised by the visitor.
    """
    with open_archive(path, limits) as archive:
        layouts = find_layouts(archive)
        first = layouts[0]
        diff_ids = parse(first.config, ImageConfig, "the image's configuration").diff_ids
        if len(diff_ids) > limits.layers:
            raise ArchiveSizeError(
                f"expected at most {limits.layers} layers, found {len(diff_ids)}"
            )
        for layout in layouts:
            _check_layout(layout, first, len(diff_ids))
        sizes = _read_layers(archive, layouts, diff_ids, visit_layer, limits)
        manifest = first.manifest or derived_manifest(
            first.config, tuple(zip(diff_ids, sizes, strict=True))
        )
        identity = ImageIdentity(
            config_digest=first.config_digest,
            diff_ids=diff_ids,
            manifest_digest=canonical.sha256_hex(manifest),
            manifest_source="archive" if first.manifest else "derived",
            archive_digest=archive.digest(),
        )
    return InspectedImage(identity, first.config, manifest)


def _check_layout(layout: Layout, first: Layout, count: int) -> None:
    """Check that a layout describes the same image as the first one, with this many layers.

    Raises:
        IdentityMismatchError: it has another configuration.
        LayerCountError: it has more or fewer layers.
    """
    if layout.config_digest != first.config_digest:
        raise IdentityMismatchError(
            f"the {first.name} in this archive has the configuration {first.config_digest}, the "
            f"{layout.name} has {layout.config_digest}; expected one image. Do not load it: "
            "engines differ in which of the two they run"
        )
    if len(layout.layers) != count:
        raise LayerCountError(
            f"expected {count} layers, as many as the configuration names, found "
            f"{len(layout.layers)} in the {layout.name}; the image has been changed"
        )


def _read_layers(
    archive: Archive,
    layouts: tuple[Layout, ...],
    diff_ids: tuple[str, ...],
    visit_layer: LayerVisitor,
    limits: Limits,
) -> list[int]:
    """Verify every layer by every layout, and return their uncompressed sizes in bytes."""
    budget = Budget(limits.total_bytes)
    sizes = []
    for number, diff_id in enumerate(diff_ids):
        what = f"layer {number + 1} of {len(diff_ids)}"
        blobs = {layout.layers[number].member: layout.layers[number] for layout in layouts[::-1]}
        visit, size = visit_layer, 0
        for blob in blobs.values():
            stream = LayerStream(
                archive.layer_chunks(blob.member),
                what,
                most_bytes=limits.layer_bytes,
                budget=budget,
            )
            visit(what, stream)
            size = _check_layer(stream.finish(), blob, diff_id, what)
            visit = see_nothing  # the same bytes by the other layout
        sizes.append(size)
    return sizes


def _check_layer(found: LayerDigests, blob: Blob, diff_id: str, what: str) -> int:
    """Check a layer as it is stored and as it is uncompressed, and return its size in bytes.

    Raises:
        BlobSizeError: another size than the layout says.
        BlobDigestError: other stored bytes than the layout says.
        LayerDigestError: other uncompressed bytes than the configuration says.
    """
    blob.check(found.stored, found.stored_size)
    if found.diff_id != diff_id:
        raise LayerDigestError(
            f"expected {what} to have the SHA-256 {diff_id} when uncompressed, as the "
            f"configuration says, found {found.diff_id}; the layer has been changed or exchanged"
        )
    return found.size
