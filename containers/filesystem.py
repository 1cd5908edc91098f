"""The file system of an image: its layers applied in order, as a tree in memory, without contents.

Rules: OCI Image Format Specification 1.1, `layer.md`, sections "Applying Changesets" and
"Whiteouts".
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from containers.errors import ArchiveSizeError, LayerFormatError
from containers.layers import LayerStream
from containers.tar import Entry, TarReader, path_parts

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"
RESERVED = ".wh..wh."
"""Names that only the union file system of old engines used; engines ignore all but `OPAQUE`."""

Path = tuple[str, ...]


@dataclass(frozen=True)
class FileState:
    """All of a file that is compared. Times are not: they differ between builds of the same files.

    Attributes:
        kind: `file`, `directory`, `symbolic link`, `fifo`, or a device.
        mode: permission bits, the set-user-ID, set-group-ID and sticky bits included.
        user: numeric owner.
        group: numeric group.
        size: bytes of content.
        digest: SHA-256 of the content; None when it is not a file.
        link: target of a symbolic link, else empty.
        device: major and minor number of a device.
        attributes: SHA-256 over all extended attributes, capabilities among them; None without.
    """

    kind: str
    mode: int
    user: int
    group: int
    size: int
    digest: str | None = None
    link: str = ""
    device: tuple[int, int] | None = None
    attributes: str | None = None


@dataclass(slots=True)
class _Node:
    state: FileState | None = None
    children: dict[str, "_Node"] = field(default_factory=dict)

    def find(self, path: Path) -> "_Node | None":
        node: _Node | None = self
        for name in path:
            node = node.children.get(name) if node else None
        return node


class FileSystem:
    """What a container sees at its start."""

    def __init__(self, most_files: int) -> None:
        """Make an empty file system that takes so many files of all layers together."""
        self._root = _Node()
        self._left = most_files

    def apply(self, what: str, layer: LayerStream) -> None:
        """Put a layer on top: a `LayerVisitor`.

        A folder in whose place a lower layer has a symbolic link replaces that link.

        Raises:
            ArchiveFormatError: the layer is not a tar archive, or a name leads out of it.
            LayerFormatError: a hard link to nothing, or a whiteout without a name.
            ArchiveSizeError: too many files.
        """
        # Whiteouts are for lower layers only, wherever they stand: so the layer is a tree of its
        # own until all of it has been read.
        top = _Node()
        reader = TarReader(layer, what, self._left)
        for entry in reader:
            path = path_parts(entry.name, what)
            if path and path[-1].startswith(WHITEOUT):
                self._white_out(path[:-1], path[-1], what)
            elif entry.kind == "hard link":
                self._put(top, path, self._linked(top, path_parts(entry.link, what), what), what)
            else:
                self._put(top, path, state_of(entry, reader), what)
        _merge(self._root, top)

    def files(self) -> Iterator[tuple[str, FileState]]:
        """Return every file with its absolute path, folders before what they contain, sorted."""
        nodes: list[tuple[str, _Node]] = [("", self._root)]
        while nodes:
            path, node = nodes.pop()
            if node.state is not None:
                yield path or "/", node.state
            nodes += [
                (f"{path}/{name}", child)
                for name, child in sorted(node.children.items(), reverse=True)
            ]

    def _white_out(self, folder: Path, name: str, what: str) -> None:
        hidden = name.removeprefix(WHITEOUT)
        if hidden in {"", ".", ".."}:
            raise LayerFormatError(f"{what} hides {hidden!r}; expected the name of a file")
        node = self._root.find(folder)
        if node is None:
            return
        if name == OPAQUE:
            node.children = {}
        elif not name.startswith(RESERVED):
            node.children.pop(hidden, None)

    def _put(self, top: _Node, path: Path, state: FileState, what: str) -> None:
        node = top
        for name in path:
            _make_folder(node)
            if name not in node.children:
                self._left -= 1
                node.children[name] = _Node()
            node = node.children[name]
        if self._left < 0:
            raise ArchiveSizeError(f"the files of all layers up to {what} are too many to compare")
        _replace(node, state)

    def _linked(self, top: _Node, target: Path, what: str) -> FileState:
        node = top.find(target) or self._root.find(target)
        if node is None or node.state is None or node.state.kind == "directory":
            raise LayerFormatError(
                f"{what} has a hard link to {'/'.join(target)[:200]!r}, which is no file there or "
                "below; engines could not start this image"
            )
        return node.state


def _merge(bottom: _Node, top: _Node) -> None:
    """Put one tree over another, which takes over the nodes of the first."""
    pairs = [(bottom, top)]
    while pairs:
        below, above = pairs.pop()
        if above.state is not None:
            _replace(below, above.state)
        if above.children:
            _make_folder(below)
        for name, child in above.children.items():
            if name in below.children:
                pairs.append((below.children[name], child))
            else:
                below.children[name] = child


def _replace(node: _Node, state: FileState) -> None:
    node.state = state
    if state.kind != "directory":
        node.children = {}


def _make_folder(node: _Node) -> None:
    if node.state is not None and node.state.kind != "directory":
        node.state = None  # a folder without an entry of its own has taken the place of a file


def state_of(entry: Entry, reader: TarReader) -> FileState:
    """Return the state of the entry that the reader has just returned, reading its data."""
    return FileState(
        kind=entry.kind,
        mode=entry.mode,
        user=entry.user,
        group=entry.group,
        size=entry.size,
        digest=reader.data_digest() if entry.kind == "file" else None,
        link=entry.link,
        device=entry.device,
        attributes=_attributes_digest(entry.attributes),
    )


def _attributes_digest(attributes: tuple[tuple[str, str], ...]) -> str | None:
    if not attributes:
        return None
    text = "".join(f"{len(name)} {len(value)} {name}{value}" for name, value in attributes)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
