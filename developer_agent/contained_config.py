"""The configuration as the agent in a container sees it: the same run, at the container's places.

What a path of the developer's machine is called inside is decided here and nowhere else.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Literal

from auditkit.data.pools import DataSource
from auditkit.evidence import containment
from containers.filesystem import FileState
from containers.package import CODE_IN_IMAGE, DATA_IN_IMAGE, packaged
from developer_agent.errors import AgentError
from developer_agent.run_config import CodeConfig, RunConfig
from developer_agent.source_files import source_files
from developer_agent.unix_http import HOST_NAME

RELAY_URL = f"http://{HOST_NAME}"
PACKAGED_CODE = f"/{CODE_IN_IMAGE}"
PACKAGED_DATA = f"/{DATA_IN_IMAGE}"

PICKLED_DATASETS = frozenset({"CIFAR10", "CIFAR100"})

Part = Literal["pool", "test"]
BIND_PLACES: Mapping[Part, str] = {"pool": containment.POOL, "test": containment.TEST}


class CodeNotPackagedError(AgentError):
    """The configuration names training code that is not in the image, or not as it is now."""


class PickledDataError(AgentError):
    """A data set is kept as pickles, which are programs, outside the image."""


class LaunchDocumentError(AgentError):
    """The launch document names something that a contained run does not have."""


@dataclass(frozen=True)
class ContainedConfig:
    """A run as it is inside, and the host's folders or files that it needs to see there."""

    config: RunConfig
    binds: Mapping[Part, Path]


def contained_config(config: RunConfig, base: Path, image_config: bytes) -> ContainedConfig:
    """Return a run's configuration with the paths inside a container of this image.

    Args:
        config: as the developer wrote it.
        base: folder that its paths are relative to.
        image_config: the image's configuration, verified.

    Raises:
        DocumentFormatError: the image says in an unreadable way what was packaged into it.
        CodeNotPackagedError: the training code is not in the image.
        PickledDataError: the data are pickles, and not in the image.
    """
    already = packaged(image_config)
    if config.code is not None and _normal(config.code.loop) not in already.code:
        raise CodeNotPackagedError(
            f"the configuration names the training code {config.code.loop}, the image holds "
            f"{', '.join(already.code) or 'none'}; package it again with `auditkit package`"
        )
    binds: dict[Part, Path] = {}
    sources: dict[Part, DataSource] = {}
    parts: tuple[tuple[Part, DataSource], ...] = (("pool", config.pool), ("test", config.test))
    for part, source in parts:
        place = None
        if source.path is not None:
            if part in already.data:
                place = f"{PACKAGED_DATA}/{part}"
            else:
                _check_not_pickled(source)
                binds[part] = (base / source.path).resolve()
                place = BIND_PLACES[part]
        sources[part] = source.model_copy(update={"path": place})
    server = config.server.model_copy(
        update={"url": RELAY_URL, "trust_root": "trust-root.json", "token_file": None}
    )
    inside = config.model_copy(
        update={
            "container": None,  # where the image lies, is of no use inside
            "output": containment.OUTPUT,
            "server": server,
            "pool": sources["pool"],
            "test": sources["test"],
        }
    )
    return ContainedConfig(inside, binds)


def check_contained(config: RunConfig, image_config: bytes) -> None:
    """Check, inside, that a configuration names nothing but the places of a container.

    The launch document lies where the developer can write. What it may choose is what the request
    tells the auditor; no path in it may lead to code or data that the image does not name.

    Raises:
        LaunchDocumentError: a path or an address is another one.
        PickledDataError: pickles are mounted.
        DocumentFormatError: the image says in an unreadable way what was packaged into it.
    """
    already = packaged(image_config)
    parts: tuple[tuple[Part, DataSource], ...] = (("pool", config.pool), ("test", config.test))
    for part, source in parts:
        if source.path == BIND_PLACES[part]:
            _check_not_pickled(source)
        elif source.path is not None and not (
            part in already.data and source.path == f"{PACKAGED_DATA}/{part}"
        ):
            raise LaunchDocumentError(f"the {part} lies at {source.path}, which is no place of it")
    for what, found, expected in (
        ("the server", config.server.url, RELAY_URL),
        ("the output folder", config.output, containment.OUTPUT),
    ):
        if found != expected:
            raise LaunchDocumentError(f"{what} is {found}, expected was {expected}")
    if config.code is not None and _normal(config.code.loop) not in already.code:
        raise LaunchDocumentError(f"the training code {config.code.loop} is not the image's")


def _check_not_pickled(source: DataSource) -> None:
    if source.dataset in PICKLED_DATASETS:
        raise PickledDataError(
            f"torchvision keeps {source.dataset} as pickles, and a pickle from outside the image "
            "can run any code; package it with `auditkit package --include-data`, or keep it as an "
            "image folder or as arrays"
        )


def _normal(name: str) -> str:
    return PurePosixPath(name).as_posix()


def check_packaged_code(code: CodeConfig, folder: Path, files: Mapping[str, FileState]) -> None:
    """Check that the training code in an image is the one that lies beside the configuration.

    What runs is the image's in any case. That an edited file would silently not, is what nobody
    expects.

    Args:
        code: which files; relative to `folder`.
        folder: of the configuration.
        files: of the image, by their absolute paths.

    Raises:
        SourceFileError: a file is missing beside the configuration.
        CodeNotPackagedError: a file is missing in the image, or differs.
    """
    for name, path in ((one.name, one.path) for one in source_files(code, folder)):
        inside = files.get(f"{PACKAGED_CODE}/{name}")
        if inside is None or inside.digest != sha256(path.read_bytes()).hexdigest():
            what = "is not in the image" if inside is None else "differs from the one in the image"
            raise CodeNotPackagedError(
                f"{path} {what}; package it again with `auditkit package`, or restore the file"
            )
