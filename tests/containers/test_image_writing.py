"""Files become layers, layers an archive: the same bytes however and wherever they were made."""

import io
import os
import random
import socket
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from containers.derive import derive
from containers.errors import SourceChangedError, UnsafeSourceError
from containers.identity import identify, inspect_image, see_nothing
from containers.recipe import EntryPoint, Env, Label, Setting, User, WorkingFolder
from containers.tar import TarReader
from containers.tar_writer import SOURCE_DATE_EPOCH, Member, member_header, tar
from containers.tree import from_file, from_folder, layer, normalise_modes
from containers.write import Configuration, new_image
from schemas import ImageIdentity
from tests.containers.saved_images import BASE, CODE, File, image, save, sha256
from tests.containers.saved_images import layer as layer_bytes

FILES = {
    "b.py": (b"print()\n", 0o644),
    "a/tool": (b"#!/bin/sh\n", 0o755),
    "a/\u00e4 name": (b"umlaut", 0o600),
    "a-b": (b"sorts between a and a/tool", 0o640),
    "long/" + "x" * 120 + "/" + "y" * 120: (b"beyond a header", 0o644),
    "empty": (b"", 0o444),
}
SETTINGS = (
    Env("PATH", "/opt/bin"),
    Env("LANG", "C.UTF-8"),
    Label("dev.example", "1"),
    User("10001:10001"),
    WorkingFolder("/"),
    EntryPoint(("python3", "/agent.py")),
)


def make_files(folder: Path, order: list[str], umask: int, time: int) -> Path:
    before = os.umask(umask)
    try:
        for name in order:
            content, mode = FILES[name]
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            path.chmod(mode)
            os.utime(path, (time, time))
        (folder / "link").symlink_to("a/tool")
    finally:
        os.umask(before)
    return folder


def write(path: Path, *layers: bytes, **settings: object) -> ImageIdentity:
    with new_image(path) as writer:
        for one in layers:
            writer.add_layer([one[:1000], one[1000:]])
        writer.finish(Configuration("amd64", "linux", settings))
    return identify(path)


def packed(folder: Path) -> bytes:
    return b"".join(tar(layer(from_folder(folder, "opt/app"))))


def test_order_times_and_umask_leave_no_trace(tmp_path: Path) -> None:
    names = list(FILES)
    first = make_files(tmp_path / "first", names, 0o022, 0)
    random.Random(7).shuffle(names)
    second = make_files(tmp_path / "second", names, 0o077, 1_900_000_000)
    assert packed(first) == packed(second)
    identities = [
        write(tmp_path / f"{folder.name}.tar", packed(folder), User="1:1")
        for folder in (first, second)
    ]
    assert identities[0] == identities[1]


def test_another_reader_finds_what_was_packed(tmp_path: Path) -> None:
    folder = make_files(tmp_path / "files", list(FILES), 0o022, 0)
    with tarfile.open(fileobj=io.BytesIO(packed(folder))) as read:
        members = {one.name: one for one in read.getmembers()}
        assert list(members) == sorted(members, key=str.encode)
        for name, (content, mode) in FILES.items():
            member = members[f"opt/app/{name}"]
            stream = read.extractfile(member)
            assert stream is not None
            assert stream.read() == content
            assert member.mode == (0o755 if mode & 0o100 else 0o644)
        assert all(
            (one.uid, one.gid, one.uname, one.gname, one.mtime) == (0, 0, "", "", SOURCE_DATE_EPOCH)
            for one in members.values()
        )
        assert {one.mode for one in members.values() if one.isdir()} == {0o755}
        assert members["opt"].isdir()
        assert members["opt/app/link"].linkname == "a/tool"


class _Bytes:
    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def read(self, size: int) -> bytes:
        return self._file.read(size)

    def skip(self, size: int) -> None:
        self._file.seek(size, io.SEEK_CUR)


names = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=255
).filter(lambda name: name not in {".", ".."} and len(name.encode()) <= 255)


@given(st.lists(names, min_size=1, max_size=9).map("/".join), st.binary(max_size=2000), names)
def test_our_reader_and_pythons_agree_with_our_writer(name: str, data: bytes, link: str) -> None:
    members = [
        Member(name=name, kind="file", mode=0o644, size=len(data), content=lambda: iter([data])),
        Member(name="other", kind="symbolic link", mode=0o777, link=link, user=3, group=4),
    ]
    written = b"".join(tar(members))
    reader = TarReader(_Bytes(written), "the test", 10)
    found = [(entry, b"".join(reader.data())) for entry in reader]
    assert [(entry.name, entry.kind, content) for entry, content in found] == [
        (name, "file", data),
        ("other", "symbolic link", b""),
    ]
    assert (found[1][0].link, found[1][0].user, found[1][0].group) == (link, 3, 4)
    with tarfile.open(fileobj=io.BytesIO(written)) as read:
        assert [(one.name, one.linkname) for one in read] == [(name, ""), ("other", link)]


@pytest.mark.parametrize("size", [0, 8**11 - 1, 8**11, 2**40])
def test_layers_of_any_size_have_a_header_that_all_read(size: int) -> None:
    header = member_header(Member(name="blob", kind="file", mode=0o644, size=size))
    assert tarfile.TarInfo.frombuf(header, "utf-8", "strict").size == size
    assert next(iter(TarReader(_Bytes(header), "the test", 1))).size == size


