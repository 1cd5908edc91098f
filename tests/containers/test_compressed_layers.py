"""Layers as engines and registries store them: compressed with zstd, or once for several places."""

import dataclasses
import gzip
import struct
import subprocess
import tarfile
import tracemalloc
from pathlib import Path

import pytest
import zstandard

from containers import errors
from containers.identity import identify
from containers.limits import Limits
from tests.containers.engine import require_program
from tests.containers.saved_images import (
    BASE,
    CODE,
    IMAGE,
    File,
    Image,
    archive,
    config,
    image,
    layer,
    replace,
    save,
)

PACKED = zstandard.ZstdCompressor(write_checksum=True).compress(CODE)
SKIPPABLE = struct.pack("<II", 0x184D2A50, 5) + b"table"


def with_code_as(stored: bytes, folder: Path) -> Path:
    return save(folder, replace(IMAGE.docker(), "layer1/layer.tar", stored))


@pytest.mark.parametrize(
    "stored",
    [
        PACKED,
        PACKED + SKIPPABLE,
        zstandard.compress(CODE[:1000]) + SKIPPABLE + zstandard.compress(CODE[1000:]),
        zstandard.ZstdCompressor().compressobj().compress(b"") + PACKED,
    ],
    ids=["one frame", "a table behind it", "several frames", "without a size"],
)
def test_a_layer_packed_with_zstd_is_the_same_layer(stored: bytes, tmp_path: Path) -> None:
    plain = identify(save(tmp_path, IMAGE.docker(), "plain.tar"))
    packed = identify(with_code_as(stored, tmp_path))
    assert (packed.config_digest, packed.manifest_digest) == (
        plain.config_digest,
        plain.manifest_digest,
    )


@pytest.mark.parametrize("compression", ["zstd", "gzip"])
def test_an_image_that_skopeo_packed_anew_is_the_same_image(
    compression: str, tmp_path: Path
) -> None:
    skopeo = require_program("skopeo")
    before = save(tmp_path, IMAGE.docker(), "before.tar")
    after = tmp_path / "after.tar"
    subprocess.run(
        [
            *(skopeo, "copy", "--quiet", "--insecure-policy"),
            *("--dest-compress-format", compression, "--dest-compress"),
            *(f"docker-archive:{before}", f"oci-archive:{after}"),
        ],
        check=True,
    )
    with tarfile.open(after) as tar:
        blobs = [tar.extractfile(one) for one in tar if one.isfile()]
        heads = {blob.read(2) for blob in blobs if blob is not None}
    assert {"zstd": zstandard.FRAME_HEADER[:2], "gzip": b"\x1f\x8b"}[compression] in heads
    assert identify(after).diff_ids == identify(before).diff_ids


def test_damaged_zstd_is_told_from_zstd_that_ends_early(tmp_path: Path) -> None:
    flipped = PACKED[:-1] + bytes([PACKED[-1] ^ 1])
    for stored in (PACKED[:-1], PACKED[:5], PACKED + PACKED[:9], PACKED + SKIPPABLE[:6]):
        with pytest.raises(errors.TruncatedArchiveError):
            identify(with_code_as(stored, tmp_path))
    for stored in (flipped, PACKED + b"appended", zstandard.FRAME_HEADER + bytes(100)):
        with pytest.raises(errors.ArchiveFormatError):
            identify(with_code_as(stored, tmp_path))


def test_another_layer_in_zstd_is_another_layer(tmp_path: Path) -> None:
    with pytest.raises(errors.LayerDigestError):
        identify(with_code_as(zstandard.compress(BASE), tmp_path))


@pytest.mark.parametrize("limit", ["layer_bytes", "total_bytes"])
def test_a_zstd_bomb_is_stopped_at_the_limit_and_never_held(limit: str, tmp_path: Path) -> None:
    # A block of four bytes that stands for 128 KiB of zeros, ten thousand times: 1.3 GB.
    block = struct.pack("<I", 1 << 1 | 2**17 << 3)[:3] + b"\0"
    bomb = zstandard.FRAME_HEADER + b"\0\x58" + block * 10_000
    assert len(bomb) < 50_000
    contents = Image(config([b""]), (bomb,))
    tracemalloc.start()
    try:
        with pytest.raises(errors.ArchiveSizeError):
            identify(
                save(tmp_path, contents.docker()),
                dataclasses.replace(Limits(), **{limit: 200_000_000}),
            )
        assert tracemalloc.get_traced_memory()[1] < 150_000_000
    finally:
        tracemalloc.stop()


def test_zstd_that_wants_a_huge_window_is_refused(tmp_path: Path) -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=28, enable_ldm=True)
    writer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    stored = writer.compress(CODE) + writer.flush()
    with pytest.raises(errors.ArchiveFormatError, match="memory"):
        identify(with_code_as(stored, tmp_path))


def test_endless_tiny_frames_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("containers.layers.MAX_PARTS", 3)
    for stored in (zstandard.compress(b"") * 4, gzip.compress(b"") * 4):
        with pytest.raises(errors.ArchiveSizeError, match="more than 3"):
            identify(with_code_as(stored, tmp_path))


# Layers that an image has twice, as Docker before version 25 saves them.


def with_link(link: str, second: str = "layer1/layer.tar") -> bytes:
    repeated = image(BASE, BASE)
    members = [(name, data) for name, data in repeated.docker() if name != "layer1/layer.tar"]
    entry = layer(File(second, link=link, kind=tarfile.SYMTYPE))[:512]
    return entry + archive(members)


def test_a_repeated_layer_may_be_a_link_to_its_first_place(tmp_path: Path) -> None:
    linked = identify(save(tmp_path, with_link("../layer0/layer.tar"), "linked.tar"))
    whole = identify(save(tmp_path, image(BASE, BASE).docker(), "whole.tar"))
    assert (linked.config_digest, linked.diff_ids) == (whole.config_digest, whole.diff_ids)
    assert linked.manifest_digest == whole.manifest_digest


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ("../../layer0/layer.tar", errors.MissingBlobError),
        ("/layer0/layer.tar", errors.MissingBlobError),
        ("/etc/passwd", errors.MissingBlobError),
        ("layer.tar", errors.MemberKindError),
        ("", errors.MissingBlobError),
        ("../layer0", errors.MissingBlobError),
        ("../manifest.json", errors.LayerDigestError),
    ],
)
def test_a_link_to_anything_else_is_refused(
    link: str, expected: type[errors.ContainerError], tmp_path: Path
) -> None:
    with pytest.raises(expected):
        identify(save(tmp_path, with_link(link)))
