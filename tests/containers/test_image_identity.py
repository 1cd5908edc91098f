"""An auditor receives an image in a file and recomputes which one it is."""

import dataclasses
import gzip
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from containers import errors
from containers.archive import Archive
from containers.identity import identify
from containers.limits import Limits
from schemas import ImageIdentity
from tests.containers.saved_images import (
    BASE,
    CODE,
    CONFIG,
    IMAGE,
    INDEX,
    LAYER,
    MANIFEST,
    File,
    Image,
    Members,
    archive,
    blob,
    compress,
    config,
    descriptor,
    dump,
    image,
    index,
    layer,
    replace,
    save,
    sha256,
)

GOLDEN_CONFIG = "4bb1e348e4022712e56b0e5a8f6c7960f84709fa020a72682671cb16db7ce517"
GOLDEN_DERIVED_MANIFEST = "fa559303563c3cef74672925d527c95e643fc328bd6df1af864825905045fccd"
GOLDEN_DIFF_IDS = (
    "c186be10bc39edb0d876f53a44f4bd2d6c459981999019e4409ca9d8f7b26495",
    "24afd8efec397e14dbd1826be89be6a35721e77381c08258b6207ae7589aff14",
)
LAYOUTS = pytest.mark.parametrize("layout", [Image.docker, Image.oci, Image.both])


def in_memory(data: bytes, folder: Path) -> ImageIdentity:
    return identify(save(folder, data))


def without_archive(identity: ImageIdentity) -> ImageIdentity:
    return identity.model_copy(update={"archive_digest": "0" * 64})


@LAYOUTS
def test_the_same_image_is_known_however_it_was_saved(
    layout: Callable[[Image], Members], tmp_path: Path
) -> None:
    path = save(tmp_path, layout(IMAGE))
    identity = identify(path)
    assert identity.config_digest == GOLDEN_CONFIG
    assert identity.diff_ids == GOLDEN_DIFF_IDS
    assert identity.archive_digest == sha256(path.read_bytes())


def test_the_manifest_is_the_archives_own_where_it_has_one(tmp_path: Path) -> None:
    identity = identify(save(tmp_path, IMAGE.both()))
    assert (identity.manifest_digest, identity.manifest_source) == (
        sha256(IMAGE.manifest()),
        "archive",
    )


def test_an_archive_without_manifest_gets_the_one_that_follows_from_it(tmp_path: Path) -> None:
    identity = identify(save(tmp_path, IMAGE.docker()))
    assert identity.manifest_source == "derived"
    assert identity.manifest_digest == GOLDEN_DERIVED_MANIFEST
    layers = ",".join(
        f'{{"digest":"sha256:{sha256(one)}","mediaType":"{LAYER}","size":{len(one)}}}'
        for one in IMAGE.layers
    )
    text = (
        f'{{"config":{{"digest":"sha256:{sha256(IMAGE.config)}","mediaType":"{CONFIG}",'
        f'"size":{len(IMAGE.config)}}},"layers":[{layers}],"mediaType":"{MANIFEST}",'
        '"schemaVersion":2}'
    )
    assert identity.manifest_digest == sha256(text.encode())


def test_compression_of_a_layer_changes_nothing_of_a_docker_archive(tmp_path: Path) -> None:
    several_members = gzip.compress(CODE[:1000], mtime=0) + gzip.compress(CODE[1000:], mtime=7)
    plain = identify(save(tmp_path, IMAGE.docker()))
    packed = identify(save(tmp_path, replace(IMAGE.docker(), "layer1/layer.tar", several_members)))
    assert without_archive(packed) == without_archive(plain)


def test_an_image_without_layers_has_an_identity(tmp_path: Path) -> None:
    assert identify(save(tmp_path, image().both())).diff_ids == ()


def test_the_same_layer_twice_is_two_layers(tmp_path: Path) -> None:
    assert identify(save(tmp_path, image(BASE, BASE).both())).diff_ids == (sha256(BASE),) * 2


