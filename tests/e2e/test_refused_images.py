"""`auditkit train` refuses every image but the ordered one, before anything of it runs.

No engine is asked for any of this. What only a started container can show is refused in
tests/containers (by a real engine) and tests/server (by the server).
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from world import World

from tests.containers.saved_images import (
    BASE,
    CODE,
    IMAGE,
    File,
    Image,
    image,
    layer,
    save,
    sha256,
)

ALLOWED = sha256(IMAGE.config)
EVIL = layer(File("app/train.py", b"steal()\n"))


def one_byte(whole: bytes) -> bytes:
    """Change one byte in the content of a file of the last layer."""
    place = whole.rindex(b"train()")
    return whole[:place] + b"T" + whole[place + 1 :]


def two_images(folder: Path) -> Path:
    """The allowed image by one layout, another one by the other."""
    members = [*IMAGE.oci(), *image(BASE, EVIL).docker()]
    return save(folder, members)


def saved(other: Image) -> Callable[[Path], Path]:
    return lambda folder: save(folder, other.both())


def damaged(folder: Path) -> Path:
    path = save(folder, IMAGE.docker())
    path.write_bytes(one_byte(path.read_bytes()))
    return path


ATTACKS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "one byte changed in a layer": (damaged, "the layer has been changed or exchanged"),
    "another image beside it": (two_images, "expected one image"),
    "another entry point": (
        saved(image(BASE, CODE, Entrypoint=["python", "-m", "steal"])),
        "is not among the 1 images",
    ),
    "another environment": (
        saved(image(BASE, CODE, Env=["PATH=/usr/bin", "LD_PRELOAD=/app/hook.so"])),
        "is not among the 1 images",
    ),
    "an extra layer": (saved(image(BASE, CODE, EVIL)), "is not among the 1 images"),
    "the right name with another digest": (saved(image(BASE, EVIL)), "is not among the 1 images"),
    "no image at all": (lambda folder: folder / "missing.tar", "there is no image"),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("refused"), images=(ALLOWED,))
    world.serve()
    yield world
    world.close()


def train(world: World, folder: Path, path: Path) -> str:
    """Try to train with an image; return what is printed. No engine can be reached."""
    config = folder / "config.toml"
    settings = f"\n[container]\nimage = {json.dumps(str(path))}\n"
    text = world.config.read_text().replace('"auditor/', f'"{world.home}/')
    config.write_text(text + settings)
    nowhere = f"unix://{folder}/no-engine.sock"
    done = world.cli("train", str(config), DOCKER_HOST=nowhere)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert not (folder / "run" / "request.json").exists()
    return " ".join(done.stderr.split())


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_image_that_was_not_ordered_is_never_started(
    attack: str, world: World, tmp_path: Path
) -> None:
    make, expected = ATTACKS[attack]
    assert expected in train(world, tmp_path, make(tmp_path))


def test_the_ordered_image_gets_as_far_as_the_engine(world: World, tmp_path: Path) -> None:
    printed = train(world, tmp_path, save(tmp_path, IMAGE.both()))
    assert "container engine" in printed


def test_without_an_image_one_is_told_what_to_do(world: World) -> None:
    done = world.cli("train", str(world.config))
    assert done.returncode == 1
    assert "auditkit package" in done.stderr
    assert "--no-container" in done.stderr


def test_a_plain_process_is_refused_by_an_order_that_demands_a_container(world: World) -> None:
    done = world.cli("train", "--no-container", str(world.config))
    assert done.returncode == 1
    assert "ContainerRequiredError" in done.stderr


def test_a_folder_that_holds_other_things_is_not_shown_inside(world: World, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "private.txt").write_text("private")
    printed = train(world, tmp_path, save(tmp_path, IMAGE.both()))
    assert "holds private.txt, which is no part of a run" in printed
