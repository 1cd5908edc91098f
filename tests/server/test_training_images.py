"""Images that the auditor takes in, to ask models of developers' own code."""

import shutil
import stat
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hand_built import CONFIG, DIGEST, make_request
from submitted import NORMALISATION

from auditkit.evidence.containment import MountError, NetworkError
from auditkit.evidence.keys import SigningKey
from auditor_server import contained_models
from auditor_server.contained_models import ContainedModels
from auditor_server.errors import CustomModelError
from auditor_server.process_locks import LockTimeoutError, alone, alone_within
from auditor_server.settings import ServerSettings
from auditor_server.store.blobs import BlobFolder
from auditor_server.training_images import IMAGES_FOLDER, TrainingImages
from containers.container import Container
from containers.engine import Engine
from containers.errors import ContainerError
from containers.identity import InspectedImage, identify
from schemas import (
    ContainerDescription,
    ContainerRun,
    ModelDescription,
    SessionGrant,
    SessionRequest,
)
from tests.containers.saved_images import IMAGE, save
from tests.evidence import contained

# Which image is needed, the request says alone.
GRANT = cast("SessionGrant", None)
DESCRIPTION = ModelDescription(
    session_id="session-1",
    model=CONFIG.model,
    taps=CONFIG.taps,
    mint=CONFIG.mint,
    normalisation=NORMALISATION,
    class_names=tuple("0123456789"),
    weights_digest=DIGEST,
    parameters=1,
)


@pytest.fixture
def models(tmp_path: Path) -> ContainedModels:
    return ContainedModels(tmp_path, ServerSettings(home=tmp_path), BlobFolder(tmp_path))


def own_model(container: ContainerRun | None) -> SessionRequest:
    model = CONFIG.model.model_copy(update={"architecture": "custom:secret"})
    config = CONFIG.model_copy(update={"model": model})
    return make_request(DIGEST, SigningKey.generate(), config=config, container=container)


def test_an_image_is_kept_under_the_digest_of_its_bytes(tmp_path: Path) -> None:
    archive = save(tmp_path, IMAGE.docker())
    images = TrainingImages(tmp_path)
    digest = identify(archive).config_digest
    assert not images.has(digest)
    assert images.add(archive).config_digest == digest
    assert images.has(digest)
    assert images.path(digest).read_bytes() == archive.read_bytes()
    assert not images.has(None)


def test_what_is_no_image_leaves_nothing_behind(tmp_path: Path) -> None:
    archive = save(tmp_path, b"no image at all")
    with pytest.raises(ContainerError):
        TrainingImages(tmp_path).add(archive)
    assert list((tmp_path / IMAGES_FOLDER).iterdir()) == []


def test_a_model_trained_outside_any_image_cannot_be_asked(models: ContainedModels) -> None:
    with pytest.raises(CustomModelError, match="outside any image"):
        models.model(own_model(None), GRANT)


def test_the_image_that_trained_is_the_one_that_is_needed(
    models: ContainedModels, tmp_path: Path
) -> None:
    request = own_model(contained.contained_run())
    TrainingImages(tmp_path).add(save(tmp_path, IMAGE.docker()))  # another one
    with pytest.raises(CustomModelError, match=f"{request.image_digest} .* add-image"):
        models.model(request, GRANT)
    archive = TrainingImages(tmp_path).path(str(request.image_digest))
    archive.touch()
    model = models.model(request, GRANT)
    archive.unlink()  # as the operator may at any time
    with pytest.raises(CustomModelError, match="add-image"):
        model.outputs(DESCRIPTION, ("0" * 64, "1" * 64), [])


def test_whoever_waits_for_others_is_told_when_it_takes_too_long(tmp_path: Path) -> None:
    inside, leave = threading.Event(), threading.Event()

    def stay() -> None:
        with alone(tmp_path, "work"):
            inside.set()
            leave.wait()

    thread = threading.Thread(target=stay)
    thread.start()
    inside.wait()
    with pytest.raises(LockTimeoutError), alone_within(tmp_path, "work", seconds=0.2):
        raise AssertionError
    leave.set()
    thread.join()
    with alone_within(tmp_path, "work", seconds=0.2):
        pass


def test_a_question_lies_in_memory_where_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contained_models, "MEMORY_FOLDER", tmp_path)
    with contained_models._question(b"task", b"weights", b"pictures") as folder:
        assert folder.is_relative_to(tmp_path)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
            "query.json": b"task",
            "weights.safetensors": b"weights",
            "pictures": b"pictures",
        }
        assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    with contained_models._question(b"task", b"weights", b"pictures") as folder:
        assert not folder.is_relative_to(tmp_path)


class FakeContainer:
    """A container that an engine describes as it likes; it must never be listened to."""

    def __init__(self, **described: Any) -> None:
        self.described = described
        self.removed = False

    def start(self) -> None:
        pass

    def describe(self) -> ContainerDescription:
        mounts = (contained.RELAY, contained.SCRATCH)
        return contained.description(**{"mounts": mounts, **self.described})

    def remove(self) -> None:
        self.removed = True


@pytest.mark.parametrize(
    ("described", "error"),
    [({"network_mode": "host"}, NetworkError), ({"mounts": contained.MOUNTS}, MountError)],
)
def test_an_engine_that_locks_down_less_gets_no_answer(
    models: ContainedModels, described: Any, error: type[Exception]
) -> None:
    image = InspectedImage(contained.identity(), contained.CONFIG_TEXT.encode(), b"")
    with pytest.raises(error):
        models._run(cast("Container", FakeContainer(**described)), image, "asking")


def test_what_a_killed_process_left_behind_is_removed_by_the_next_question(
    models: ContainedModels, tmp_path: Path
) -> None:
    leftover, made = FakeContainer(), FakeContainer()
    found: list[Any] = []

    def containers(labels: Any) -> list[FakeContainer]:
        found.append(labels)
        return [leftover]

    engine = SimpleNamespace(
        containers=containers,
        facts=lambda: SimpleNamespace(rootless=False),
        find_image=lambda _: "sha256:0",
        create=lambda _, lockdown: found.append(lockdown.labels) or made,
    )
    image = InspectedImage(contained.identity(), contained.CONFIG_TEXT.encode(), b"")
    assert models._create(cast("Engine", engine), image, tmp_path) is cast("Container", made)
    assert leftover.removed
    assert not made.removed
    assert found[0] == found[1]  # it is found by what the next one will be found by
