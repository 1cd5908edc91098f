"""The whole build at the command line, with one small wheel in place of gigabytes."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from auditkit.cli.application import app
from containers import build
from containers.build import PACKAGES
from containers.diff import compare
from containers.errors import BasePullError
from containers.identity import identify
from tests.containers.engine import require_engine
from tests.containers.test_image_environment import NAME, requirements, wheel

pytestmark = pytest.mark.slow  # they need a base

RUN = """
[code]
loop = "loop.py"

[container]
image = "image.tar"
"""


@pytest.fixture(autouse=True)
def one_small_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = wheel(tmp_path / "wheels")
    monkeypatch.setattr(build, "REQUIREMENTS", requirements(tmp_path, source))


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(one) for one in arguments], catch_exceptions=False)


@pytest.fixture
def trainer(base_archive: Path, tmp_path: Path) -> Path:
    path, work = tmp_path / "trainer.tar", tmp_path / "work"
    result = invoke("image", "build", "--base", base_archive, "-o", path, "--work", work, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == identify(path).as_json()
    assert "compiling bytecode" in result.stderr
    assert list(work.iterdir()) == []
    return path


@pytest.fixture
def config(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "loop.py").write_text("def train(run): ...\n", encoding="utf-8")
    example = Path(__file__).parents[2] / "examples" / "digits.toml"
    path = folder / "run.toml"
    text = example.read_text(encoding="utf-8")
    path.write_text(text + RUN, encoding="utf-8")
    return path


def test_an_auditor_rebuilds_what_a_developer_built(
    trainer: Path, base_archive: Path, config: Path
) -> None:
    same = invoke("image", "rebuild", trainer, "--base", base_archive)
    assert (same.exit_code, "the same image" in same.stdout) == (0, True)

    assert invoke("package", config, "--trainer", trainer).exit_code == 0
    image = config.parent / "image.tar"
    same = invoke("image", "rebuild", image, "--base", base_archive, "--code", config)
    assert (same.exit_code, "the same image" in same.stdout) == (0, True)

    other = invoke("image", "rebuild", image, "--base", base_archive)
    assert other.exit_code == 1
    assert "- /opt/run/code/loop.py" in other.stdout

    (config.parent / "loop.py").write_text("def train(run): cheat()\n", encoding="utf-8")
    other = invoke("image", "rebuild", image, "--base", base_archive, "--code", config)
    assert other.exit_code == 1
    assert "~ /opt/run/code/loop.py" in other.stdout


def test_docker_build_of_what_is_kept_gives_the_same_files(
    trainer: Path, base_archive: Path, tmp_path: Path
) -> None:
    engine = require_engine()
    work = tmp_path / "kept"
    result = invoke(
        *("image", "build", "--base", base_archive, "--output", tmp_path / "again.tar"),
        *("--work", work, "--keep"),
    )
    assert result.exit_code == 0, result.output
    (place,) = work.iterdir()
    assert str(place) in result.stderr.replace("\n", "")
    assert (place / "context" / PACKAGES / NAME / "__init__.py").is_file()
    assert identify(tmp_path / "again.tar") == identify(trainer)
    with base_archive.open("rb") as file:
        (base,) = engine.images.load(file)
    tag = "auditkit-test-base:kept"
    base.tag(*tag.split(":"))
    image = None
    try:
        image, _ = engine.images.build(
            path=str(place / "context"), buildargs={"BASE": tag}, rm=True, network_mode="none"
        )
        saved = tmp_path / "docker.tar"
        with saved.open("wb") as file:
            file.writelines(image.save())
    finally:
        if image is not None:
            engine.images.remove(image.id, force=True)
        engine.images.remove(tag, force=True)
    difference = compare(trainer, saved)
    assert difference.files == ()
    settings = {f"config.{one}" for one in ("Env.HOME", "User", "WorkingDir", "Entrypoint", "Cmd")}
    assert not settings & {change.field for change in difference.config}


def test_without_a_base_the_published_one_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_engine()
    recipe = build.DOCKERFILE.read_text(encoding="utf-8").replace(
        "=python:", "=127.0.0.1:9/python:"
    )
    monkeypatch.setattr(build, "DOCKERFILE", tmp_path / "Dockerfile")
    build.DOCKERFILE.write_text(recipe, encoding="utf-8")
    with pytest.raises(BasePullError, match="auditkit image base"):
        invoke("image", "build", "--output", tmp_path / "x.tar", "--work", tmp_path / "work")
    assert not list((tmp_path / "work").iterdir())
