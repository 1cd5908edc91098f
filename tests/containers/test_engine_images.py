"""What an engine has on disk is believed only once every byte of it was hashed."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest

from containers import engine_errors
from containers.engine import Engine
from containers.filesystem import FileState, FileSystem
from containers.identity import identify, inspect_image
from containers.limits import DEFAULT_LIMITS
from tests.containers.engine import require_engine
from tests.containers.python_image import LABEL, LoadedImage, loaded, python_image
from tests.containers.saved_images import File, archive, image, layer, save

SECRET = b"the code that was ordered\n"


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    require_engine().close()
    with Engine.connect() as found:
        yield found


@pytest.fixture(scope="module")
def loaded_image(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoadedImage]:
    code = layer(File("opt/", mode=0o755), File("opt/code.py", SECRET), File("opt/data", b"1"))
    folder = tmp_path_factory.mktemp("image")
    with loaded(engine, folder, python_image(code)) as found:
        yield found


def stored_file(engine: Engine, image_id: str, path: str) -> Path:
    """Where the engine keeps a file of an image's highest layer that has it."""
    facts = engine.facts()
    client = docker.DockerClient(base_url=facts.address)
    data = client.images.get(image_id).attrs["GraphDriver"]["Data"]
    client.close()
    for folder in (data["UpperDir"], *data["LowerDir"].split(":")):
        if (Path(folder) / path).exists():
            return Path(folder) / path
    raise AssertionError(path)


def test_an_image_is_found_by_its_identity_alone(engine: Engine, loaded_image: LoadedImage) -> None:
    assert loaded_image.id == f"sha256:{loaded_image.identity.config_digest}"
    assert engine.find_image(loaded_image.identity) == loaded_image.id
    other = loaded_image.identity.model_copy(
        update={"config_digest": "0" * 64, "manifest_digest": "1" * 64}
    )
    assert engine.find_image(other) is None


def test_loading_tells_its_progress(engine: Engine, loaded_image: LoadedImage) -> None:
    told: list[tuple[int, int]] = []
    size = loaded_image.archive.stat().st_size
    found = engine.load(
        loaded_image.archive, loaded_image.identity, lambda done, total: told.append((done, total))
    )
    assert found == loaded_image.id
    assert told[-1] == (size, size)


def edited(engine: Engine, image_id: str) -> Path:
    """A file of the image that this user can edit where the engine keeps it."""
    try:
        path = stored_file(engine, image_id, "opt/code.py")
        path.write_bytes(SECRET)
    except (PermissionError, KeyError) as error:
        pytest.skip(f"this user cannot edit what the engine stores: {error}")
    return path


@pytest.fixture(scope="module")
def expected(loaded_image: LoadedImage) -> dict[str, FileState]:
    system = FileSystem(DEFAULT_LIMITS.files)
    inspect_image(loaded_image.archive, system.apply)
    return dict(system.files())


def test_a_container_has_exactly_the_files_of_its_image(
    loaded_image: LoadedImage, expected: dict[str, FileState], tmp_path: Path
) -> None:
    told: list[tuple[int, int]] = []
    container = loaded_image.create(tmp_path, "")
    container.check_files(expected, lambda done, total: told.append((done, total)))
    container.remove()
    assert told[-1][0] > 10**7
    assert all(done <= total for done, total in told)


CHANGES: dict[str, Callable[[Path], object]] = {
    "content": lambda path: path.write_bytes(SECRET.upper()),
    "mode": lambda path: path.chmod(0o4755),
    "owner": lambda path: os.chown(path, 1, 1),
    "another file": lambda path: path.with_name("sitecustomize.py").write_text("steal()"),
    "a hidden file": lambda path: path.with_name(".wh.data").write_text("steal()"),
    "a folder": lambda path: path.with_name("package").mkdir(),
    "a link in its place": lambda path: (path.unlink(), path.symlink_to("data")),
    "no file": lambda path: path.unlink(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_changed_on_the_engines_disk_is_found_in_the_container(
    change: str,
    engine: Engine,
    loaded_image: LoadedImage,
    expected: dict[str, FileState],
    tmp_path: Path,
) -> None:
    path = edited(engine, loaded_image.id)
    before = {one.name for one in path.parent.iterdir()}
    CHANGES[change](path)
    try:
        assert engine.find_image(loaded_image.identity) == loaded_image.id  # the name tells nothing
        container = loaded_image.create(tmp_path, "")
        with pytest.raises(engine_errors.StoredImageError, match="/opt/"):
            container.check_files(expected)
    finally:
        for one in path.parent.iterdir():
            if one.name not in before:
                one.rmdir() if one.is_dir() else one.unlink()
        path.unlink(missing_ok=True)
        path.write_bytes(SECRET)
        path.chmod(0o644)
    container.check_files(expected)


def test_an_archive_with_a_changed_layer_is_not_loaded(engine: Engine, tmp_path: Path) -> None:
    honest = image(layer(File("code.py", SECRET)), Labels={LABEL: "changed"})
    path = save(tmp_path, honest.docker())
    identity = identify(path)
    path.write_bytes(archive(honest.docker()).replace(SECRET, SECRET.upper()))
    with pytest.raises(engine_errors.ImageLoadError, match="image"):
        engine.load(path, identity)


def test_a_file_that_is_no_image_is_not_loaded(
    engine: Engine, loaded_image: LoadedImage, tmp_path: Path
) -> None:
    path = tmp_path / "notes.tar"
    path.write_bytes(b"not an image" * 1000)
    other = loaded_image.identity.model_copy(
        update={"config_digest": "0" * 64, "manifest_digest": "1" * 64}
    )
    with pytest.raises(engine_errors.ImageLoadError):
        engine.load(path, other)
    with pytest.raises(FileNotFoundError):
        engine.load(tmp_path / "missing.tar", other)


def test_another_image_than_the_identified_one_is_not_taken_for_it(
    engine: Engine, loaded_image: LoadedImage
) -> None:
    other = loaded_image.identity.model_copy(
        update={"config_digest": "0" * 64, "manifest_digest": "1" * 64}
    )
    with pytest.raises(engine_errors.ImageLoadError, match="does not have"):
        engine.load(loaded_image.archive, other)


def test_an_image_is_removed_once(engine: Engine, tmp_path: Path) -> None:
    contents = image(layer(File("a", b"a")), Labels={LABEL: "removed"})
    with loaded(engine, tmp_path, contents) as found:
        engine.remove_image(found.id)
        assert engine.find_image(found.identity) is None
