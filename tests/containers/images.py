"""The real images, built once for all tests of a session; a plugin, see `tests/conftest.py`."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from containers.base import build_base
from containers.build import build_trainer
from containers.engine import Engine
from containers.identity import identify
from tests.containers.engine import require_program
from tests.containers.private_engine import PrivateEngine, missing


@pytest.fixture(scope="session")
def image_folder() -> Iterator[Path]:
    """A folder for gigabytes, which pytest would keep for the next three sessions."""
    with tempfile.TemporaryDirectory(
        prefix="auditkit-images-", ignore_cleanup_errors=True
    ) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def base_archive(image_folder: Path) -> Path:
    """A base made from Debian packages; takes about 20 s."""
    require_program("mmdebstrap")
    path = image_folder / "base.tar"
    with tempfile.TemporaryDirectory(dir=image_folder) as work:
        build_base(path, Path(work))
    return path


@pytest.fixture(scope="session")
def private_engine(image_folder: Path, trainer_archive: Path) -> Iterator[PrivateEngine]:
    """An engine that tests may kill, with the trainer's image in it."""
    reason = missing()
    if reason is not None:
        assert "CI" not in os.environ, reason
        pytest.skip(reason)
    engine = PrivateEngine(image_folder / "engine")
    engine.start()
    try:
        with Engine(engine.host) as connection:
            connection.load(trainer_archive, identify(trainer_archive))
        yield engine
    finally:
        engine.stop()


@pytest.fixture(scope="session")
def trainer_archive(image_folder: Path, base_archive: Path) -> Path:
    """The trainer's image on that base; takes about 3 minutes and 14 GB for a while."""
    path = image_folder / "trainer.tar"
    with tempfile.TemporaryDirectory(dir=image_folder) as work:
        build_trainer(base_archive, path, Path(work))
    return path
