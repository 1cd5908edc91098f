"""One image from another: its layers copied, new ones on top, its configuration changed."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from auditkit.evidence import canonical
from containers.documents import ImageConfig, parse
from containers.identity import identify, inspect_image
from containers.layers import LayerStream
from containers.progress import Counter, Progress, silent
from containers.recipe import EntryPoint, Env, Label, Setting, User, WorkingFolder
from containers.tar import CHUNK
from containers.tar_writer import Member, tar
from containers.write import Configuration, ImageWriter, new_image
from schemas import ImageIdentity

WRITING = "writing the archive"
CHECKING = "hashing what was written"


def derive(
    base: Path,
    output: Path,
    layers: Sequence[Iterable[Member]],
    settings: Iterable[Setting],
    progress: Progress = silent,
) -> ImageIdentity:
    """Write an image: a verified base, and what comes on top of it.

    Nothing but these arguments has a part in the identity; the base's history and dates are not
    taken over.

    Args:
        base: a saved image.
        output: the archive to write; replaced when complete.
        layers: members of the new layers, in order.
        settings: changes of the configuration, in order.
        progress: is told how many bytes are written.

    Returns:
        What `identity.identify` finds in the archive.

    Raises:
        OSError: a file cannot be read or written.
        ContainerError: the base does not hold, or a file changed on the way.
    """
    listed = [list(layer) for layer in layers]
    total = base.stat().st_size + sum(member.size for layer in listed for member in layer)
    counter = Counter(progress, WRITING, total)
    with new_image(output) as writer:
        image = inspect_image(base, partial(copy_layer, writer, counter))
        for layer in listed:
            writer.add_layer(counter.count(tar(layer)))
        writer.finish(_configuration(image.config, settings))
    progress(CHECKING)
    return identify(output)


def configuration_of(config: bytes) -> Configuration:
    """Return the part of an image's configuration that says what runs, and on what.

    Raises:
        DocumentFormatError: it is no configuration of an image.
    """
    found = parse(config, ImageConfig, "the image's configuration")
    document = canonical.parse(config)
    return Configuration(
        architecture=str(document.get("architecture", "")),
        os=str(document.get("os", "")),
        settings={name: value for name, value in (found.config or {}).items() if value is not None},
    )


def apply_setting(settings: dict[str, Any], setting: Setting) -> dict[str, Any]:
    """Return the object `config` after one instruction, as a container engine would set it."""
    match setting:
        case Env(name, value):
            return {**settings, "Env": _with_variable(settings.get("Env") or [], name, value)}
        case Label(name, value):
            return {**settings, "Labels": {**(settings.get("Labels") or {}), name: value}}
        case User(user):
            return {**settings, "User": user}
        case WorkingFolder(path):
            return {**settings, "WorkingDir": path}
        case EntryPoint(command):
            # The base's arguments were meant for the base's program.
            kept = {name: value for name, value in settings.items() if name != "Cmd"}
            return {**kept, "Entrypoint": list(command)}


def _with_variable(variables: list[str], name: str, value: str) -> list[str]:
    entry = f"{name}={value}"
    names = [variable.partition("=")[0] for variable in variables]
    if name not in names:
        return [*variables, entry]
    return [entry if old == name else one for old, one in zip(names, variables, strict=True)]


def _configuration(config: bytes, settings: Iterable[Setting]) -> Configuration:
    found = configuration_of(config)
    changed = dict(found.settings)
    for setting in settings:
        changed = apply_setting(changed, setting)
    return Configuration(found.architecture, found.os, changed)


def copy_layer(writer: ImageWriter, counter: Counter, _what: str, layer: LayerStream) -> None:
    """Write a layer of another image as it is, uncompressed: a `LayerVisitor`."""
    writer.add_layer(counter.count(_pieces(layer)))


def _pieces(layer: LayerStream) -> Iterator[bytes]:
    while piece := layer.read(CHUNK):
        yield piece
