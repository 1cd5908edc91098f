"""The configuration as the agent in a container sees it: the same run, at the container's places.

Pure: paths in, paths out. What a path of the developer's machine is called inside is decided here
and nowhere else.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ValidationError

from auditkit.data.pools import DataSource
from auditkit.evidence import containment
from developer_agent.errors import AgentError
from developer_agent.run_config import RunConfig
from developer_agent.unix_http import HOST_NAME

RELAY_URL = f"http://{HOST_NAME}"
PACKAGE_LABEL = "dev.auditkit.package"
PACKAGED_CODE = "/opt/run/code"
PACKAGED_DATA = "/opt/run/data"

Part = Literal["pool", "test"]
BIND_PLACES: Mapping[Part, str] = {"pool": containment.POOL, "test": containment.TEST}


class PackageLabelError(AgentError):
    """The image says in an unreadable way what was packaged into it."""


class CodeNotPackagedError(AgentError):
    """The configuration names training code that is not in the image."""


class _Packaged(BaseModel):
    """What `auditkit package` put into an image."""

    code: tuple[str, ...] = ()
    data: tuple[Part, ...] = ()


@dataclass(frozen=True)
class ContainedConfig:
    """A run as it is inside, and the host's folders or files that it needs to see there."""

    config: RunConfig
    binds: Mapping[Part, Path]


def contained_config(config: RunConfig, base: Path, image_config: str) -> ContainedConfig:
    """Return a run's configuration with the paths inside a container of this image.

    Args:
        config: as the developer wrote it.
        base: folder that its paths are relative to.
        image_config: text of the image's configuration, verified.

    Raises:
        PackageLabelError: the image's label cannot be read.
        CodeNotPackagedError: the training code is not in the image.
    """
    packaged = _packaged(image_config)
    if config.code is not None and config.code.loop not in packaged.code:
        raise CodeNotPackagedError(
            f"the configuration names the training code {config.code.loop}, the image holds "
            f"{', '.join(packaged.code) or 'none'}; package it again with `auditkit package`"
        )
    binds: dict[Part, Path] = {}
    sources: dict[Part, DataSource] = {}
    parts: tuple[tuple[Part, DataSource], ...] = (("pool", config.pool), ("test", config.test))
    for part, source in parts:
        place = None
        if source.path is not None:
            if part in packaged.data:
                place = f"{PACKAGED_DATA}/{part}"
            else:
                binds[part] = (base / source.path).resolve()
                place = BIND_PLACES[part]
        sources[part] = source.model_copy(update={"path": place})
    server = config.server.model_copy(
        update={"url": RELAY_URL, "trust_root": "trust-root.json", "token_file": None}
    )
    inside = config.model_copy(
        update={
            "output": containment.OUTPUT,
            "server": server,
            "pool": sources["pool"],
            "test": sources["test"],
        }
    )
    return ContainedConfig(inside, binds)


def _packaged(image_config: str) -> _Packaged:
    try:
        labels = json.loads(image_config).get("config", {}).get("Labels") or {}
        return _Packaged.model_validate_json(labels.get(PACKAGE_LABEL, "{}"))
    except (ValueError, AttributeError, ValidationError) as error:
        raise PackageLabelError(
            f"the image's label {PACKAGE_LABEL} cannot be read: {error}; package the image again"
        ) from error
