"""The trainer's image: a base, the pinned packages, the toolkit, and the program that starts."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from containers import recipe
from containers.archive import check_present
from containers.bytecode import compile_folder
from containers.code import collect
from containers.derive import configuration_of, derive
from containers.environment import REQUIREMENTS, install
from containers.errors import BasePlatformError, MissingSourceError
from containers.identity import inspect_image
from containers.interpreter import Interpreter, find_interpreter
from containers.limits import DEFAULT_LIMITS
from containers.platform import ARCHITECTURE, OPERATING_SYSTEM
from containers.progress import Progress, silent
from containers.tar_writer import Member
from containers.tree import from_file, from_folder, layer, normalise_modes
from containers.unpack import Unpacker
from schemas import ImageIdentity

HERE = Path(__file__).parent
DOCKERFILE = HERE / "Dockerfile"
START_FILE = HERE / "agent.py"

PACKAGES = "packages"
CODE = "code"
AGENT = "agent.py"
ROOT_IN_IMAGE = "/opt/auditkit"

UNPACKING = "unpacking the base"
BASE_ADVICE = (
    "make one with `auditkit image base --output base.tar`, or save one with `docker save` or "
    "`skopeo copy`"
)


def default_recipe() -> recipe.Recipe:
    """Return the recipe of the trainer's image."""
    return recipe.parse(DOCKERFILE.read_text(encoding="utf-8"))


def build_trainer(
    base: Path, output: Path, work: Path, progress: Progress = silent
) -> ImageIdentity:
    """Build the trainer's image.

    Args:
        base: a saved image with Python, see `interpreter`.
        output: the archive to write.
        work: a folder of the caller's own, with space for about 7 GB. What the recipe copies is in
            `work / "context"` afterwards, the unpacked base in `work / "base"`.
        progress: is told how far it is.

    Raises:
        OSError: a file cannot be read or written.
        ContainerError: the subclass says which step failed, and why.
    """
    context = work / "context"
    interpreter = open_base(base, work / "base", progress)
    prepare(context, interpreter, REQUIREMENTS, progress)
    return carry_out(default_recipe(), base, context, output, progress)


def open_base(base: Path, root: Path, progress: Progress = silent) -> Interpreter:
    """Unpack a base into a new folder, verify it, and return its Python.

    Raises:
        OSError: a file cannot be read or written.
        MissingArchiveError: it is not there.
        BasePlatformError: it is for another platform.
        BasePythonError: it has no fitting Python.
        ContainerError: it does not hold.
    """
    check_present(base, "the archive of a base", BASE_ADVICE)
    progress(UNPACKING)
    root.mkdir(parents=True)
    image = inspect_image(base, Unpacker(root, DEFAULT_LIMITS.files).apply)
    found = configuration_of(image.config)
    if (found.os, found.architecture) != (OPERATING_SYSTEM, ARCHITECTURE):
        raise BasePlatformError(
            f"expected a base for {OPERATING_SYSTEM}/{ARCHITECTURE}, for which the packages are "
            f"pinned, found one for {found.os[:40]}/{found.architecture[:40]}"
        )
    return find_interpreter(root)


def prepare(
    context: Path, interpreter: Interpreter, requirements: Path, progress: Progress = silent
) -> None:
    """Lay out what the recipe copies, in a new folder, with bytecode.

    Raises:
        OSError: a file cannot be read or written.
        ContainerError: the subclass says which step failed, and why.
    """
    install(requirements, context / PACKAGES, progress)
    collect(context / CODE)
    shutil.copyfile(START_FILE, context / AGENT)
    shutil.copyfile(DOCKERFILE, context / DOCKERFILE.name)
    for name in (PACKAGES, CODE):
        compile_folder(interpreter, context / name, f"{ROOT_IN_IMAGE}/{name}", progress)
    normalise_modes(context)


def carry_out(
    instructions: recipe.Recipe,
    base: Path,
    context: Path,
    output: Path,
    progress: Progress = silent,
) -> ImageIdentity:
    """Carry out a recipe on a base and a folder, and write the image.

    Raises:
        OSError: a file cannot be read or written.
        MissingSourceError: the recipe copies something that the folder does not have.
        ContainerError: the base does not hold, or a file cannot be put into a layer.
    """
    layers = [
        _members(one, context) for one in instructions.instructions if isinstance(one, recipe.Copy)
    ]
    settings = [one for one in instructions.instructions if not isinstance(one, recipe.Copy)]
    return derive(base, output, layers, settings, progress)


def _members(copy: recipe.Copy, context: Path) -> Sequence[Member]:
    source = context / copy.source
    if copy.is_folder != source.is_dir():
        kind = "folder" if copy.is_folder else "file"
        raise MissingSourceError(f"expected the {kind} {source}, which the recipe copies")
    target = copy.target.strip("/")
    if copy.is_folder:
        return layer(from_folder(source, target))
    return layer([from_file(source, target)])
