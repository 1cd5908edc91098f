"""Real data sets for tests, unpacked once into a cache folder outside the repository."""

import gzip
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
CACHE = Path.home() / ".cache" / "auditkit-tests"


def cifar10_folder() -> Path:
    """Return a folder with `train/<class>/*.jpg` (50,000) and `test/<class>/*.jpg` (10,000)."""
    return _unpacked("cifar10", _test_data("cifar10-imagefolder.zip"), _unzip)


def mnist_folder() -> Path:
    """Return a root from which `torchvision.datasets.MNIST` loads."""
    return _unpacked("mnist", _test_data("mnist"), _gunzip_mnist)


def _test_data(name: str) -> Path:
    folder = Path(os.environ.get("AUDITKIT_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    path = folder / name
    if not path.exists():
        reason = f"{path} is missing; set AUDITKIT_TEST_DATA to the folder with the test data"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return path


def _unpacked(name: str, source: Path, unpack: Callable[[Path, Path], None]) -> Path:
    target = CACHE / name
    if target.is_dir():
        return target
    CACHE.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=CACHE, prefix=f"{name}-"))
    try:
        unpack(source, scratch)
        # A rename is atomic; when another process was first, its copy is as good as ours.
        scratch.rename(target)
    except OSError:
        if not target.is_dir():
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target


def _unzip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(folder)


def _gunzip_mnist(source: Path, folder: Path) -> None:
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for packed in sorted(source.glob("*.gz")):
        with gzip.open(packed) as reader, (raw / packed.stem).open("wb") as writer:
            shutil.copyfileobj(reader, writer)
