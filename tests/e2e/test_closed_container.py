"""The training in its closed container: the story, and everything that is killed on the way.

Each launch hashes an image of six gigabytes as the engine has it on disk, so there are few of them.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from world import POLL_SECONDS, World, failed_checks

from containers.identity import identify
from tests.containers.private_engine import PrivateEngine

pytestmark = pytest.mark.slow
LAUNCH_SECONDS = 600


class ContainerWorld(World):
    """A world whose order allows one image, and whose configuration names it."""

    def __init__(self, folder: Path, image: Path, engine: PrivateEngine, epochs: int) -> None:
        self.image = image
        self.engine = engine
        super().__init__(folder, epochs=epochs, images=(identify(image).config_digest,))
        container = f'\n[container]\nimage = "{image}"\nmemory_gib = 4\n'
        self.config.write_text(self.config.read_text() + container)

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "DOCKER_HOST": self.engine.host}

    def train(self, *options: str) -> subprocess.CompletedProcess[str]:
        return self.cli("train", str(self.config), *options, timeout=LAUNCH_SECONDS)

    def wait_for_acknowledged(self, count: int, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + LAUNCH_SECONDS
        while len(self.acknowledged()) < count:
            assert process.poll() is None, f"ended early: {self.log('train')}"
            assert time.monotonic() < deadline, "no progress"
            time.sleep(POLL_SECONDS)

    def acknowledged(self) -> list[bytes]:
        """The records that the auditor has cosigned, as they lie in the run folder."""
        run = self.folder / "run"
        if not (run / "checkpoints.jsonl").exists():
            return []
        # What follows the last line end is still being written.
        notes = (run / "checkpoints.jsonl").read_text().split("\n")[:-1]
        size = int(json.loads(notes[-1]).splitlines()[1]) if notes else 0
        return (run / "records.jsonl").read_bytes().splitlines()[:size]


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, trainer_archive: Path, private_engine: PrivateEngine
) -> Iterator[ContainerWorld]:
    """A story that went well, in a container, up to the submission."""
    world = ContainerWorld(tmp_path_factory.mktemp("c"), trainer_archive, private_engine, epochs=30)
    world.serve()
    done = world.train()
    assert done.returncode == 0, done.stdout + done.stderr
    yield world
    world.close()


def test_the_evidence_of_a_closed_container_reaches_level_two(finished: ContainerWorld) -> None:
    code, report = finished.verify(finished.export())
    assert code == 0, report
    assert report["level"] == 2
    assert failed_checks(report) == set()
    outcomes = {f["check"]: f["outcome"] for f in report["findings"]}
    assert {name for name, outcome in outcomes.items() if outcome != "passed"} == {
        "replay",  # nothing was drawn
        "hardware-attested",  # nobody attests a test machine
        "checkpoints-witnessed",  # the order demands no witness
        "verdicts",  # nothing was asked yet
    }


def test_the_report_shows_which_image_it_was(finished: ContainerWorld, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    done = finished.cli("report", finished.session_id(), *finished.access, "--output", str(page))
    assert done.returncode == 0, done.stderr
    identity = identify(finished.image)
    for digest in (identity.config_digest, identity.manifest_digest, *identity.diff_ids):
        assert digest in page.read_text()


def test_the_session_key_is_nowhere_on_disk(finished: ContainerWorld) -> None:
    run = finished.folder / "run"
    assert not (run / "session.key.pem").exists()
    assert not [
        path for path in run.rglob("*") if path.is_file() and b"PRIVATE" in path.read_bytes()
    ]


def test_nothing_of_the_container_is_left(finished: ContainerWorld) -> None:
    assert finished.engine.client().containers.list(all=True) == []


def test_a_training_outside_gives_the_same_weights(
    finished: ContainerWorld, tmp_path: Path
) -> None:
    """Same grant, same pool, same machine and threads: the same weights, bit for bit."""
    sealed = finished.folder / "run" / "model" / "weights.safetensors"
    assert finished.train_again(tmp_path / "again.jsonl") == sha256(sealed.read_bytes()).hexdigest()


def test_nothing_acknowledged_is_lost_whatever_is_killed(
    tmp_path: Path, trainer_archive: Path, private_engine: PrivateEngine
) -> None:
    engine = private_engine
    world = ContainerWorld(tmp_path, trainer_archive, engine, epochs=190)
    world.serve()
    try:
        kept: list[list[bytes]] = []

        # The relay dies: it comes back, and the training never notices.
        training = world.start("train", str(world.config))
        world.wait_for_acknowledged(10, training)
        relay = ("-P", str(training.pid), "-f", "developer_agent.relay")
        subprocess.run(["pkill", "-KILL", *relay], check=True)
        world.wait_for_acknowledged(len(world.acknowledged()) + 60, training)

        # The container dies.
        kept.append(world.acknowledged())
        for container in engine.client().containers.list():
            container.kill()
        assert training.wait(LAUNCH_SECONDS) not in {0, None}
        assert "Traceback" not in world.log("train")

        # The engine dies, and its containers with it when it comes back.
        training = world.start("train", str(world.config), "--resume")
        world.wait_for_acknowledged(len(kept[0]) + 60, training)
        kept.append(world.acknowledged())
        engine.kill()
        assert training.wait(LAUNCH_SECONDS) == 1
        assert "Traceback" not in world.log("train")
        engine.start()

        # Ctrl-C: a clean stop.
        training = world.start("train", str(world.config), "--resume")
        world.wait_for_acknowledged(len(kept[1]) + 60, training)
        kept.append(world.acknowledged())
        training.send_signal(signal.SIGINT)
        assert training.wait(LAUNCH_SECONDS) == 130
        assert "--resume" in world.log("train")

        done = world.train("--resume")
        assert done.returncode == 0, done.stdout + done.stderr
        code, report = world.verify(world.export())
        assert code == 0, report
        assert report["level"] == 2
        log = (tmp_path / "run" / "records.jsonl").read_bytes().splitlines()
        for acknowledged in kept:
            assert log[: len(acknowledged)] == acknowledged
        kinds = [json.loads(line)["kind"] for line in log]
        assert kinds.count("continuation") == 3
    finally:
        world.close()
