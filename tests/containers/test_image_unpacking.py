"""A base is unpacked into a folder, and its own Python compiles what goes on top of it."""

import marshal
import os
import shutil
import struct
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from containers.build import open_base
from containers.bytecode import compile_folder
from containers.errors import (
    BasePlatformError,
    BasePythonError,
    BytecodeError,
    ContainerError,
    LayerFormatError,
)
from containers.identity import inspect_image
from containers.interpreter import LOADER, Interpreter
from containers.unpack import Unpacker, resolve
from containers.write import Configuration, new_image
from tests.containers.saved_images import BASE, File, image, save
from tests.containers.saved_images import layer as layer_bytes

LINK, HARD = b"2", b"1"


def unpack(folder: Path, *layers: bytes) -> Path:
    root = folder / "root"
    root.mkdir()
    inspect_image(save(folder, image(*layers).docker()), Unpacker(root, 100).apply)
    return root


def contents(root: Path) -> dict[str, bytes | None]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes() if path.is_file() else None
        for path in root.rglob("*")
        if not path.is_symlink()
    }


def test_layers_hide_replace_and_link_as_in_a_container(tmp_path: Path) -> None:
    lower = layer_bytes(
        File("usr/lib/a", b"a", mode=0o755),
        File("usr/lib/b", b"b"),
        File("etc/old/x", b"x"),
        File("etc/old/y", b"y"),
        File("lib", link="usr/lib", kind=LINK),
        File("abs", link="/usr/lib/a", kind=LINK),
        File("was-file", b"1"),
    )
    upper = layer_bytes(
        File("usr/lib/.wh.b", b""),
        File("etc/old/new", b"new"),
        File("etc/old/.wh..wh..opq", b""),
        File("lib/c", b"c"),
        File("same", link="usr/lib/a", kind=HARD),
        File("was-file/", mode=0o700),
        File("dev/null", kind=b"3"),
    )
    root = unpack(tmp_path, lower, upper)
    assert {name: data for name, data in contents(root).items() if data is not None} == {
        "usr/lib/a": b"a",
        "usr/lib/c": b"c",
        "same": b"a",
        "etc/old/new": b"new",
    }
    assert (root / "was-file").is_dir()
    assert resolve(root, "/abs") == root / "usr/lib/a"
    assert os.access(root / "usr/lib/a", os.X_OK)


@pytest.mark.parametrize(
    "files",
    [
        [File("in", link="/etc", kind=LINK), File("in/auditkit-test", b"x")],
        [File("up", link="../../../..", kind=LINK), File("up/tmp/auditkit-test", b"x")],
        [File("file", link="/tmp/auditkit-test", kind=LINK), File("file", b"x")],
    ],
)
def test_links_never_lead_out_of_the_folder(files: list[File], tmp_path: Path) -> None:
    root = unpack(tmp_path, *map(layer_bytes, files))
    found = [path for path in tmp_path.rglob("*") if path.is_file() and not path.is_symlink()]
    assert [path.read_bytes() for path in found if path.is_relative_to(root)] == [b"x"]
    assert not Path("/etc/auditkit-test").exists()
    assert not Path("/tmp/auditkit-test").exists()


@pytest.mark.parametrize(
    "files",
    [
        [File("a", link="b", kind=LINK), File("b", link="a", kind=LINK), File("a/x", b"")],
        [File("hard", link="nothing", kind=HARD)],
        [File("file", b""), File("file/below", b"")],
        [File("../out", b"")],
    ],
)
def test_layers_that_make_no_sense_are_refused(files: list[File], tmp_path: Path) -> None:
    with pytest.raises(ContainerError):
        unpack(tmp_path, layer_bytes(*files))


segments = st.sampled_from(["a", "b", "..", ".", "", "link", "other"])


@given(st.lists(segments, max_size=8), st.lists(segments, max_size=4), st.booleans())
def test_no_path_resolves_to_a_place_outside(
    parts: list[str], target: list[str], absolute: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        (root / "a/b").mkdir(parents=True)
        (root / "link").symlink_to(("/" if absolute else "./") + "/".join(target))
        with suppress(LayerFormatError):  # links in a circle
            found = resolve(root, "/".join(parts))
            assert found.is_relative_to(root)
            assert ".." not in found.parts


def base(folder: Path, architecture: str = "amd64", *files: File) -> Path:
    path = folder / "base.tar"
    with new_image(path) as writer:
        writer.add_layer(
            [
                BASE,
            ]
        )
        writer.add_layer([layer_bytes(*files)])
        writer.finish(Configuration(architecture, "linux", {}))
    return path


@pytest.mark.parametrize(
    ("architecture", "files", "error"),
    [
        ("arm64", [], BasePlatformError),
        ("amd64", [], BasePythonError),
        ("amd64", [File("usr/bin/python3", b"\x7fELF", mode=0o755)], BasePythonError),
        (
            "amd64",
            [
                File("usr/bin/python3", b"x", mode=0o755),
                File(LOADER[1:], b"no program", mode=0o755),
            ],
            BasePythonError,
        ),
    ],
)
def test_a_base_without_a_fitting_python_is_refused(
    architecture: str, files: list[File], error: type[Exception], tmp_path: Path
) -> None:
    with pytest.raises(error, match="base"):
        open_base(base(tmp_path, architecture, *files), tmp_path / "root")


SOURCES = {
    "package/__init__.py": "NAMES = frozenset({'b', 'a', 'c'})\nvalue = 'shared'\n",
    "package/other.py": "value = 'shared'\n\ndef f(x):\n    return x in {'b', 'a', 'c'}\n",
    "package/template.py": "print 'for another Python'\n",
    "alone.py": "def shared(): return ('shared', 3.5, 10**20)\n",
}


def write_sources(folder: Path, names: list[str]) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(SOURCES[name], encoding="utf-8")
    return folder


def this_python() -> Interpreter:
    return Interpreter((sys.executable,))


def test_bytecode_depends_on_its_source_and_path_alone(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    every, fewer = list(SOURCES), ["package/other.py"]
    for name, names in (("one", every), ("two", every[::-1]), ("few", fewer)):
        write_sources(tmp_path / name, names)
        compile_folder(
            this_python(),
            tmp_path / name,
            "/opt/code",
            lambda _, done=0, total=0: told.append((done, total)),
        )
    assert told[: len(every)] == [(done, len(every)) for done in range(1, len(every) + 1)]
    one, two, few = (
        {path.relative_to(tmp_path / name): path.read_bytes() for path in found}
        for name in ("one", "two", "few")
        for found in [sorted((tmp_path / name).rglob("*.pyc"))]
    )
    assert one == two
    assert len(one) == 3  # not the template
    assert few.items() <= one.items()
    for path, data in one.items():
        assert struct.unpack("<I", data[4:8]) == (0b11,)  # PEP 552: hash-based, checked
        source = path.parents[1] / f"{path.name.split('.')[0]}.py"
        assert marshal.loads(data[16:]).co_filename == f"/opt/code/{source}"


def test_a_compiler_that_fails_stops_the_build(tmp_path: Path) -> None:
    write_sources(tmp_path / "code", ["alone.py"])
    (tmp_path / "code/__pycache__").write_text("a file where the folder should be")
    with pytest.raises(BytecodeError, match=r"alone\.py"):
        compile_folder(this_python(), tmp_path / "code", "/opt/code")
    with pytest.raises(BytecodeError, match="exit code 1"):
        compile_folder(Interpreter((shutil.which("false") or "",)), tmp_path / "code", "/opt/code")
