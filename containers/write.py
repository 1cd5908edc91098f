"""Writes images: one archive that is a Docker archive and an OCI layout at once.

Sources: OCI Image Format Specification 1.1 (`image-layout.md`, `manifest.md`, `config.md`) and the
`manifest.json` of Docker Image Specification 1.2. Layers are stored uncompressed, so that no
compressor has a part in what the archive hashes to, and pass through memory in pieces.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from auditkit.evidence import canonical
from auditkit.evidence.image_documents import DIGEST_PREFIX
from containers.documents import OCI_MANIFEST, derived_manifest
from containers.layouts import DOCKER_MEMBER, OCI_INDEX_MEMBER, OCI_MARKER_MEMBER
from containers.tar import BLOCK
from containers.tar_writer import CREATED, END, FLAGS, header
from containers.tree import FILE_MODE

BLOBS = "blobs/sha256/"


@dataclass(frozen=True)
class Configuration:
    """What a container of the image runs, and on what (OCI `config.md`).

    Attributes:
        architecture: processor, as OCI names it (`amd64`).
        os: operating system, as OCI names it (`linux`).
        settings: the object `config`: `Env`, `Entrypoint`, `User`, `WorkingDir`, `Labels`, …
    """

    architecture: str
    os: str
    settings: Mapping[str, Any]

    def document(self, diff_ids: Iterable[str]) -> bytes:
        """Return the configuration of an image with these layers, as canonical JSON (RFC 8785)."""
        return canonical.to_bytes(
            {
                "architecture": self.architecture,
                "config": dict(self.settings),
                "created": CREATED,
                "os": self.os,
                "rootfs": {
                    "diff_ids": [DIGEST_PREFIX + digest for digest in diff_ids],
                    "type": "layers",
                },
            }
        )


class ImageWriter:
    """Takes layers, lowest first, and then the configuration."""

    def __init__(self, file: BinaryIO) -> None:
        """Take a seekable, empty file."""
        self._file = file
        self._layers: list[tuple[str, int]] = []

    def add_layer(self, pieces: Iterable[bytes]) -> None:
        """Add a layer: an uncompressed tar archive, in pieces."""
        start = self._file.tell()
        self._file.write(bytes(BLOCK))  # its header names the digest, known only at the end
        digest, size = hashlib.sha256(), 0
        for piece in pieces:
            digest.update(piece)
            size += self._file.write(piece)
        layer = (digest.hexdigest(), size)
        if layer in self._layers:
            self._file.seek(start)
            self._file.truncate()
        else:
            self._pad(size)
            end = self._file.tell()
            self._file.seek(start)
            self._file.write(_header(BLOBS + layer[0], size))
            self._file.seek(end)
        self._layers.append(layer)

    def finish(self, configuration: Configuration) -> None:
        """Write the documents of a new image. After this the archive is complete."""
        self.finish_as(configuration.document(digest for digest, _ in self._layers))

    def finish_as(self, config: bytes) -> None:
        """Write the documents of an image whose configuration is there already."""
        manifest = derived_manifest(config, tuple(self._layers))
        index = {
            "manifests": [
                {
                    "digest": DIGEST_PREFIX + canonical.sha256_hex(manifest),
                    "mediaType": OCI_MANIFEST,
                    "size": len(manifest),
                }
            ],
            "schemaVersion": 2,
        }
        docker = {
            "Config": BLOBS + canonical.sha256_hex(config),
            "Layers": [BLOBS + digest for digest, _ in self._layers],
            "RepoTags": None,
        }
        for blob in (config, manifest):
            self._add(BLOBS + canonical.sha256_hex(blob), blob)
        self._add(OCI_INDEX_MEMBER, canonical.to_bytes(index))
        self._add(DOCKER_MEMBER, canonical.to_bytes([docker]))
        self._add(OCI_MARKER_MEMBER, canonical.to_bytes({"imageLayoutVersion": "1.0.0"}))
        self._file.write(END)

    def _add(self, name: str, data: bytes) -> None:
        self._file.write(_header(name, len(data)))
        self._file.write(data)
        self._pad(len(data))

    def _pad(self, size: int) -> None:
        self._file.write(bytes(-size % BLOCK))


@contextmanager
def new_image(path: Path) -> Iterator[ImageWriter]:
    """Write an image to a file, which appears under its name only when it is complete.

    Raises:
        OSError: the file cannot be written.
    """
    with new_file(path) as partial, partial.open("wb") as file:
        yield ImageWriter(file)


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Give the path of a file to be written, which takes its name when all went well.

    Raises:
        OSError: the folder cannot be written to.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _header(name: str, size: int) -> bytes:
    return header(name.encode(), FLAGS["file"], FILE_MODE, size)