def test_a_folder_may_be_listed_more_than_once(tmp_path: Path) -> None:
    buffer = layer(File("blobs/"), File("blobs"), File("./"))[: 3 * 512]
    assert identify(save(tmp_path, buffer + archive(IMAGE.both()))).config_digest == GOLDEN_CONFIG


# What someone could do to an image between the auditor's list and the training.


@LAYOUTS
def test_another_entry_point_is_another_image(
    layout: Callable[[Image], Members], tmp_path: Path
) -> None:
    for change in (
        {"Entrypoint": ["python", "-m", "steal"]},
        {"Env": ["PATH=/usr/bin", "MODE=audit", "LD_PRELOAD=/app/hook.so"]},
    ):
        identity = identify(save(tmp_path, layout(image(BASE, CODE, **change))))
        assert identity.diff_ids == GOLDEN_DIFF_IDS
        assert identity.config_digest != GOLDEN_CONFIG


@LAYOUTS
def test_an_extra_layer_is_another_image(
    layout: Callable[[Image], Members], tmp_path: Path
) -> None:
    extra = layer(File("app/train.py", b"steal()\n"))
    identity = identify(save(tmp_path, layout(image(BASE, CODE, extra))))
    assert identity.config_digest != GOLDEN_CONFIG


@LAYOUTS
def test_an_extra_layer_under_the_allowed_configuration_is_found(
    layout: Callable[[Image], Members], tmp_path: Path
) -> None:
    extra = layer(File("app/train.py", b"steal()\n"))
    forged = Image(IMAGE.config, (*IMAGE.layers, extra))
    with pytest.raises(errors.LayerCountError):
        identify(save(tmp_path, layout(forged)))


@LAYOUTS
def test_a_layer_exchanged_under_the_allowed_configuration_is_found(
    layout: Callable[[Image], Members], tmp_path: Path
) -> None:
    evil = layer(File("app/train.py", b"steal()\n", user=1000, group=1000))
    for layers in ((BASE, evil), (CODE, BASE)):
        with pytest.raises(errors.LayerDigestError):
            identify(save(tmp_path, layout(Image(IMAGE.config, layers))))


def test_one_changed_byte_of_a_layer_is_found(tmp_path: Path) -> None:
    changed = CODE.replace(b"train()", b"traim()")
    docker = replace(IMAGE.docker(), "layer1/layer.tar", changed)
    with pytest.raises(errors.LayerDigestError):
        identify(save(tmp_path, docker))
    oci = replace(IMAGE.oci(), blob(compress(CODE))[0], compress(changed))
    with pytest.raises(errors.BlobDigestError):
        identify(save(tmp_path, oci))


def test_a_configuration_under_another_ones_name_is_found(tmp_path: Path) -> None:
    evil = config(IMAGE.layers, Entrypoint=["python", "-m", "steal"])
    longer = config(IMAGE.layers, Entrypoint=["python", "-m", "steal", "everything"])
    same_size = IMAGE.config.replace(b'"train"', b'"steal"')
    with pytest.raises(errors.BlobDigestError):
        identify(save(tmp_path, replace(IMAGE.docker(), f"{GOLDEN_CONFIG}.json", evil)))
    with pytest.raises(errors.BlobDigestError):
        identify(save(tmp_path, replace(IMAGE.oci(), blob(IMAGE.config)[0], same_size)))
    with pytest.raises(errors.BlobSizeError):
        identify(save(tmp_path, replace(IMAGE.oci(), blob(IMAGE.config)[0], longer)))


@pytest.mark.parametrize("name", [name for name, _ in IMAGE.both()])
def test_the_second_of_two_members_of_one_name_is_not_overlooked(name: str, tmp_path: Path) -> None:
    evil = dict(image(BASE, CODE, User="root").both()).get(name, b"evil")
    for other in (name, f"./{name}", name.replace("/", "//")):
        with pytest.raises(errors.DuplicateMemberError):
            identify(save(tmp_path, [*IMAGE.both(), (other, evil)]))


