"""Is what an engine has on disk the image that was identified? Hashed as the engine hands it out.

The stream of `docker save` is read once, front to back, and nothing of it is written anywhere:
every member is hashed as it is stored and as it is uncompressed, and small documents are kept.
Only then do the documents say which member is which layer.
"""

from collections.abc import Iterable, Iterator

from containers.archive import WHAT, MemberNames
from containers.documents import ImageConfig, parse
from containers.engine_errors import StoredImageError
from containers.errors import ArchiveSizeError, MemberKindError
from containers.identity import check_layer, check_layout
from containers.layers import Budget, LayerDigests, LayerStream
from containers.layouts import find_layouts
from containers.limits import DEFAULT_LIMITS, Limits
from containers.tar import PieceSource, TarReader
from schemas import ImageIdentity

MOST_KEPT_BYTES = 64 * 2**20
"""Most bytes of documents that are kept in memory; engines write a few kilobytes per layer."""

OPENINGS = (b"{", b"[")
"""A document begins with one of these. A layer may as well, and is then kept in vain."""


def check_saved(
    pieces: Iterable[bytes], identity: ImageIdentity, limits: Limits = DEFAULT_LIMITS
) -> None:
    """Check that a saved image is the identified one, by every layout that is in it.

    Args:
        pieces: a Docker archive or OCI layout as a tar stream, in pieces of any size.
        identity: what the image has to be; in what it was saved does not matter.
        limits: bounds on what is read.

    Raises:
        StoredImageError: it is another image.
        ContainerError: it is no image, damaged, too large, or does not hash to what it says.
    """
    members = SavedMembers(pieces, limits)
    layouts = find_layouts(members)
    first = layouts[0]
    diff_ids = parse(first.config, ImageConfig, "the image's configuration").diff_ids
    if (first.config_digest, diff_ids) != (identity.config_digest, identity.diff_ids):
        raise StoredImageError(
            f"expected the configuration {identity.config_digest}, found {first.config_digest}"
        )
    for layout in layouts:
        check_layout(layout, first, len(diff_ids))
        for number, (blob, diff_id) in enumerate(zip(layout.layers, diff_ids, strict=True)):
            what = f"layer {number + 1} of {len(diff_ids)}"
            check_layer(members.digests(blob.member), blob, diff_id, what)


class SavedMembers:
    """The members of a tar stream: what they hash to, and the documents among them."""

    def __init__(self, pieces: Iterable[bytes], limits: Limits) -> None:
        """Read all of the stream.

        Raises:
            ArchiveFormatError: not a tar archive of files with plain, different names.
            ArchiveSizeError: too many members, or too large ones.
            UnsupportedCompressionError: a member is compressed in a way that cannot be undone.
        """
        self._names = MemberNames()
        self._digests: dict[str, LayerDigests] = {}
        self._documents: dict[str, bytes] = {}
        reader = TarReader(PieceSource(pieces), WHAT, limits.members)
        budget = Budget(limits.total_bytes)
        kept = 0
        for entry in reader:
            name = self._names.add(entry)
            if entry.kind != "file":
                continue
            copy = _Copy(reader.data(), limits.document_bytes)
            what = f"{name[:200]!r} in {WHAT}"
            stream = LayerStream(iter(copy), what, most_bytes=limits.layer_bytes, budget=budget)
            self._digests[name] = stream.finish()
            if copy.document is not None:
                self._documents[name] = copy.document
                kept += len(copy.document)
                if kept > MOST_KEPT_BYTES:
                    raise ArchiveSizeError(
                        f"expected documents of at most {MOST_KEPT_BYTES} bytes together"
                    )
        self._names.check_folders()

    def __contains__(self, name: str) -> bool:
        """Tell whether there is a file of that name, or what reading it will refuse."""
        return name in self._names

    def document(self, name: str) -> bytes:
        """Return a document.

        Raises:
            MissingBlobError: there is no such file.
            MemberKindError: it is a link, or no document.
        """
        self._names.file(name)
        if name not in self._documents:
            raise MemberKindError(f"expected {name[:200]!r} to be a small JSON document")
        return self._documents[name]

    def digests(self, name: str) -> LayerDigests:
        """Return what a layer hashes to, as it is stored and uncompressed.

        Raises:
            MissingBlobError: there is no such file.
            MemberKindError: it is a link to something that is no file of the archive.
        """
        return self._digests[self._names.layer(name)]


class _Copy:
    """Hands pieces on, and keeps what may be a document."""

    def __init__(self, pieces: Iterator[bytes], most_bytes: int) -> None:
        self._pieces = pieces
        self._most = most_bytes
        self.document: bytes | None = b""

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            if self.document is not None:
                self.document += piece
                if len(self.document) > self._most or not self.document.startswith(OPENINGS):
                    self.document = None
            yield piece
