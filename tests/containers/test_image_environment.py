"""Packages and code of the image: exactly what is pinned and shipped, nothing of this machine."""

import base64
import hashlib
import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from containers.code import collect
from containers.environment import REQUIREMENTS, install
from containers.errors import PipMissingError, WheelInstallError
from containers.tar_writer import tar
from containers.tree import from_folder, layer

ROOT = Path(__file__).parents[2]
NAME = "auditkit_test_wheel"


IMAGE_PLATFORM = {
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "python_full_version": "3.11.2",
    "python_version": "3.11",
    "sys_platform": "linux",
}


def pinned(path: Path) -> dict[str, set[str]]:
    """The hashes of each requirement of a file that holds for the image's platform."""
    found = {}
    for line in path.read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
        if line and not line.startswith("#"):
            text, *hashes = line.split(" --hash=")
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate(IMAGE_PLATFORM):
                found[f"{requirement.name}{requirement.specifier}"] = {
                    one.strip() for one in hashes
                }
    return found


def test_the_image_has_a_part_of_what_is_developed_and_tested_with() -> None:
    image, development = pinned(REQUIREMENTS), pinned(ROOT / "constraints.txt")
    names = {requirement.split("==")[0] for requirement in image}
    assert {"torch", "timm", "requests", "pydantic"} <= names
    assert not {"pytest", "mypy", "ruff"} & names
    assert len(names) == len(image)
    assert image.keys() <= development.keys()
    for requirement, hashes in image.items():
        assert hashes, requirement
        assert hashes <= development[requirement], requirement
        assert all(one.startswith("sha256:") for one in hashes), requirement
    assert ";" not in REQUIREMENTS.read_text(encoding="utf-8")  # the host's Python would decide


def wheel(folder: Path, module: bytes = b"answer = 42\n") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{NAME}-1.0-py3-none-any.whl"
    information = f"{NAME}-1.0.dist-info"
    files = {
        f"{NAME}/__init__.py": module,
        f"{information}/METADATA": f"Metadata-Version: 2.1\nName: {NAME}\nVersion: 1.0\n".encode(),
        f"{information}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{information}/entry_points.txt": f"[console_scripts]\ntool = {NAME}:answer\n".encode(),
    }
    record = "".join(
        f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode()[:-1]},"
        f"{len(data)}\n"
        for name, data in files.items()
    )
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in {**files, f"{information}/RECORD": record.encode()}.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return path


def requirements(folder: Path, source: Path) -> Path:
    path = folder / "requirements.txt"
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    path.write_text(f"{NAME} @ {source.as_uri()} --hash=sha256:{digest}\n", encoding="utf-8")
    return path


def test_an_installed_wheel_tells_nothing_of_where_it_came_from(tmp_path: Path) -> None:
    layers = []
    for place in ("one", "another/deeper"):
        source = wheel(tmp_path / place)
        target = tmp_path / place / "target"
        install(requirements(tmp_path, source), target)
        assert {path.relative_to(target).as_posix() for path in target.rglob("*")} == {
            NAME,
            f"{NAME}/__init__.py",
            f"{NAME}-1.0.dist-info",
            f"{NAME}-1.0.dist-info/METADATA",
            f"{NAME}-1.0.dist-info/WHEEL",
            f"{NAME}-1.0.dist-info/entry_points.txt",
        }
        assert sorted(path.name for path in target.parent.iterdir()) == [source.name, "target"]
        layers.append(b"".join(tar(layer(from_folder(target, "opt/packages")))))
    assert layers[0] == layers[1]
    assert str(tmp_path).encode() not in layers[0]


def test_a_wheel_with_another_hash_is_refused(tmp_path: Path) -> None:
    source = wheel(tmp_path)
    path = requirements(tmp_path, source)
    wheel(tmp_path, b"answer = 43\n")
    with pytest.raises(WheelInstallError, match=r"(?i)hash"):
        install(path, tmp_path / "target")


def test_a_python_without_pip_is_told_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(PipMissingError, match="ensurepip"):
        install(REQUIREMENTS, tmp_path / "target")


def test_a_checkout_gives_the_files_of_its_wheel(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (path,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        shipped = {
            name: archive.read(name)
            for name in archive.namelist()
            if ".dist-info/" not in name and not name.endswith("/")
        }
    target = tmp_path / "code"
    collect(target)
    found = {
        file.relative_to(target).as_posix(): file.read_bytes()
        for file in target.rglob("*")
        if file.is_file()
    }
    information = {name: data for name, data in found.items() if ".dist-info/" in name}
    assert found.keys() - information.keys() == shipped.keys()
    assert {name: data for name, data in found.items() if name in shipped} == shipped
    assert [data.decode().splitlines()[1] for data in information.values()] == ["Name: auditkit"]
    for needed in ("containers/Dockerfile", "containers/agent.py", "containers/requirements.txt"):
        assert needed in shipped


def test_what_lies_about_in_a_checkout_stays_there(tmp_path: Path) -> None:
    collect(tmp_path)
    names = {path.name for path in tmp_path.rglob("*")}
    assert not {"__pycache__", ".git", "tests"} & names
    assert not [name for name in names if name.endswith((".pyc", ".orig", "~"))]