def test_two_layouts_that_disagree_are_found(tmp_path: Path) -> None:
    evil = image(BASE, CODE, User="root")
    members = dict(IMAGE.oci()) | dict(evil.docker())
    with pytest.raises(errors.IdentityMismatchError, match=GOLDEN_CONFIG):
        identify(save(tmp_path, list(members.items())))


def test_two_layouts_that_agree_on_all_but_a_layer_are_found(tmp_path: Path) -> None:
    forged = Image(IMAGE.config, (BASE, layer(File("app/train.py", b"steal()\n"))))
    members = dict(IMAGE.oci()) | dict(forged.docker())
    with pytest.raises(errors.LayerDigestError):
        identify(save(tmp_path, list(members.items())))


@pytest.mark.parametrize("key", ["config", "CONFIG", "layers", "layerſ"])
def test_a_second_spelling_of_a_field_is_refused(key: str, tmp_path: Path) -> None:
    entry = json.loads(dict(IMAGE.docker())["manifest.json"])[0] | {key: "evil.json"}
    with pytest.raises(errors.DocumentFormatError, match="case"):
        identify(save(tmp_path, replace(IMAGE.docker(), "manifest.json", dump([entry]))))


def test_a_field_given_twice_is_refused(tmp_path: Path) -> None:
    text = dict(IMAGE.docker())["manifest.json"].replace(b'"Layers"', b'"Config":"x","Layers"')
    with pytest.raises(errors.DocumentFormatError, match="twice"):
        identify(save(tmp_path, replace(IMAGE.docker(), "manifest.json", text)))


def test_a_manifest_that_is_an_index_as_well_is_refused(tmp_path: Path) -> None:
    both = dump(json.loads(IMAGE.manifest()) | {"manifests": []})
    root = index(descriptor(MANIFEST, both))
    with pytest.raises(errors.DocumentFormatError):
        identify(save(tmp_path, [*IMAGE.oci(root), blob(both)]))


# Indexes.


def test_a_nested_index_with_one_image_is_followed(tmp_path: Path) -> None:
    statement = b"{}"
    attestation = dump(
        {
            "schemaVersion": 2,
            "config": descriptor(CONFIG, b"{}"),
            "layers": [descriptor("application/vnd.in-toto+json", statement)],
        }
    )
    nested = index(
        descriptor(MANIFEST, IMAGE.manifest(), platform={"os": "linux", "architecture": "amd64"}),
        descriptor(
            MANIFEST,
            attestation,
            platform={"os": "unknown", "architecture": "unknown"},
            annotations={"vnd.docker.reference.type": "attestation-manifest"},
        ),
        descriptor(MANIFEST, b"another platform, not saved"),
    )
    members = [*IMAGE.oci(index(descriptor(INDEX, nested))), blob(nested), blob(attestation)]
    assert identify(save(tmp_path, members)).manifest_digest == sha256(IMAGE.manifest())


def test_an_image_that_poses_as_an_attestation_counts(tmp_path: Path) -> None:
    evil = image(BASE, CODE, User="root")
    root = index(
        descriptor(MANIFEST, IMAGE.manifest()),
        descriptor(
            MANIFEST,
            evil.manifest(),
            annotations={"vnd.docker.reference.type": "attestation-manifest"},
        ),
    )
    members = dict(evil.oci()) | dict(IMAGE.oci(root))
    with pytest.raises(errors.AmbiguousImageError):
        identify(save(tmp_path, list(members.items())))


def test_several_platforms_are_listed_instead_of_chosen_from(tmp_path: Path) -> None:
    other = image(BASE, CODE, User="root")
    root = index(
        descriptor(MANIFEST, IMAGE.manifest(), platform={"os": "linux", "architecture": "amd64"}),
        descriptor(
            MANIFEST,
            other.manifest(),
            platform={"os": "linux", "architecture": "arm64", "variant": "v8"},
        ),
    )
    members = dict(other.oci()) | dict(IMAGE.oci(root))
    with pytest.raises(errors.AmbiguousImageError, match="linux/amd64, linux/arm64/v8"):
        identify(save(tmp_path, list(members.items())))


