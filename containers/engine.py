"""The container engine on this machine: Docker, or another one with Docker's interface.

An engine is asked to do things and never believed about an image: which image it is, is recomputed
from its bytes (`containers.identity`), and what a container of it sees is read from the container
itself (`containers.exported`).
"""

import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import docker
from docker.errors import ImageNotFound
from pydantic import Field, JsonValue

from auditkit.evidence.image_documents import DIGEST_PREFIX
from containers.container import Container
from containers.engine_calls import (
    PIECE_BYTES,
    Progress,
    counted,
    engine_call,
    report_nothing,
    shortened,
)
from containers.engine_errors import (
    EngineError,
    EngineLostError,
    EngineMissingError,
    EngineRightsError,
    GpuSupportError,
    ImageLoadError,
    RemoteEngineError,
    RootlessLimitsError,
)
from containers.inspection import Answer, read_answer
from containers.lockdown import CDI_GPU, GPU_ADVICE, GpuSupport, Lockdown
from schemas import ImageIdentity

DEFAULT_SOCKET = Path("/var/run/docker.sock")
UNIX = "unix://"

CALL_SECONDS = 60
"""How long an engine may take to answer an ordinary request."""

TRANSFER_SECONDS = 3600
"""How long it may be silent while it loads or saves: Docker unpacks all of an image of several
gigabytes before it sends the first byte."""

INSTALL_ADVICE = (
    "install one: on Debian or Ubuntu `sudo apt-get install docker.io`, on Fedora `sudo dnf "
    "install moby-engine` and `sudo systemctl enable --now docker`; or name its socket in "
    "DOCKER_HOST"
)
RIGHTS_ADVICE = (
    "become a member of its group (`sudo usermod --append --groups docker $USER`, then log in "
    "again; its members can do what root can), or run a rootless engine of your own "
    "(https://docs.docker.com/engine/security/rootless/)"
)

LOAD_ADVICE = (
    "see that the engine's disk has room for the image three times over, or make the archive again"
)


@dataclass(frozen=True)
class EngineFacts:
    """What an engine says about itself.

    Args:
        name: `Docker`, or `Podman`.
        version: of the engine.
        platform: operating system and architecture, such as `linux/amd64`.
        address: of the socket it was found at.
        storage_driver: how it keeps layers.
        root_folder: where it keeps images and containers.
        cgroup_version: 1 or 2.
        rootless: whether it runs without rights of root.
        enforces_limits: whether limits on memory, processors and processes have an effect.
        gpu_support: how it passes on GPUs; None when it cannot.
        experimental: whether `auditkit` is only tried, not tested, with engines like it.
        memory_bytes: of the machine.
        cpus: of the machine.
    """

    name: str
    version: str
    platform: str
    address: str
    storage_driver: str
    root_folder: Path
    cgroup_version: int
    rootless: bool
    enforces_limits: bool
    gpu_support: GpuSupport | None
    experimental: bool
    memory_bytes: int
    cpus: int

    def __str__(self) -> str:
        """Return name, version and platform."""
        return f"{self.name} {self.version} {self.platform}"


class _Component(Answer):
    name: str


class _Version(Answer):
    version: str
    os: str
    arch: str
    components: list[_Component] = Field(default=[])


class _Device(Answer):
    id: str = Field(alias="ID")


class _Information(Answer):
    driver: str
    docker_root_dir: str
    cgroup_version: str = "1"
    cgroup_driver: str = ""
    memory_limit: bool = False
    pids_limit: bool = False
    cpu_cfs_quota: bool = False
    security_options: list[str] = Field(default=[])
    runtimes: dict[str, JsonValue] = Field(default={})
    discovered_devices: list[_Device] = Field(default=[])
    cdi_spec_dirs: list[str] = Field(default=[], alias="CDISpecDirs")
    mem_total: int = 0
    cpus: int = Field(default=0, alias="NCPU")


class _Image(Answer):
    id: str = Field(pattern=r"^(sha256:)?[0-9a-f]{64}$")
    size: int = 0


