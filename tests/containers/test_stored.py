"""What an engine hands out is checked while it passes, byte for byte."""

import dataclasses
import itertools
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from containers import errors
from containers.engine_errors import StoredImageError
from containers.identity import identify
from containers.limits import Limits
from containers.stored import MOST_KEPT_BYTES, check_saved
from schemas import ImageIdentity
from tests.containers.saved_images import (
    BASE,
    CODE,
    IMAGE,
    File,
    Image,
    Members,
    archive,
    compress,
    config,
    image,
    layer,
    replace,
    save,
)

LAYOUTS = pytest.mark.parametrize("layout", [Image.docker, Image.oci, Image.both])


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> ImageIdentity:
    return identify(save(tmp_path_factory.mktemp("identified"), IMAGE.docker()))


def pieces(data: bytes, sizes: list[int]) -> Iterator[bytes]:
    position = 0
    for size in itertools.cycle([*sizes, 1000]):
        if position >= len(data):
            return
        yield data[position : position + size]
        position += size


@given(sizes=st.lists(st.integers(0, 5000), max_size=20))
def test_the_pieces_may_come_in_any_size(sizes: list[int], identity: ImageIdentity) -> None:
    for layout in (Image.docker, Image.oci, Image.both):
        check_saved(pieces(archive(layout(IMAGE)), sizes), identity)


@pytest.mark.parametrize("pack", [compress, zstandard.compress])
def test_layers_may_be_compressed(pack: Callable[[bytes], bytes], identity: ImageIdentity) -> None:
    check_saved([archive(replace(IMAGE.docker(), "layer0/layer.tar", pack(BASE)))], identity)


def test_a_repeated_layer_may_be_a_link(tmp_path: Path) -> None:
    repeated = image(BASE, BASE)
    members = [one for one in repeated.docker() if one[0] != "layer1/layer.tar"]
    link = layer(File("layer1/layer.tar", link="../layer0/layer.tar", kind=tarfile.SYMTYPE))[:512]
    check_saved([link, archive(members)], identify(save(tmp_path, repeated.docker())))


def test_a_layer_that_looks_like_a_document_is_a_layer(tmp_path: Path) -> None:
    odd = image(layer(File("{braces}", b"data")))
    check_saved([archive(odd.docker())], identify(save(tmp_path, odd.docker())))


@LAYOUTS
def test_any_changed_layer_is_found(
    layout: Callable[[Image], Members], identity: ImageIdentity
) -> None:
    data = archive(layout(IMAGE))
    for place in (data.index(b"interpreter"), data.index(b"train()\n")):
        changed = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        with pytest.raises(
            (errors.LayerDigestError, errors.BlobDigestError, errors.ArchiveFormatError)
        ):
            check_saved([changed], identity)


@LAYOUTS
def test_an_exchanged_image_is_found(
    layout: Callable[[Image], Members], identity: ImageIdentity
) -> None:
    for other in (
        image(BASE, CODE, Entrypoint=["python", "-m", "steal"]),
        image(BASE),
        image(BASE, CODE, BASE),
        image(CODE, BASE),
    ):
        with pytest.raises(StoredImageError, match=identity.config_digest):
            check_saved([archive(layout(other))], identity)


def test_layers_in_another_order_or_number_are_found(identity: ImageIdentity) -> None:
    for layers, expected in (
        ((CODE, BASE), errors.LayerDigestError),
        ((BASE,), errors.LayerCountError),
        ((BASE, CODE, BASE), errors.LayerCountError),
    ):
        with pytest.raises(expected):
            check_saved([archive(Image(config([BASE, CODE]), layers).docker())], identity)


def test_two_images_in_one_stream_are_found(identity: ImageIdentity) -> None:
    other = image(BASE, Entrypoint=["steal"])
    documents = dict(IMAGE.docker()) | dict(other.docker())
    entry = json.loads(dict(other.docker())["manifest.json"])
    documents["manifest.json"] = json.dumps(
        [*json.loads(dict(IMAGE.docker())["manifest.json"]), *entry]
    ).encode()
    with pytest.raises(errors.AmbiguousImageError):
        check_saved([archive(list(documents.items()))], identity)


@LAYOUTS
def test_a_stream_that_breaks_off_is_refused(
    layout: Callable[[Image], Members], identity: ImageIdentity
) -> None:
    whole = archive(layout(IMAGE)).rstrip(b"\0")
    for length in range(0, len(whole) + 512, 487):
        with pytest.raises(errors.ArchiveFormatError):
            check_saved([whole[:length]], identity)


@pytest.mark.parametrize("name", [name for name, _ in IMAGE.both()])
def test_a_missing_part_is_refused(name: str, identity: ImageIdentity) -> None:
    members = [(one, data) for one, data in IMAGE.both() if one != name]
    if name == "manifest.json":
        check_saved([archive(members)], identity)
        return
    with pytest.raises((errors.MissingBlobError, errors.ArchiveFormatError)):
        check_saved([archive(members)], identity)


def test_a_document_must_be_one(identity: ImageIdentity) -> None:
    with pytest.raises(errors.MemberKindError):
        check_saved([archive(replace(IMAGE.docker(), "manifest.json", b"no document"))], identity)


@pytest.mark.parametrize(
    ("limit", "most"),
    [("members", 3), ("layer_bytes", 2000), ("total_bytes", 3000)],
)
def test_what_is_larger_than_any_image_is_refused(
    limit: str, most: int, identity: ImageIdentity
) -> None:
    limits = dataclasses.replace(Limits(), **{limit: most})
    with pytest.raises(errors.ArchiveSizeError):
        check_saved([archive(IMAGE.docker())], identity, limits)


def test_documents_cannot_fill_the_memory(identity: ImageIdentity) -> None:
    document = b"{" + os.urandom(4 * 10**6 - 1)
    count = MOST_KEPT_BYTES // len(document) + 1
    members = [(f"{number}.json", document) for number in range(count)]
    with pytest.raises(errors.ArchiveSizeError, match="documents"):
        check_saved([archive([*members, *IMAGE.docker()])], identity)


@given(data=st.binary(max_size=3000))
def test_arbitrary_bytes_are_refused_with_a_typed_error(
    data: bytes, identity: ImageIdentity
) -> None:
    with pytest.raises(errors.ContainerError):
        check_saved([data], identity)