def test_several_images_in_a_docker_archive_are_listed(tmp_path: Path) -> None:
    entry = json.loads(dict(IMAGE.docker())["manifest.json"])[0]
    listed = dump([entry, entry | {"RepoTags": ["other:2"]}])
    with pytest.raises(errors.AmbiguousImageError, match=r"training:1\.0, other:2"):
        identify(save(tmp_path, replace(IMAGE.docker(), "manifest.json", listed)))


def test_indexes_are_not_followed_for_ever(tmp_path: Path) -> None:
    root, members = index(descriptor(MANIFEST, IMAGE.manifest())), IMAGE.oci()
    for _ in range(6):
        members.append(blob(root))
        root = index(descriptor(INDEX, root), descriptor(INDEX, root))
    with pytest.raises(errors.DocumentFormatError, match="deep"):
        identify(save(tmp_path, replace(members, "index.json", root)))


# Broken or hostile files.


@pytest.mark.parametrize("name", ["../evil", "blobs/../../evil", "/etc/passwd", "a\\b", "a\x1b[2J"])
def test_names_that_lead_elsewhere_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(errors.UnsafeNameError):
        identify(save(tmp_path, [*IMAGE.oci(), (name, b"")]))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, b"S", b"7"])
def test_a_link_or_a_sparse_file_is_no_blob(kind: bytes, tmp_path: Path) -> None:
    name = blob(IMAGE.config)[0]
    member = layer(File(name, kind=kind, link="../../etc/passwd"))[:512]
    rest = archive([(one, data) for one, data in IMAGE.oci() if one != name])
    with pytest.raises(errors.MemberKindError):
        identify(save(tmp_path, member + rest))


LINK = File("5e0f/layer.tar", link="../layer.tar", kind=tarfile.SYMTYPE)


def test_links_for_readers_of_older_layouts_are_not_in_the_way(tmp_path: Path) -> None:
    path = save(tmp_path, layer(LINK)[:512] + archive(IMAGE.docker()))
    assert identify(path).config_digest == GOLDEN_CONFIG


@pytest.mark.parametrize("name", ["index.json", "layer1/layer.tar", "layer1"])
def test_a_link_in_the_place_of_something_else_is_refused(name: str, tmp_path: Path) -> None:
    link = layer(dataclasses.replace(LINK, path=name))[:512]
    rest = [(one, data) for one, data in IMAGE.docker() if one != name]
    marker = ("oci-layout", dict(IMAGE.oci())["oci-layout"])
    members = [*rest, marker] if name == "index.json" else rest
    expected = (errors.MemberKindError, errors.UnsafeNameError, errors.MissingBlobError)
    with pytest.raises(expected):
        identify(save(tmp_path, link + archive(members)))


def test_a_sparse_file_in_the_pax_format_is_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("x")
    info.pax_headers = {"GNU.sparse.major": "1"}
    with pytest.raises(errors.MemberKindError):
        identify(save(tmp_path, info.tobuf(tarfile.PAX_FORMAT) + archive(IMAGE.oci())))


def extended(flag: bytes, data: bytes) -> bytes:
    header = tarfile.TarInfo("extension")
    header.type, header.size = flag, len(data)
    return header.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % 512)


