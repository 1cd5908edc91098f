"""The real image: made from Debian packages and pinned wheels, twice, and it is the same image."""

import json
import tempfile
from importlib.metadata import version
from pathlib import Path

import pytest
from typer.testing import CliRunner

from auditkit.cli.application import app
from containers.base import EMPTIED, LEFT_OUT, build_base, host_sources
from containers.build import build_trainer, open_base
from containers.errors import BaseBuildError, MmdebstrapMissingError
from containers.filesystem import FileState, FileSystem
from containers.identity import identify, inspect_image
from containers.limits import DEFAULT_LIMITS
from tests.containers.engine import output_of, require_program
from tests.containers.private_engine import PrivateEngine

IMPORTS = """
import json, sys
sys.path[:0] = ["/opt/auditkit/code", "/opt/auditkit/packages"]
import auditkit.cli.contained, developer_agent.trainer, importlib.metadata, timm, torch
names = {name: module.__file__ or "" for name, module in sys.modules.items()
         if getattr(module, "__file__", None)}
cached = [module.__cached__ for module in sys.modules.values()
          if (getattr(module, "__file__", None) or "").startswith("/opt/")
          and (getattr(module, "__cached__", None) or "").endswith(".pyc")]
import os
print(json.dumps({
    "version": importlib.metadata.version("auditkit"),
    "outside": sorted({name for name, file in names.items() if "/dist-packages/" in file}),
    "without bytecode": [path for path in cached if not os.path.exists(path)],
    "cached": len(cached),
    "user": [os.getuid(), os.getgid()],
}))
"""


def files(path: Path) -> dict[str, FileState]:
    system = FileSystem(DEFAULT_LIMITS.files)
    inspect_image(path, system.apply)
    return dict(system.files())


@pytest.mark.slow
def test_the_base_has_python_and_nothing_of_this_machine(
    base_archive: Path, tmp_path: Path
) -> None:
    found = files(base_archive)
    assert not [path for path in found if path[1:].startswith(tuple(f"{one}/" for one in EMPTIED))]
    assert not [path for path in found if path[1:] in LEFT_OUT]
    assert {state.kind for state in found.values()} == {"file", "directory", "symbolic link"}
    assert {"/etc/apt", "/tmp", "/var/log", "/proc"} <= found.keys()
    assert found["/tmp"].mode == 0o1777
    interpreter = open_base(base_archive, tmp_path / "root")
    modules = "ctypes, decimal, lzma, multiprocessing, sqlite3, ssl, venv, zoneinfo"
    output_of(*interpreter.run("-c", f"import {modules}"))
    # Whatever the times of the files: the standard library's bytecode is valid.
    headers = {path.read_bytes()[4:8] for path in (tmp_path / "root/usr").rglob("*.pyc")}
    assert headers == {b"\x03\0\0\0"}


@pytest.mark.slow
def test_the_base_is_the_same_a_second_time_at_the_command_line(
    base_archive: Path, tmp_path: Path
) -> None:
    path = tmp_path / "base.tar"
    arguments = ["image", "base", "--output", str(path), "--work", str(tmp_path), "--json"]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == identify(base_archive).as_json()
    assert list(tmp_path.iterdir()) == [path]


def test_a_mirror_that_is_not_there_is_one_clear_error(tmp_path: Path) -> None:
    require_program("mmdebstrap")
    output = tmp_path / "base.tar"
    with pytest.raises(BaseBuildError, match="mmdebstrap failed"):
        build_base(output, tmp_path, mirrors=[f"file://{tmp_path}/nothing"])
    assert not output.exists()


def test_without_mmdebstrap_one_is_told_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MmdebstrapMissingError, match="apt install mmdebstrap"):
        build_base(tmp_path / "base.tar", tmp_path)


def test_sources_of_another_release_are_never_taken() -> None:
    assert host_sources("no-such-release") == ()


@pytest.mark.slow
def test_built_twice_it_is_the_same_image(
    base_archive: Path, trainer_archive: Path, image_folder: Path
) -> None:
    first = identify(trainer_archive)
    with tempfile.TemporaryDirectory(dir=image_folder) as work:
        second = build_trainer(base_archive, Path(work) / "second.tar", Path(work))
    assert second == first
    assert first.diff_ids[0] == identify(base_archive).diff_ids[0]


@pytest.mark.slow
def test_it_runs_from_its_own_files_alone(
    trainer_archive: Path, private_engine: PrivateEngine
) -> None:
    image = private_engine.client().images.get(f"sha256:{identify(trainer_archive).config_digest}")
    printed = private_engine.client().containers.run(
        image.id,
        ["-I", "-c", IMPORTS],
        entrypoint=["python3"],
        network_mode="none",
        read_only=True,
        tmpfs={"/tmp": ""},
        cap_drop=["ALL"],
        remove=True,
    )
    found = json.loads(printed)
    assert found["user"] == [10001, 10001]
    assert found["version"] == version("auditkit")
    assert found["outside"] == []
    assert found["without bytecode"] == []
    assert found["cached"] > 1000
