"""The developer closes code and data into an image; the auditor rebuilds it and compares."""

import io
import json
import shutil
import tarfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from auditkit.cli.application import app
from auditkit.cli.errors import UsageError
from containers.diff import compare
from containers.errors import (
    DocumentFormatError,
    MissingArchiveError,
    MissingSourceError,
    UnsafeSourceError,
)
from containers.identity import identify, inspect_image, see_nothing
from containers.package import LABEL, package, packaged
from developer_agent.source_files import SourceFileError
from tests.containers.saved_images import BASE, CODE, image, save

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits.toml"
RUN = """
[code]
loop = "training/loop.py"
files = ["training", "shared.py"]

[container]
image = "built/image.tar"
"""


@pytest.fixture
def trainer(tmp_path: Path) -> Path:
    return save(tmp_path, image(BASE, CODE, Labels={"kept": "1"}).oci(), "trainer.tar")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    (folder / "training").mkdir(parents=True)
    (folder / "built").mkdir()
    (folder / "training/loop.py").write_text("def train(run): ...\n", encoding="utf-8")
    (folder / "training/model.py").write_text("layers = 3\n", encoding="utf-8")
    (folder / "training/notes.md").write_text("not code\n", encoding="utf-8")
    (folder / "shared.py").write_text("", encoding="utf-8")
    for part in ("pool", "test"):
        (folder / f"data/{part}/cat").mkdir(parents=True)
        (folder / f"data/{part}/cat/1.png").write_bytes(part.encode())
    text = EXAMPLE.read_text(encoding="utf-8")
    for part, old in (("pool", 'kind = "digits"'), ("test", 'kind = "digits"')):
        assert old in text
        text = text.replace(old, f'kind = "image_folder"\npath = "data/{part}"', 1)
    path = folder / "run.toml"
    path.write_text(text + RUN, encoding="utf-8")
    return path


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["package", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def added(path: Path) -> dict[str, bytes]:
    """The files of the last layer."""
    digest = identify(path).diff_ids[-1]
    with tarfile.open(path) as archive:
        blob = archive.extractfile(f"blobs/sha256/{digest}")
        assert blob is not None
        with tarfile.open(fileobj=io.BytesIO(blob.read())) as top:
            return {
                one.name: file.read() for one in top if (file := top.extractfile(one)) is not None
            }


def label(path: Path) -> object:
    document = json.loads(inspect_image(path, see_nothing).config)
    assert document["config"]["Labels"]["kept"] == "1"
    return json.loads(document["config"]["Labels"][LABEL])


CODE_FILES = {
    "opt/run/code/shared.py": b"",
    "opt/run/code/training/loop.py": b"def train(run): ...\n",
    "opt/run/code/training/model.py": b"layers = 3\n",
}
DATA_FILES = {
    "opt/run/data/pool/cat/1.png": b"pool",
    "opt/run/data/test/cat/1.png": b"test",
}


def test_the_code_is_closed_in_and_the_data_stay_outside(config: Path, trainer: Path) -> None:
    shown = run(str(config), "--trainer", str(trainer))
    path = config.parent / "built/image.tar"
    identity = identify(path)
    assert str(path) in shown
    assert identity.config_digest in shown
    assert identity.archive_digest in shown
    assert added(path) == CODE_FILES
    names = ["shared.py", "training/loop.py", "training/model.py"]
    assert label(path) == {"code": names, "data": [], "loop": names[1]}
    assert packaged(inspect_image(path).config).data == ()


def test_with_the_data_the_image_is_complete(config: Path, trainer: Path, tmp_path: Path) -> None:
    path = tmp_path / "all.tar"
    arguments = (str(config), "--trainer", str(trainer), "--include-data", "--output", str(path))
    document = json.loads(run(*arguments, "--json"))
    assert document["config_digest"] == identify(path).config_digest
    assert document["path"] == str(path)
    assert added(path) == CODE_FILES | DATA_FILES
    assert packaged(inspect_image(path).config).data == ("pool", "test")


def test_the_same_inputs_elsewhere_give_the_same_image(
    config: Path, trainer: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(config.parent, tmp_path / "elsewhere", copy_function=shutil.copyfile)
    (other / "training/__pycache__").mkdir()
    (other / "training/__pycache__/loop.pyc").touch()
    paths = []
    for folder in (config.parent, other):
        paths.append(folder / "image.tar")
        target = str(paths[-1])
        run(str(folder / "run.toml"), "--trainer", str(trainer), "--output", target)
    assert identify(paths[0]) == identify(paths[1])
    (other / "training/model.py").write_text("layers = 4\n", encoding="utf-8")
    run(str(other / "run.toml"), "--trainer", str(trainer), "--output", str(paths[1]))
    (change,) = compare(*paths).files
    assert (change.path, change.changed) == ("/opt/run/code/training/model.py", ("digest",))


def test_the_built_in_loop_needs_no_code(config: Path, trainer: Path) -> None:
    text = config.read_text(encoding="utf-8").replace(RUN, "")
    config.write_text(text, encoding="utf-8")
    path = config.parent / "plain.tar"
    run(str(config), "--trainer", str(trainer), "--output", str(path))
    assert identify(path).diff_ids == identify(trainer).diff_ids
    assert label(path) == {"code": [], "data": []}
    with pytest.raises(UsageError, match=r"container\.image"):
        run(str(config), "--trainer", str(trainer))


def test_code_that_is_missing_or_elsewhere_is_refused(config: Path, trainer: Path) -> None:
    (config.parent / "training/model.py").unlink()
    (config.parent / "training/model.py").symlink_to(trainer)
    with pytest.raises(UnsafeSourceError, match="leads out"):
        run(str(config), "--trainer", str(trainer))
    (config.parent / "shared.py").unlink()
    with pytest.raises(SourceFileError):
        run(str(config), "--trainer", str(trainer))
    with pytest.raises(MissingSourceError):
        package(trainer, config.parent / "x.tar", root=config.parent, code=["missing.py"])


def test_data_that_are_missing_or_lead_out_are_refused(config: Path, trainer: Path) -> None:
    arguments = (str(config), "--trainer", str(trainer), "--include-data")
    (config.parent / "data/pool/cat/2.png").symlink_to("../../../run.toml")
    with pytest.raises(UnsafeSourceError, match=r"2\.png is a link to"):
        run(*arguments)
    (config.parent / "data/pool/cat/2.png").unlink()
    shutil.rmtree(config.parent / "data/test")
    with pytest.raises(MissingSourceError, match="'test'"):
        run(*arguments)
    assert not list((config.parent / "built").iterdir())


def test_an_archive_that_cannot_be_written_is_told_before_the_work(
    config: Path, trainer: Path, tmp_path: Path
) -> None:
    output = str(tmp_path / "missing/image.tar")
    base = ["--base", str(trainer)]
    for command in (
        ["package", str(config), "--trainer", str(trainer)],
        ["image", "build", *base],
        ["image", "base"],
    ):
        result = CliRunner().invoke(app, [*command, "--output", output])
        assert isinstance(result.exception, UsageError)
        assert "make the folder" in str(result.exception)


def test_an_image_that_is_not_there_is_told_with_the_way_to_make_it(
    config: Path, tmp_path: Path
) -> None:
    missing = str(tmp_path / "missing.tar")
    output = ["--output", str(tmp_path / "output.tar")]
    work = ["--work", str(tmp_path / "work")]
    for command, advice in (
        (["package", str(config), "--trainer", missing, *output], "auditkit image build"),
        (["image", "build", "--base", missing, *work, *output], "auditkit image base"),
    ):
        result = CliRunner().invoke(app, command)
        assert isinstance(result.exception, MissingArchiveError)
        assert missing in str(result.exception)
        assert advice in str(result.exception)
    assert not (tmp_path / "output.tar").exists()


def test_a_label_that_is_not_ours_is_not_believed(tmp_path: Path) -> None:
    for text in ("{", '{"data": 1}', '{"other": []}'):
        path = save(tmp_path, image(BASE, Labels={LABEL: text}).oci())
        with pytest.raises(DocumentFormatError, match="auditkit package"):
            packaged(inspect_image(path).config)
    assert packaged(inspect_image(save(tmp_path, image(BASE).oci())).config).data == ()