@pytest.mark.parametrize(
    ("extensions", "reason"),
    [
        (extended(b"L", b"a\0") + extended(b"x", b"10 path=a\n"), "two values of 'path'"),
        (extended(b"x", b"10 path=a\n10 path=b\n"), "two values of 'path'"),
        (extended(b"x", b"9 a=more\n") + extended(b"x", b"9 b=more\n"), "repeatedly"),
        (extended(b"x", b"99 path=a\n"), "damaged"),
        (extended(b"x", b"11 size=-1\n"), "expected digits"),
        (extended(b"g", b"10 path=a\n"), "global header"),
    ],
)
def test_names_and_sizes_that_readers_could_take_differently_are_refused(
    extensions: bytes, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(errors.ArchiveFormatError, match=reason):
        in_memory(extensions + archive([("unused", b""), *IMAGE.docker()]), tmp_path)


def test_names_of_any_length_and_a_comment_are_read(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in [("long/" * 30 + "name", b""), *IMAGE.oci()]:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    comment = extended(b"g", b"19 comment=a build\n")
    assert in_memory(comment + buffer.getvalue(), tmp_path).config_digest == GOLDEN_CONFIG


def test_a_file_cannot_be_a_folder_as_well(tmp_path: Path) -> None:
    with pytest.raises(errors.UnsafeNameError):
        identify(save(tmp_path, [*IMAGE.oci(), ("index.json/x", b"")]))


@LAYOUTS
def test_a_truncated_archive_is_refused_wherever_it_ends(
    layout: Callable[[Image], Members], tmp_path: Path
) -> None:
    whole = archive(layout(IMAGE)).rstrip(b"\0")
    for length in range(0, len(whole) + 512, 487):
        with pytest.raises(errors.ArchiveFormatError):
            in_memory(whole[:length], tmp_path)


def test_nothing_may_follow_the_end(tmp_path: Path) -> None:
    with pytest.raises(errors.ArchiveFormatError, match="after its end"):
        identify(save(tmp_path, archive(IMAGE.oci()) + archive(IMAGE.docker())))


def test_a_damaged_header_does_not_end_the_archive(tmp_path: Path) -> None:
    data = bytearray(archive(IMAGE.docker()))
    data[data.index(b"manifest.json") + 1] ^= 1
    with pytest.raises(errors.ArchiveFormatError, match="damaged"):
        in_memory(bytes(data), tmp_path)


@pytest.mark.parametrize(
    "data", [b"", b"\x1f\x8b\x08" * 400, b"PK\x03\x04" * 300, bytes(1024), os.urandom(2048)]
)
def test_something_else_is_no_archive(data: bytes, tmp_path: Path) -> None:
    with pytest.raises((errors.ArchiveFormatError, errors.NoImageError)):
        in_memory(data, tmp_path)


def test_a_folder_is_no_archive(tmp_path: Path) -> None:
    with pytest.raises(errors.ArchiveFormatError):
        identify(tmp_path)


@pytest.mark.parametrize("name", [name for name, _ in IMAGE.both()])
def test_a_part_that_is_missing_is_named(name: str, tmp_path: Path) -> None:
    members = [(one, data) for one, data in IMAGE.both() if one != name]
    if name == "manifest.json":
        assert identify(save(tmp_path, members)).config_digest == GOLDEN_CONFIG
        return
    expected = errors.MissingBlobError if "/" in name else errors.ArchiveFormatError
    with pytest.raises(expected, match=name):
        identify(save(tmp_path, members))


@pytest.mark.parametrize(("magic", "name"), [(b"\xfd7zXZ\0", "xz"), (b"BZh9", "bzip2")])
def test_a_compression_that_cannot_be_undone_is_named(
    magic: bytes, name: str, tmp_path: Path
) -> None:
    members = replace(IMAGE.docker(), "layer0/layer.tar", magic + bytes(100))
    with pytest.raises(errors.UnsupportedCompressionError, match=name):
        identify(save(tmp_path, members))


def test_damaged_gzip_is_told_from_gzip_that_ends_early(tmp_path: Path) -> None:
    packed = compress(BASE)
    flipped = packed[:-6] + bytes([packed[-6] ^ 1]) + packed[-5:]
    for data, expected in (
        (packed[:-1], errors.TruncatedArchiveError),
        (flipped, errors.ArchiveFormatError),
        (packed + b"appended", errors.ArchiveFormatError),
    ):
        with pytest.raises(expected):
            identify(save(tmp_path, replace(IMAGE.docker(), "layer0/layer.tar", data)))


@pytest.mark.parametrize("limit", ["layer_bytes", "total_bytes"])
def test_a_gzip_bomb_is_stopped_at_the_limit(limit: str, tmp_path: Path) -> None:
    bomb = bytes(50_000_000)
    members = Image(config([bomb]), (gzip.compress(bomb, mtime=0),)).docker()
    path = save(tmp_path, members)
    assert path.stat().st_size < 100_000
    with pytest.raises(errors.ArchiveSizeError):
        identify(path, dataclasses.replace(Limits(), **{limit: 1_000_000}))


@pytest.mark.parametrize(
    ("limit", "most"),
    [("archive_bytes", 5_000), ("members", 3), ("document_bytes", 100), ("layers", 1)],
)
def test_what_is_larger_than_any_image_is_refused(limit: str, most: int, tmp_path: Path) -> None:
    path = save(tmp_path, IMAGE.both())
    with pytest.raises(errors.ArchiveSizeError):
        identify(path, dataclasses.replace(Limits(), **{limit: most}))


def test_absurd_sizes_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    header = tarfile.TarInfo("blob")
    header.size = 2**70
    with pytest.raises(errors.ArchiveSizeError):
        in_memory(header.tobuf(tarfile.GNU_FORMAT) + bytes(1024), tmp_path)
    extension = tarfile.TarInfo("name")
    extension.type, extension.size = tarfile.GNUTYPE_LONGNAME, 2**33
    with pytest.raises(errors.ArchiveSizeError):
        in_memory(extension.tobuf(tarfile.GNU_FORMAT) + bytes(1024), tmp_path)


def test_an_archive_written_to_meanwhile_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path, IMAGE.oci())
    digest = Archive.digest

    def digest_and_write(archive: Archive) -> str:
        found = digest(archive)
        with path.open("ab") as file:
            file.write(bytes(512))
        return found

    monkeypatch.setattr(Archive, "digest", digest_and_write)
    with pytest.raises(errors.ArchiveChangedError):
        identify(path)


# Any single change.

SMALL = image(layer(File("train.py", b"train()\n"))[:2048])
SMALL_ARCHIVES = {
    layout.__name__: (archive(layout(SMALL)), layout(SMALL))
    for layout in (Image.docker, Image.oci, Image.both)
}


def hashed_bytes(data: bytes, members: Members) -> list[range]:
    """Where the bytes lie that the identity covers: not the documents that only point at others."""
    pointing = {"manifest.json", "index.json", "oci-layout"}
    return [
        range(data.index(content), data.index(content) + len(content))
        for name, content in members
        if name not in pointing
    ]


def is_header(block: bytes) -> bool:
    return block[257:262] == b"ustar"


def with_right_checksum(header: bytes) -> bytes:
    blank = header[:148] + b" " * 8 + header[156:]
    return blank[:148] + f"{sum(blank):06o}\0 ".encode() + blank[156:]


@settings(max_examples=500)
@given(
    layout=st.sampled_from(sorted(SMALL_ARCHIVES)),
    place=st.integers(0),
    change=st.integers(1, 255),
    is_checksum_forged=st.booleans(),
)
def test_any_changed_byte_is_outside_the_image_or_noticed(
    layout: str,
    place: int,
    change: int,
    is_checksum_forged: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    whole, members = SMALL_ARCHIVES[layout]
    place %= len(whole.rstrip(b"\0")) + 1024
    data = bytearray(whole)
    data[place] ^= change
    block = slice(place // 512 * 512, place // 512 * 512 + 512)
    if is_checksum_forged and is_header(whole[block]):
        data[block] = with_right_checksum(data[block])
    folder = tmp_path_factory.getbasetemp()
    original = in_memory(whole, folder)
    try:
        found = in_memory(bytes(data), folder)
    except errors.ContainerError:
        return
    is_changed = bytes(data) != whole  # not if the change was in the checksum that was then forged
    assert (found.archive_digest != original.archive_digest) == is_changed
    if is_changed and without_archive(found) == without_archive(original):
        assert not any(place in hashed for hashed in hashed_bytes(whole, members))


@given(data=st.binary(max_size=2000))
def test_arbitrary_documents_are_refused_with_a_typed_error(
    data: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp()
    for name in ("manifest.json", "index.json", "oci-layout"):
        with pytest.raises(errors.ContainerError):
            identify(save(folder, replace(IMAGE.both(), name, data)))
