"""A developer's own model and loop, in their own image: trained, asked, replayed."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_closed_container import LAUNCH_SECONDS, ContainerWorld
from test_replay_story import disclose, draw, replay
from world import World

from auditkit.mint.enhanced import EnhancedAuditedModel
from auditkit.mint.evaluation import membership_scores
from containers.package import package
from developer_agent.run_folder import RunFolder
from examples.own_loop.train import SmallNet
from schemas import ModelDescription
from tests.containers.private_engine import PrivateEngine

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_loop" / "train.py"
MODEL = """
[training.model]
architecture = "custom:small-net"
classes = 10
channels = 1
height = 8
width = 8
[training.taps]
setup = "named"
modules = ["edges", "shapes"]
[training.mint]
"""
CODE = """
[code]
loop = "train.py"
"""
# When asked, the developer's code looks for a way out and for a place to write to, and fails if it
# finds one. What it prints comes before the answer. Some pictures make it misbehave.
CURIOUS = """

def train(run):
    import pathlib

    pictures = pathlib.Path("/run/auditkit/pictures")
    if pictures.exists():
        print('{"schema_version": 1, "shape": [1], "outputs": "AAAAAA=="}')
        misbehave(pictures.read_bytes()[0])
        look_around()
    return train_honestly(run)


def misbehave(pixel):
    import time

    if pixel == 1:
        time.sleep(1000)
    if pixel == 2:
        [bytes(range(256)) * 2**22 for _ in range(8)]
    while pixel == 3:
        print("x" * 10**6)
    if pixel == 4:
        raise RuntimeError("not today")


def look_around():
    import os
    import socket

    for folder, _, _ in os.walk("/"):
        in_memory = folder.startswith(("/proc", "/sys", "/dev", "/tmp"))
        if not in_memory and os.access(folder, os.W_OK):
            raise RuntimeError(f"{folder} is writable")
    if [name for _, name in socket.if_nameindex()] != ["lo"]:
        raise RuntimeError("there is a network")
"""
MISBEHAVIOUR = {
    1: "InferenceTimeoutError",
    2: "InferenceMemoryError",
    3: "InferenceCrashedError",
    4: "InferenceCrashedError",
}
LIMITS = ("--model-seconds", "60", "--model-memory-mib", "1024")


@pytest.fixture(scope="module")
def own(
    tmp_path_factory: pytest.TempPathFactory,
    image_folder: Path,
    trainer_archive: Path,
    private_engine: PrivateEngine,
) -> Iterator[ContainerWorld]:
    """A training of the example's own model in its own image, up to the submission."""
    folder = tmp_path_factory.mktemp("own")
    honest = EXAMPLE.read_text().replace("def train(run", "def train_honestly(run")
    (folder / "train.py").write_text(honest + CURIOUS)
    image = image_folder / "own.tar"
    package(trainer_archive, image, root=folder, code=["train.py"], loop="train.py")
    world = ContainerWorld(folder, image, private_engine, epochs=8)
    text = world.config.read_text()
    start, end = text.index("[training.model]"), text.index("head = ")
    world.config.write_text(text[:start] + MODEL.lstrip() + text[end:] + CODE)
    world.serve(*LIMITS)
    done = world.train()
    assert done.returncode == 0, done.stdout + done.stderr
    yield world
    world.close()


@pytest.mark.slow
def test_an_own_model_is_asked_in_its_image_alone(own: ContainerWorld) -> None:
    pixels = np.random.default_rng(5).integers(10, 256, (8, 8), dtype=np.uint8)
    asked = picture(own, pixels)
    refused = ask(own, asked)
    assert refused.returncode == 1
    assert "auditkit server add-image" in refused.stderr

    taken = own.cli("server", "add-image", str(own.image), "--home", str(own.home), timeout=600)
    assert taken.returncode == 0, taken.stderr
    first, again = ask(own, asked), ask(own, asked)
    assert first.returncode == 0, first.stderr
    (answer,) = json.loads(first.stdout)
    assert answer["verdict"]["score"] == pytest.approx(expected_score(own, pixels), rel=1e-4)
    assert json.loads(again.stdout)[0]["verdict"]["score"] == answer["verdict"]["score"]
    assert own.engine.client().containers.list(all=True) == []

    code, report = own.verify(own.export("asked.bundle"))
    assert code == 0, report
    assert next(f for f in report["findings"] if f["check"] == "verdicts")["outcome"] == "passed"


@pytest.mark.slow
@pytest.mark.parametrize(("pixel", "error"), MISBEHAVIOUR.items())
def test_code_that_misbehaves_costs_its_own_question_alone(
    own: ContainerWorld, pixel: int, error: str
) -> None:
    """The image was taken in by the test before."""
    refused = ask(own, picture(own, np.full((8, 8), pixel, dtype=np.uint8)))
    assert refused.returncode == 1
    assert error in refused.stderr
    assert own.engine.client().containers.list(all=True) == []


@pytest.mark.slow
def test_a_replay_in_the_same_image_reaches_level_three(own: ContainerWorld) -> None:
    drawn = draw(own, "--uniform", "3")
    packages = disclose(own, drawn, "--calibration")
    outside = replay(own, drawn, packages, "--no-container")
    assert outside.returncode == 1
    assert "with --image" in outside.stderr
    done = replay(own, drawn, packages, "--image", str(own.image))
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert {one["outcome"] for one in result["segments"]} == {"exact"}
    assert result["mode"] == "container"
    assert own.engine.client().containers.list(all=True) == []
    code, report = own.verify(own.export("replayed.bundle"))
    assert code == 0, report
    assert report["level"] == 3


def picture(own: World, pixels: np.ndarray) -> Path:
    path = own.folder / "picture.png"
    Image.fromarray(pixels).save(path)
    return path


def ask(own: World, picture: Path) -> subprocess.CompletedProcess[str]:
    arguments = ("query", own.session_id(), str(picture), *own.asking, "--json")
    return own.cli(*arguments, timeout=LAUNCH_SECONDS)


def expected_score(own: World, pixels: np.ndarray) -> float:
    run = RunFolder(own.folder / "run")
    description = ModelDescription.from_bytes(run.description.read())
    parts = (description.model, description.taps, description.mint)
    model = EnhancedAuditedModel.build(parts, 0, SmallNet())
    model.load_weights(run.weights.read())
    (score,) = membership_scores(
        model, pixels[np.newaxis, ..., np.newaxis], description.normalisation
    )
    return float(score)