def test_a_file_that_changes_while_it_is_packed_stops_the_build(tmp_path: Path) -> None:
    path = tmp_path / "growing"
    path.write_bytes(b"12345")
    member = from_file(path, "growing")
    path.write_bytes(b"123")
    with pytest.raises(SourceChangedError):
        b"".join(tar([member]))
    with pytest.raises(SourceChangedError, match="expected 2 bytes for /a, found 3"):
        b"".join(tar([Member("a", "file", 0o644, 2, lambda: iter([b"123"]))]))


def outside(folder: Path) -> None:
    (folder / "link").symlink_to("../secret")


def absolute(folder: Path) -> None:
    (folder / "link").symlink_to((folder / "file").resolve())


def dangling(folder: Path) -> None:
    (folder / "link").symlink_to("nothing")


def there_and_back(folder: Path) -> None:
    (folder / "link").symlink_to(f"../{folder.name}/file")


def through_a_folder(folder: Path) -> None:
    (folder / "up").symlink_to("..")


def circle(folder: Path) -> None:
    (folder / "link").symlink_to("link")


def whiteout(folder: Path) -> None:
    (folder / ".wh.file").touch()


def pipe(folder: Path) -> None:
    os.mkfifo(folder / "pipe")


def listener(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(os.path.relpath(folder / "socket"))


def bytes_name(folder: Path) -> None:
    (folder / os.fsdecode(b"\xff")).touch()


@pytest.mark.parametrize(
    "spoil",
    [
        outside,
        absolute,
        dangling,
        there_and_back,
        through_a_folder,
        circle,
        whiteout,
        pipe,
        listener,
        bytes_name,
    ],
)
def test_what_cannot_lie_in_a_layer_as_it_is_is_refused(
    spoil: Callable[[Path], None], tmp_path: Path
) -> None:
    (tmp_path / "secret").touch()
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "file").touch()
    assert len(list(from_folder(folder, "data"))) == 2
    spoil(folder)
    with pytest.raises(UnsafeSourceError):
        list(from_folder(folder, "data"))


def test_two_sources_never_share_a_place(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    one, below = from_file(tmp_path / "a", "x/a"), from_file(tmp_path / "a", "x/a/b")
    for pair in ([one, from_file(tmp_path / "a", "x/a")], [one, below], [below, one]):
        with pytest.raises(UnsafeSourceError, match="two files"):
            layer(pair)


def test_permissions_on_disk_become_those_of_the_layer(tmp_path: Path) -> None:
    folder = make_files(tmp_path / "files", list(FILES), 0o077, 0)
    before = packed(folder)
    normalise_modes(folder)
    for name, (_, mode) in FILES.items():
        assert (folder / name).stat().st_mode & 0o777 == (0o755 if mode & 0o100 else 0o644)
    assert packed(folder) == before


def test_a_derived_image_has_the_layers_and_settings_of_both(tmp_path: Path) -> None:
    base = save(
        tmp_path,
        image(
            BASE, CODE, Env=["PATH=/bin", "A=1"], Cmd=["bash"], Entrypoint=None, Labels={"b": "2"}
        ).oci(),
        "base.tar",
    )
    added = [Member("new", "file", 0o644, 3, lambda: iter([b"new"]))]
    output = tmp_path / "derived.tar"
    identity = derive(base, output, [added], SETTINGS)
    assert identity == identify(output)
    assert identity.diff_ids == (sha256(BASE), sha256(CODE), sha256(b"".join(tar(added))))
    found = inspect_image(output, see_nothing).config.decode()
    for part in (
        '"Env":["PATH=/opt/bin","A=1","LANG=C.UTF-8"]',
        '"Labels":{"b":"2","dev.example":"1"}',
        '"User":"10001:10001"',
        '"Entrypoint":["python3","/agent.py"]',
        '"WorkingDir":"/"',
    ):
        assert part in found
    assert "bash" not in found  # arguments for another program


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_setting_is_part_of_the_identity(setting: Setting, tmp_path: Path) -> None:
    base = save(tmp_path, image(BASE, User="7").docker(), "base.tar")
    plain = derive(base, tmp_path / "plain.tar", [], [])
    assert derive(base, tmp_path / "set.tar", [], [setting]).config_digest != plain.config_digest


def test_how_the_base_was_saved_makes_no_difference(tmp_path: Path) -> None:
    contents = image(BASE, CODE)
    identities = {
        derive(save(tmp_path, members, "base.tar"), tmp_path / "out.tar", [], SETTINGS)
        for members in (contents.docker(), contents.oci(), contents.both())
    }
    assert len(identities) == 1


def test_a_layer_that_occurs_twice_is_stored_once(tmp_path: Path) -> None:
    path = tmp_path / "twice.tar"
    identity = write(path, BASE, CODE, BASE)
    assert identity.diff_ids == (sha256(BASE), sha256(CODE), sha256(BASE))
    assert path.stat().st_size < len(BASE) + len(CODE) + 10_000
    assert identity == identify(path)


def test_an_archive_appears_complete_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "image.tar"
    path.write_bytes(b"the one before")

    def interrupted() -> None:
        with new_image(path) as writer:
            writer.add_layer([layer_bytes(File("a", b"1"))])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_bytes() == b"the one before"
    assert list(tmp_path.iterdir()) == [path]
