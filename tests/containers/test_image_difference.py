"""An auditor asks what changed between the image on the list and the one that was found."""

import dataclasses
import gzip
import json
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from containers import errors
from containers.diff import ImageDifference, compare
from containers.limits import Limits
from tests.containers.saved_images import BASE, CODE, IMAGE, File, Image, config, image, layer, save


def difference(folder: Path, first: Image, second: Image) -> ImageDifference:
    return compare(
        save(folder, first.both(), "first.tar"), save(folder, second.docker(), "second.tar")
    )


def changes(folder: Path, below: tuple[bytes, ...], *layers: bytes) -> list[tuple[str, str]]:
    """What layers on top of others change, but for the configuration."""
    found = difference(folder, image(*below), image(*below, *layers))
    return [(change.kind, change.path) for change in found.files]


def test_an_image_does_not_differ_from_itself_saved_otherwise(tmp_path: Path) -> None:
    found = difference(tmp_path, IMAGE, IMAGE)
    assert found.is_same_image
    assert (found.config, found.files) == ((), ())


def test_every_changed_setting_is_named(tmp_path: Path) -> None:
    found = difference(
        tmp_path,
        IMAGE,
        image(
            BASE,
            CODE,
            Entrypoint=["python", "-m", "steal"],
            Cmd=["--fast"],
            Env=["PATH=/tmp:/usr/bin", "MODE=audit", "LD_PRELOAD=/hook.so"],
            User="root",
            ExposedPorts={"22/tcp": {}},
            Volumes={"/data": {}},
            Labels={"A": "upper"},
        ),
    )
    assert not found.is_same_image
    assert found.files == ()
    assert {change.field: (change.before, change.after) for change in found.config} == {
        "config.Entrypoint": (["python", "-m", "train"], ["python", "-m", "steal"]),
        "config.Cmd": (None, ["--fast"]),
        "config.Env.PATH": ("/usr/bin", "/tmp:/usr/bin"),
        "config.Env.LD_PRELOAD": (None, "/hook.so"),
        "config.User": ("1000", "root"),
        "config.ExposedPorts": (None, {"22/tcp": {}}),
        "config.Volumes": (None, {"/data": {}}),
        "config.Labels.a": ("lower", None),
    }


def test_a_variable_given_twice_is_not_hidden(tmp_path: Path) -> None:
    twice = ["PATH=/usr/bin", "MODE=audit", "MODE=steal"]
    found = difference(tmp_path, IMAGE, image(BASE, CODE, Env=twice))
    assert [(change.field, change.after) for change in found.config] == [("config.Env", twice)]


@pytest.mark.parametrize(
    ("changed", "fields"),
    [
        (File("app/train.py", b"steal()\n", user=1000, group=1000), ("digest",)),
        (File("app/train.py", b"train();\n", user=1000, group=1000), ("size", "digest")),
        (File("app/train.py", b"train()\n", mode=0o4755, user=1000, group=1000), ("mode",)),
        (File("app/train.py", b"train()\n"), ("user", "group")),
        (
            File(
                "app/train.py",
                b"train()\n",
                user=1000,
                group=1000,
                attributes=(("security.capability", "all"),),
            ),
            ("attributes",),
        ),
        (
            File("app/train.py", mode=0o644, user=1000, group=1000, kind=tarfile.FIFOTYPE),
            ("kind", "size", "digest"),
        ),
    ],
)
def test_every_property_of_a_file_counts(
    changed: File, fields: tuple[str, ...], tmp_path: Path
) -> None:
    found = difference(tmp_path, IMAGE, image(BASE, CODE, layer(changed)))
    assert [(one.kind, one.path, one.changed) for one in found.files] == [
        ("changed", "/app/train.py", fields)
    ]


def test_a_link_that_leads_elsewhere_is_a_change(tmp_path: Path) -> None:
    moved = layer(File("bin", link="tmp", kind=tarfile.SYMTYPE))
    (change,) = difference(tmp_path, IMAGE, image(BASE, CODE, moved)).files
    assert change.before is not None
    assert change.after is not None
    assert (change.before.link, change.after.link) == ("usr/bin", "tmp")


def test_a_whiteout_removes_a_file_and_an_opaque_one_all_below(tmp_path: Path) -> None:
    assert changes(tmp_path, (BASE, CODE), layer(File("app/.wh.train.py", b""))) == [
        ("removed", "/app/train.py")
    ]
    assert changes(tmp_path, (BASE, CODE), layer(File(".wh.etc", b""))) == [
        ("removed", "/etc"),
        ("removed", "/etc/passwd"),
    ]
    assert changes(tmp_path, (BASE, CODE), layer(File("etc/.wh..wh..opq", b""))) == [
        ("removed", "/etc/passwd")
    ]


