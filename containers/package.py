"""The developer's part of an image: training code, and the data where they are to be closed in."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from containers.archive import check_present
from containers.derive import configuration_of, derive
from containers.errors import DocumentFormatError, MissingSourceError, UnsafeSourceError
from containers.progress import Progress, silent
from containers.recipe import Label
from containers.tar_writer import Member
from containers.tree import from_file, from_folder, layer
from schemas import ImageIdentity

CODE_IN_IMAGE = "opt/run/code"
DATA_IN_IMAGE = "opt/run/data"
TRAINER_ADVICE = "build it with `auditkit image build --output trainer.tar`"
LABEL = "dev.auditkit.package"
"""Says, as JSON, which source files and which data an image contains: `{"code": [], "data": []}`.

Where there is a training loop among the source files, `"loop"` names it.
"""


class Packaged(BaseModel):
    """What `auditkit package` put into an image: source files and data by name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    code: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    loop: str | None = None


def package(
    trainer: Path,
    output: Path,
    *,
    root: Path,
    code: Sequence[str] = (),
    loop: str | None = None,
    data: Mapping[str, Path] | None = None,
    progress: Progress = silent,
) -> ImageIdentity:
    """Add the developer's files to the trainer's image as one layer.

    Args:
        trainer: the saved image of the trainer.
        output: the archive to write.
        root: the folder that holds all of the code.
        code: source files, by their paths below the root.
        loop: the one of them that is the training loop.
        data: files or folders, by what they are called in the image (`pool`, `test`).
        progress: is told how many bytes are written.

    Raises:
        OSError: a file cannot be read or written.
        MissingArchiveError: there is no image of the trainer.
        MissingSourceError: a file or folder is not there.
        UnsafeSourceError: a source file lies outside the root, or a link leads out of its folder.
        ContainerError: the trainer's image does not hold, or a file changed on the way.
    """
    check_present(trainer, "the trainer's image", TRAINER_ADVICE)
    data = data or {}
    members = layer([*_code(root, code), *_data(data)])
    said = Packaged(code=tuple(sorted(code)), data=tuple(sorted(data)), loop=loop)
    label = said.model_dump_json(exclude_none=True)
    layers = [members] if members else []
    return derive(trainer, output, layers, [Label(LABEL, label)], progress)


def packaged(config: bytes) -> Packaged:
    """Return what an image says that was packaged into it.

    Args:
        config: the image's configuration, verified.

    Raises:
        DocumentFormatError: it says so in an unreadable way.
    """
    labels = configuration_of(config).settings.get("Labels")
    try:
        return Packaged.model_validate_json((labels or {}).get(LABEL, "{}"))
    except ValidationError as error:
        raise DocumentFormatError(
            f"the image's label {LABEL} is not what `auditkit package` writes; package it again"
        ) from error


def _code(root: Path, names: Sequence[str]) -> Iterator[Member]:
    for name in names:
        path = root / name
        if not path.is_file():
            raise MissingSourceError(f"expected the source file {path}, found none")
        if not path.resolve().is_relative_to(root.resolve()):
            raise UnsafeSourceError(
                f"the source file {path} leads out of {root}; put the file itself there"
            )
        yield from_file(path, f"{CODE_IN_IMAGE}/{name}")


def _data(data: Mapping[str, Path]) -> Iterator[Member]:
    for name, path in data.items():
        if not path.exists():
            raise MissingSourceError(f"expected data for {name!r} at {path}, found nothing")
        place = f"{DATA_IN_IMAGE}/{name}"
        if path.is_dir():
            yield from from_folder(path.resolve(), place)
        else:
            yield from_file(path, place)
