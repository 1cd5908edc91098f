"""The toolkit's own packages, as they are installed or checked out, for the image's code layer."""

import importlib.metadata
import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path

from containers.errors import MissingSourceError

DISTRIBUTION = "auditkit"
PACKAGES = ("auditkit", "auditor_server", "containers", "developer_agent", "schemas")
EXAMPLES = "examples"
"""In a wheel they lie in the package `auditkit`, in a checkout beside it."""

SUFFIXES = frozenset(
    {".css", ".html", ".js", ".json", ".mako", ".py", ".svg", ".toml", ".ttf", ".txt"}
)
NAMES = frozenset({"Dockerfile", "py.typed"})
"""What a wheel has; anything else in a checkout is left behind by an editor or a test."""


def collect(target: Path) -> None:
    """Copy the packages into a folder, with the metadata that tells their version.

    A wheel and the checkout that it was built from give the same files.

    Raises:
        OSError: a file cannot be read or written.
        MissingSourceError: the packages are not there as files.
    """
    for name in PACKAGES:
        _copy(_package_folder(name), target / name)
    packaged = _package_folder(DISTRIBUTION) / EXAMPLES
    if not packaged.is_dir():
        packaged = _package_folder(DISTRIBUTION).parent / EXAMPLES
        _copy(packaged, target / DISTRIBUTION / EXAMPLES)
    version = importlib.metadata.version(DISTRIBUTION)
    information = target / f"{DISTRIBUTION}-{version}.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {DISTRIBUTION}\nVersion: {version}\n", encoding="utf-8"
    )


def _package_folder(name: str) -> Path:
    # Found without being imported: some of them are layers above this one.
    found = importlib.util.find_spec(name)
    places = found.submodule_search_locations if found else None
    if not places or not Path(places[0]).is_dir():
        raise MissingSourceError(
            f"expected the package {name!r} of {DISTRIBUTION} as a folder, found none; install it "
            "with pip"
        )
    return Path(places[0])


def _copy(source: Path, target: Path) -> None:
    for path in _shipped(source):
        place = target / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)


def _shipped(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if (path.suffix in SUFFIXES or path.name in NAMES) and path.is_file():
            yield path