@pytest.mark.parametrize("whiteout", ["etc/.wh..wh..opq", "etc/.wh.group", "etc/.wh.passwd"])
def test_a_whiteout_leaves_its_own_layer_alone_in_either_order(
    whiteout: str, tmp_path: Path
) -> None:
    new, hide = File("etc/passwd", b"root:x:0:0\n"), File(whiteout, b"")
    base = (BASE, layer(File("etc/group", b"wheel")))
    hides_group = "passwd" not in whiteout
    for files in ((new, hide), (hide, new)):
        found = changes(tmp_path, base, layer(*files))
        assert found == ([("removed", "/etc/group")] if hides_group else [])


def test_a_file_hidden_in_a_middle_layer_can_come_back(tmp_path: Path) -> None:
    assert changes(tmp_path, (BASE, CODE), layer(File("app/.wh.train.py", b"")), CODE) == []


def test_a_folder_in_place_of_a_link_or_file_and_the_other_way(tmp_path: Path) -> None:
    assert changes(tmp_path, (BASE,), layer(File("bin/sh", b"shell"))) == [
        ("removed", "/bin"),
        ("added", "/bin/sh"),
    ]
    assert changes(tmp_path, (BASE,), layer(File("usr", b"a file"))) == [
        ("added", "/usr"),
        ("removed", "/usr/bin/python"),
    ]


def test_a_hard_link_is_the_file_it_leads_to(tmp_path: Path) -> None:
    linked = layer(File("app/a", b"content"), File("app/b", link="app/a", kind=tarfile.LNKTYPE))
    copied = layer(File("app/a", b"content"), File("app/b", b"content"))
    assert difference(tmp_path, image(BASE, linked), image(BASE, copied)).files == ()
    below = layer(File("copy", link="usr/bin/python", kind=tarfile.LNKTYPE))
    assert changes(tmp_path, (BASE,), below) == [("added", "/copy")]
    with pytest.raises(errors.LayerFormatError, match="hard link"):
        changes(tmp_path, (BASE,), layer(File("x", link="usr", kind=tarfile.LNKTYPE)))


def test_old_spellings_of_the_root_lead_to_the_same_files(tmp_path: Path) -> None:
    spelt = layer(File("./"), File("./app/train.py", b"1"), File("/app/x", b"2"))
    assert changes(tmp_path, (), spelt) == [
        ("added", "/"),
        ("added", "/app/train.py"),
        ("added", "/app/x"),
    ]


@pytest.mark.parametrize("path", ["../evil", "app/../../evil", "app/.wh...", "app/.wh."])
def test_a_layer_cannot_reach_out_of_the_image(path: str, tmp_path: Path) -> None:
    with pytest.raises((errors.UnsafeNameError, errors.LayerFormatError)):
        changes(tmp_path, (BASE,), layer(File(path, b"")))


def test_a_changed_layer_is_not_compared_but_refused(tmp_path: Path) -> None:
    forged = Image(IMAGE.config, (BASE, layer(File("app/train.py", b"steal()\n"))))
    with pytest.raises(errors.LayerDigestError):
        difference(tmp_path, IMAGE, forged)


def test_names_that_are_not_text_can_be_printed(tmp_path: Path) -> None:
    odd = layer(File("app/\udcff\x1b[2J", b""))
    found = difference(tmp_path, image(), image(odd))
    assert [change.path for change in found.files] == ["/app/\udcff\x1b[2J"]
    document = json.loads(json.dumps(found.as_json()).encode())
    assert document["files"][0]["path"] == "/app/\\xff\x1b[2J"
    assert document["files"][0]["kind"] == "added"
    assert document["second"]["config_digest"] == found.second.config_digest


def test_more_files_than_memory_is_lent_for_are_refused(tmp_path: Path) -> None:
    many = layer(*(File(f"many/{number}", b"") for number in range(30)))
    deep = layer(File("/".join("deep" * 10), b""))
    for files in (many, deep):
        path = save(tmp_path, Image(config([files]), (gzip.compress(files, mtime=0),)).docker())
        with pytest.raises(errors.ArchiveSizeError):
            compare(path, path, dataclasses.replace(Limits(), files=20))


def test_a_layer_that_is_no_archive_has_an_identity_and_no_files(tmp_path: Path) -> None:
    for data in (b"not a tar archive", BASE[:1100], b""):
        with pytest.raises(errors.ArchiveFormatError, match="layer 2 of 2"):
            difference(tmp_path, IMAGE, image(BASE, data))


@given(place=st.integers(0), change=st.integers(1, 255))
def test_any_changed_byte_of_a_layer_gives_another_image_or_a_typed_error(
    place: int, change: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(BASE)
    content[place % (len(BASE.rstrip(b"\0")) + 1024)] ^= change
    try:
        found = difference(tmp_path_factory.getbasetemp(), IMAGE, image(bytes(content), CODE))
    except errors.ContainerError:
        return
    assert not found.is_same_image
    assert [field.field for field in found.config] == ["rootfs.diff_ids"]
