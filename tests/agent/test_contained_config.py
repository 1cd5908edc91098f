"""What a configuration becomes inside the container: the same run at other places."""

import json
from hashlib import sha256
from pathlib import Path

import pytest

from auditkit.data.pools import DataSource
from containers.errors import DocumentFormatError
from containers.filesystem import FileState
from containers.package import LABEL
from developer_agent.contained_config import (
    CodeNotPackagedError,
    LaunchDocumentError,
    PickledDataError,
    check_contained,
    check_packaged_code,
    contained_config,
)
from developer_agent.run_config import CodeConfig, RunConfig, ServerConfig
from tests.adversary.forge import CONFIG

FOLDER = Path("/home/developer")


def config(**changes: object) -> RunConfig:
    run = RunConfig(
        developer="Example Lab",
        output="runs/one",
        server=ServerConfig(
            url="https://audit.example.org",
            order="digits",
            trust_root="trust-root.json",
            token_file="secret.token",
        ),
        pool=DataSource(kind="image_folder", path="data/pool"),
        test=DataSource(kind="arrays", path="/data/test.npz"),
        training=CONFIG,
    )
    return run.model_copy(update=changes)


def image(**label: object) -> bytes:
    labels = {LABEL: json.dumps(label)} if label else {}
    document = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Labels": labels},
        "rootfs": {"type": "layers", "diff_ids": []},
    }
    return json.dumps(document).encode()


def test_data_outside_the_image_are_mounted() -> None:
    found = contained_config(config(), FOLDER, image())
    assert found.binds == {"pool": FOLDER / "data/pool", "test": Path("/data/test.npz")}
    assert (found.config.pool.path, found.config.test.path) == ("/data/pool", "/data/test")


def test_packaged_data_are_not_mounted() -> None:
    found = contained_config(config(), FOLDER, image(data=["pool"]))
    assert set(found.binds) == {"test"}
    assert found.config.pool.path == "/opt/run/data/pool"


def test_data_that_are_no_files_need_no_mount() -> None:
    digits = DataSource(kind="digits")
    found = contained_config(config(pool=digits, test=digits), FOLDER, image())
    assert found.binds == {}
    assert found.config.pool == digits


def test_nothing_of_the_developers_machine_is_told_inside() -> None:
    text = contained_config(config(), FOLDER, image()).config.model_dump_json()
    for private in (str(FOLDER), "audit.example.org", "secret.token", "runs/one", "test.npz"):
        assert private not in text


def test_what_is_trained_stays_as_it_was() -> None:
    found = contained_config(config(), FOLDER, image()).config
    assert found.training == CONFIG
    assert found.output == "/output"


@pytest.mark.parametrize("loop", ["train.py", "./train.py"])
def test_packaged_code_is_found_by_its_name(loop: str) -> None:
    own = config(code=CodeConfig(loop=loop))
    assert contained_config(own, FOLDER, image(code=["train.py"])).config.code == own.code


@pytest.mark.parametrize("label", [{}, {"code": ["other.py"]}])
def test_code_that_was_not_packaged_is_missed_before_the_start(label: dict[str, object]) -> None:
    with pytest.raises(CodeNotPackagedError, match="auditkit package"):
        contained_config(config(code=CodeConfig(loop="train.py")), FOLDER, image(**label))


def test_a_label_that_is_not_ours_is_refused() -> None:
    with pytest.raises(DocumentFormatError, match="auditkit package"):
        contained_config(config(), FOLDER, image(data="everything"))


def inside(name: str, content: bytes) -> tuple[str, FileState]:
    state = FileState(
        kind="file",
        mode=0o644,
        user=0,
        group=0,
        size=len(content),
        digest=sha256(content).hexdigest(),
        link="",
        device=(0, 0),
        attributes=None,
    )
    return f"/opt/run/code/{name}", state


def test_edited_code_must_be_packaged_again(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "train.py").write_bytes(b"train()")
    (tmp_path / "model/net.py").write_bytes(b"net()")
    code = CodeConfig(loop="train.py", files=("model",))
    packaged = dict([inside("train.py", b"train()"), inside("model/net.py", b"net()")])
    check_packaged_code(code, tmp_path, packaged)
    (tmp_path / "model/net.py").write_bytes(b"other()")
    with pytest.raises(CodeNotPackagedError, match=r"net.py differs"):
        check_packaged_code(code, tmp_path, packaged)
    (tmp_path / "model/new.py").write_bytes(b"")
    (tmp_path / "model/net.py").write_bytes(b"net()")
    with pytest.raises(CodeNotPackagedError, match=r"new.py is not in the image"):
        check_packaged_code(code, tmp_path, packaged)


def cifar(path: str) -> DataSource:
    return DataSource(kind="torchvision", dataset="CIFAR10", path=path)


def test_pickles_are_taken_from_the_image_alone() -> None:
    with pytest.raises(PickledDataError, match="--include-data"):
        contained_config(config(pool=cifar("data/cifar")), FOLDER, image())
    packaged = contained_config(config(pool=cifar("data/cifar")), FOLDER, image(data=["pool"]))
    check_contained(packaged.config, image(data=["pool"]))


def test_what_the_launcher_makes_of_a_configuration_is_accepted_inside() -> None:
    for label in ({}, {"data": ["pool", "test"]}, {"code": ["train.py"]}):
        own = config(code=CodeConfig(loop="train.py")) if "code" in label else config()
        check_contained(contained_config(own, FOLDER, image(**label)).config, image(**label))


@pytest.mark.parametrize(
    "changes",
    [
        {"output": "/opt/run/code"},
        {"server": config().server},
        {"pool": DataSource(kind="image_folder", path="/output")},
        {"pool": DataSource(kind="image_folder", path="/opt/run/data/pool")},
        {"test": DataSource(kind="image_folder", path="/data/pool")},
        {"code": CodeConfig(loop="/output/evil.py")},
        {"code": CodeConfig(loop="../../output/evil.py")},
    ],
)
def test_a_launch_document_cannot_lead_to_other_places(changes: dict[str, object]) -> None:
    inside = contained_config(config(), FOLDER, image()).config
    check_contained(inside, image())
    with pytest.raises(LaunchDocumentError):
        check_contained(inside.model_copy(update=changes), image())


def test_mounted_pickles_are_refused_inside_as_well() -> None:
    inside = contained_config(config(), FOLDER, image()).config
    with pytest.raises(PickledDataError):
        check_contained(inside.model_copy(update={"pool": cifar("/data/pool")}), image())
