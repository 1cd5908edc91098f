"""Images built by hand, byte for byte, and saved as engines save them."""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"

Members = list[tuple[str, bytes]]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def dump(document: Any) -> bytes:
    return json.dumps(document, sort_keys=True).encode()


@dataclass(frozen=True)
class File:
    """One entry of a layer; `link` with its kind for links, no data for a folder."""

    path: str
    data: bytes | None = None
    mode: int = 0o644
    user: int = 0
    group: int = 0
    link: str = ""
    kind: bytes = b""
    attributes: tuple[tuple[str, str], ...] = ()

    def info(self) -> tarfile.TarInfo:
        info = tarfile.TarInfo(self.path)
        info.type = self.kind or (tarfile.DIRTYPE if self.data is None else tarfile.REGTYPE)
        info.size = len(self.data or b"")
        info.mode, info.uid, info.gid, info.linkname = self.mode, self.user, self.group, self.link
        info.pax_headers = {f"SCHILY.xattr.{name}": value for name, value in self.attributes}
        return info


def layer(*files: File) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for file in files:
            tar.addfile(file.info(), io.BytesIO(file.data or b""))
    return buffer.getvalue()


def compress(data: bytes) -> bytes:
    # Stored blocks, so that golden digests do not depend on the build of zlib.
    return gzip.compress(data, compresslevel=0, mtime=0)


def archive(members: Members) -> bytes:
    """A tar file with exactly these members, repeated names and all."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def config(layers: Sequence[bytes], **settings: Any) -> bytes:
    return dump(
        {
            "architecture": "amd64",
            "os": "linux",
            "created": "2026-03-02T09:30:00Z",
            "config": {
                "Entrypoint": ["python", "-m", "train"],
                "Env": ["PATH=/usr/bin", "MODE=audit"],
                "User": "1000",
                "WorkingDir": "/app",
                "Labels": {"a": "lower", "A": "upper"},
            }
            | settings,
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{sha256(one)}" for one in layers]},
        }
    )


def descriptor(media_type: str, data: bytes, **fields: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": f"sha256:{sha256(data)}", "size": len(data)} | fields


def blob(data: bytes) -> tuple[str, bytes]:
    return f"blobs/sha256/{sha256(data)}", data


def index(*descriptors: dict[str, Any]) -> bytes:
    return dump({"schemaVersion": 2, "mediaType": INDEX, "manifests": descriptors})


@dataclass(frozen=True)
class Image:
    """A configuration and its layers, uncompressed."""

    config: bytes
    layers: tuple[bytes, ...]

    def manifest(self) -> bytes:
        return dump(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": descriptor(CONFIG, self.config),
                "layers": [descriptor(LAYER + "+gzip", compress(one)) for one in self.layers],
            }
        )

    def blobs(self) -> Members:
        found = dict(map(blob, (self.manifest(), self.config, *map(compress, self.layers))))
        return sorted(found.items())

    def oci(self, root: bytes | None = None) -> Members:
        root = index(descriptor(MANIFEST, self.manifest())) if root is None else root
        marker = dump({"imageLayoutVersion": "1.0.0"})
        return [*self.blobs(), ("index.json", root), ("oci-layout", marker)]

    def docker(self) -> Members:
        """As engines without an OCI layout save it: names say nothing about the layers."""
        layers = {f"layer{number}/layer.tar": one for number, one in enumerate(self.layers)}
        name = f"{sha256(self.config)}.json"
        entry = {"Config": name, "RepoTags": ["training:1.0"], "Layers": list(layers)}
        return [(name, self.config), *layers.items(), ("manifest.json", dump([entry]))]

    def both(self) -> Members:
        entry = {
            "Config": blob(self.config)[0],
            "RepoTags": None,
            "Layers": [blob(compress(one))[0] for one in self.layers],
        }
        return [*self.oci(), ("manifest.json", dump([entry]))]


BASE = layer(
    File("etc/", mode=0o755),
    File("etc/passwd", b"root:x:0:0\n"),
    File("usr/bin/python", b"interpreter", mode=0o755),
    File("bin", link="usr/bin", kind=tarfile.SYMTYPE),
)
CODE = layer(File("app/train.py", b"train()\n", user=1000, group=1000))
IMAGE = Image(config([BASE, CODE]), (BASE, CODE))


def image(*layers: bytes, **settings: Any) -> Image:
    return Image(config(layers, **settings), layers)


def save(folder: Path, members: Members | bytes, name: str = "image.tar") -> Path:
    path = folder / name
    path.write_bytes(members if isinstance(members, bytes) else archive(members))
    return path


def replace(members: Members, name: str, data: bytes) -> Members:
    assert name in dict(members)
    return [(one, data if one == name else old) for one, old in members]