class Engine:
    """A connection to an engine. Close it, or use it as a context manager."""

    def __init__(self, address: str) -> None:
        """Connect to the engine at this address, such as `unix:///var/run/docker.sock`.

        Raises:
            EngineLostError: nothing answers, or not as an engine does.
        """
        self._address = address
        with engine_call("tell its version"):
            self._client = docker.DockerClient(base_url=address, timeout=CALL_SECONDS)
            self._transfers = docker.DockerClient(base_url=address, timeout=TRANSFER_SECONDS)

    @classmethod
    def connect(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Find the engine of this machine.

        Tried are DOCKER_HOST alone if it is set, else Docker's usual socket, then those of the
        user's own Docker and Podman.

        Raises:
            EngineMissingError: there is none, or it is not running.
            EngineRightsError: there is one, and this user may not talk to it.
            RemoteEngineError: DOCKER_HOST names one on a network.
        """
        failures: dict[Path, OSError] = {}
        for path in _sockets(environment):
            try:
                is_answering = _connected(path)
            except OSError as error:
                failures[path] = error
                continue
            if is_answering:
                return cls(f"{UNIX}{path}")
        for path, failure in failures.items():
            if isinstance(failure, PermissionError):
                raise EngineRightsError(
                    f"there is a container engine at {path}, and you may not use it; "
                    f"{RIGHTS_ADVICE}"
                )
        for path, failure in failures.items():
            raise EngineMissingError(
                f"expected a container engine at {path}, found that nothing answers there "
                f"({failure.strerror}); start it, for instance with `sudo systemctl start docker`"
            )
        raise EngineMissingError(f"found no container engine on this machine; {INSTALL_ADVICE}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; containers go on."""
        self._client.close()
        self._transfers.close()

    def facts(self) -> EngineFacts:
        """Return what the engine says about itself.

        Raises:
            EngineError: it does not answer as an engine does.
        """
        with engine_call("describe itself"):
            version = read_answer(_Version, self._client.version(), "its version")
            found = read_answer(_Information, self._client.info(), "itself")
        is_podman = any("podman" in one.name.casefold() for one in version.components)
        cgroup_version = 2 if found.cgroup_version == "2" else 1
        rootless = "name=rootless" in found.security_options
        return EngineFacts(
            name="Podman" if is_podman else "Docker",
            version=version.version,
            platform=f"{version.os}/{version.arch}",
            address=self._address,
            storage_driver=found.driver,
            root_folder=Path(found.docker_root_dir),
            cgroup_version=cgroup_version,
            rootless=rootless,
            enforces_limits=found.memory_limit
            and found.pids_limit
            and found.cpu_cfs_quota
            and found.cgroup_driver != "none"
            # Some engines claim all of them there, and silently enforce none.
            and not (rootless and cgroup_version == 1),
            gpu_support=_gpu_support(found),
            experimental=is_podman,
            memory_bytes=found.mem_total,
            cpus=found.cpus,
        )

    def find_image(self, identity: ImageIdentity) -> str | None:
        """Return the engine's ID of an image, `sha256:…`, or None when it does not have it.

        The classic store names an image by its configuration, containerd's by its manifest. That
        there is an image of this name says nothing about its files: see `Container.check_files`.

        Raises:
            EngineError: the engine does not answer as it should.
        """
        for digest in (identity.config_digest, identity.manifest_digest):
            image = self._image(DIGEST_PREFIX + digest)
            if image is not None and image.id.removeprefix(DIGEST_PREFIX) == digest:
                return DIGEST_PREFIX + digest
        return None

    def load(
        self, path: Path, identity: ImageIdentity, on_progress: Progress = report_nothing
    ) -> str:
        """Load a saved image into the engine, and return the ID that it has there.

        Args:
            path: of the saved image.
            identity: what it was identified as.
            on_progress: is told the bytes that were sent, and how many there are.

        Raises:
            OSError: the file cannot be read.
            ImageLoadError: the engine refuses it, or has another image afterwards.
            EngineLostError: the connection broke off.
        """
        total = path.stat().st_size
        api: Any = self._transfers.api  # the stubs leave out the types of this call
        with path.open("rb") as file:
            pieces = counted(iter(lambda: file.read(PIECE_BYTES), b""), total, on_progress)
            try:
                with engine_call("load the image"):
                    for answer in api.load_image(pieces):
                        _check_load_answer(answer)
            except EngineLostError:
                raise
            except EngineError as error:
                raise ImageLoadError(f"cannot load {path}: {error}; {LOAD_ADVICE}") from error
        image_id = self.find_image(identity)
        if image_id is None:
            raise ImageLoadError(
                f"the engine took {path} and does not have the image {identity.config_digest} "
                f"now; {LOAD_ADVICE}"
            )
        return image_id

    def create(self, image_id: str, lockdown: Lockdown) -> Container:
        """Make a locked-down container, not yet started.

        Raises:
            RootlessLimitsError: the engine would not enforce the limits.
            GpuSupportError: GPUs are asked for, and it cannot pass on any.
            EngineError: it refuses for another reason.
        """
        facts = self.facts()
        if not facts.enforces_limits:
            raise RootlessLimitsError(
                f"{facts} with cgroup v{facts.cgroup_version} does not enforce limits on memory, "
                "processors and processes; boot the machine with cgroup v2 (kernel option "
                "`systemd.unified_cgroup_hierarchy=1`), or use an engine that runs as root"
            )
        if lockdown.gpus and facts.gpu_support is None:
            raise GpuSupportError(f"{facts} cannot pass on GPUs; {GPU_ADVICE}")
        arguments = lockdown.arguments(image_id, facts.gpu_support)
        with engine_call("create the container"):
            made = self._client.containers.create(**arguments)
        return self._container(str(made.id), facts, lockdown.terminal)

    def containers(self, labels: Mapping[str, str]) -> list[Container]:
        """Return all containers, running or not, that have all of these labels.

        Raises:
            EngineError: the engine refuses.
        """
        wanted = [f"{name}={value}" for name, value in labels.items()]
        with engine_call("list its containers"):
            found = self._client.api.containers(all=True, filters={"label": wanted})
        facts = self.facts()
        return [self._container(str(one["Id"]), facts, None) for one in found]

    def remove_image(self, image_id: str) -> None:
        """Remove an image; nothing happens when the engine does not have it.

        Raises:
            EngineError: the engine refuses, for instance because a container uses it.
        """
        with engine_call("remove the image"):
            try:
                self._client.api.remove_image(image_id, force=True)
            except ImageNotFound:
                return

    def _container(
        self, container_id: str, facts: EngineFacts, terminal: tuple[int, int] | None
    ) -> Container:
        return Container(
            self._client.api,
            container_id,
            engine=str(facts),
            rootless=facts.rootless,
            terminal=terminal,
        )

    def _image(self, image_id: str) -> _Image | None:
        with engine_call("look for the image"):
            try:
                answer = self._client.images.get(image_id).attrs
            except ImageNotFound:
                return None
        return read_answer(_Image, answer, "an image")


def _sockets(environment: Mapping[str, str]) -> Iterator[Path]:
    host = environment.get("DOCKER_HOST")
    if host:
        if not host.startswith(UNIX):
            raise RemoteEngineError(
                f"expected DOCKER_HOST to name a socket of this machine ({UNIX}…), found "
                f"{host[:200]!r}; the training's folders can only be mounted here"
            )
        yield Path(host.removeprefix(UNIX))
        return
    yield DEFAULT_SOCKET
    folder = environment.get("XDG_RUNTIME_DIR")
    if folder:
        yield Path(folder) / "docker.sock"
        yield Path(folder) / "podman" / "podman.sock"


def _connected(path: Path) -> bool:
    """Tell whether somebody listens at a socket, False when there is no file of that name.

    Raises:
        OSError: nobody listens, or this user may not connect.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.connect(str(path))
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _gpu_support(found: _Information) -> GpuSupport | None:
    if "nvidia" in found.runtimes:
        return "runtime"
    if any(device.id.startswith(f"{CDI_GPU}=") for device in found.discovered_devices):
        return "cdi"
    # Before it listed devices, Docker only said where it looks for their specifications.
    if any(list(Path(folder).glob("nvidia*")) for folder in found.cdi_spec_dirs):
        return "cdi"
    return None


def _check_load_answer(answer: object) -> None:
    if isinstance(answer, Mapping) and "error" in answer:
        raise ImageLoadError(shortened(str(answer["error"])))
