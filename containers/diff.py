"""What differs between two images: their configurations field by field, their files one by one."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from auditkit.evidence import canonical
from containers.errors import ContainerError
from containers.filesystem import FileState, FileSystem
from containers.identity import InspectedImage, inspect_image
from containers.limits import DEFAULT_LIMITS, Limits
from schemas import ImageIdentity

ChangeKind = Literal["added", "removed", "changed"]


@dataclass(frozen=True)
class FieldChange:
    """A field of the configuration, by its path; None where an image does not have it."""

    field: str
    before: Any
    after: Any


@dataclass(frozen=True)
class FileChange:
    """A file that is not the same in both images; None where an image does not have it."""

    path: str
    before: FileState | None
    after: FileState | None

    @property
    def kind(self) -> ChangeKind:
        """Say what happened to the file on the way from the first image to the second."""
        if self.before is None:
            return "added"
        return "removed" if self.after is None else "changed"

    @property
    def changed(self) -> tuple[str, ...]:
        """Names of what differs in a file that both images have."""
        if self.before is None or self.after is None:
            return ()
        return tuple(
            field.name
            for field in fields(FileState)
            if getattr(self.before, field.name) != getattr(self.after, field.name)
        )


@dataclass(frozen=True)
class ImageDifference:
    """Two verified images, and what differs from the first to the second."""

    first: ImageIdentity
    second: ImageIdentity
    config: tuple[FieldChange, ...]
    files: tuple[FileChange, ...]

    @property
    def is_same_image(self) -> bool:
        """Whether both have the same configuration, which names the layers, byte for byte."""
        return self.first.config_digest == self.second.config_digest

    def as_json(self) -> dict[str, Any]:
        """Return the difference as plain JSON types; bytes that are not text are escaped."""
        document = {
            "is_same_image": self.is_same_image,
            "first": self.first.as_json(),
            "second": self.second.as_json(),
            "config": [asdict(change) for change in self.config],
            "files": [
                {"kind": change.kind, "changed": change.changed, **asdict(change)}
                for change in self.files
            ],
        }
        readable: dict[str, Any] = _readable(document)
        return readable


def compare(first: Path, second: Path, limits: Limits = DEFAULT_LIMITS) -> ImageDifference:
    """Return what differs between two saved images, both verified completely.

    Layers are read as streams; memory grows with the number of files, not with their size.

    Raises:
        OSError: a file cannot be read.
        ContainerError: as for `identity.identify`, or layers that cannot be applied; the message
            begins with the path of the file.
    """
    before, old_files = _inspect(first, limits)
    after, new_files = _inspect(second, limits)
    old_config, new_config = (canonical.parse(image.config) for image in (before, after))
    return ImageDifference(
        first=before.identity,
        second=after.identity,
        config=tuple(_field_changes("", old_config, new_config)),
        files=tuple(_file_changes(old_files, new_files)),
    )


def _inspect(path: Path, limits: Limits) -> tuple[InspectedImage, dict[str, FileState]]:
    system = FileSystem(limits.files)
    try:
        image = inspect_image(path, system.apply, limits)
    except ContainerError as error:
        raise type(error)(f"{path}: {error}") from error
    return image, dict(system.files())


def _file_changes(
    before: Mapping[str, FileState], after: Mapping[str, FileState]
) -> Iterator[FileChange]:
    for path in sorted(before.keys() | after.keys()):
        if before.get(path) != after.get(path):
            yield FileChange(path, before.get(path), after.get(path))


def _field_changes(path: str, before: object, after: object) -> Iterator[FieldChange]:
    if path == "config.Env":
        before, after = _variables(before), _variables(after)
    if isinstance(before, dict) and isinstance(after, dict):
        for name in sorted(before.keys() | after.keys()):
            place = f"{path}.{name}" if path else name
            yield from _field_changes(place, before.get(name), after.get(name))
    elif before != after:
        yield FieldChange(path, before, after)


def _variables(value: object) -> object:
    """Return a list of `NAME=value` as an object, unless that would lose something."""
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        return value
    pairs = dict(one.split("=", 1) for one in value if "=" in one)
    return pairs if len(pairs) == len(value) else value


def _readable(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    if isinstance(value, Mapping):
        return {_readable(key): _readable(one) for key, one in value.items()}
    if isinstance(value, Sequence):
        return [_readable(one) for one in value]
    return value
