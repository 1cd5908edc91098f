"""What an engine says about a container, read into the description that goes into the evidence.

Source: Docker Engine API 1.41 and later, `GET /containers/{id}/json`. The document comes from a
program on the developer's machine: everything that is read is validated, nothing is assumed.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator
from pydantic.alias_generators import to_pascal

from auditkit.evidence import canonical
from auditkit.evidence.image_documents import DIGEST_PREFIX
from containers.engine_errors import EngineAnswerError
from containers.lockdown import ALL_GPUS, CDI_GPU, NANO
from schemas import ContainerDescription, ContainerMount
from schemas.container import MountKind

SECCOMP_PREFIX = "seccomp="
UNCONFINED = "unconfined"
UNMASKED = "systempaths=unconfined"
"""The option that empties the engine's lists of hidden and of protected paths in /proc."""

NO_HEALTH_CHECK = "NONE"
ALL_DEVICES = -1
EPHEMERAL_PORTS = "all exposed ports"

USUAL_RUNTIMES = frozenset({"", "runc", "nvidia", "io.containerd.runc.v2"})
"""Other runtimes are programs of somebody's choice, run with the engine's rights."""

LOOSENING_TMPFS_OPTIONS = frozenset({"exec", "suid", "dev"})
"""Engines mount a tmpfs without these unless they are asked to."""

Integer = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]  # what an engine's int64 can hold
Option = Annotated[str, Field(max_length=10_000_000)]  # bounded, and so checked to be Unicode

M = TypeVar("M", bound="Answer")


class Answer(BaseModel):
    """An object of the engine's interface: fields that we do not need are ignored."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="ignore", alias_generator=to_pascal, populate_by_name=False
    )

    @model_validator(mode="before")
    @classmethod
    def _leave_out_nulls(cls, value: Any) -> Any:  # noqa: ANN401 - any JSON value
        # Engines are written in Go, whose empty lists and maps become null or are left out.
        if isinstance(value, dict):
            return {key: one for key, one in value.items() if one is not None}
        return value


def read_answer(model: type[M], answer: object, what: str) -> M:
    """Validate what an engine answered.

    Raises:
        EngineAnswerError: it is not what the interface says.
    """
    try:
        return model.model_validate(answer)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise EngineAnswerError(
            f"the container engine describes {what} in a way that is not understood: "
            f"{place or 'document'}: {first['msg']}; use Docker 20.10 or newer"
        ) from error


class _HealthCheck(Answer):
    test: list[str] = []


class _Config(Answer):
    entrypoint: list[str] = []
    cmd: list[str] = []
    env: list[str] = []
    user: str = ""
    working_dir: str = ""
    healthcheck: _HealthCheck = _HealthCheck()


class _RestartPolicy(Answer):
    name: str = ""


class _Device(Answer):
    path_on_host: str
    path_in_container: str
    cgroup_permissions: str = ""

    def __str__(self) -> str:
        return f"{self.path_on_host}:{self.path_in_container}:{self.cgroup_permissions}"


class _DeviceRequest(Answer):
    driver: str = ""
    count: Integer = 0
    device_ids: list[str] = Field(default=[], alias="DeviceIDs")
    capabilities: list[list[str]] = []

    @property
    def is_for_gpus(self) -> bool:
        if self.driver == "cdi":
            return all(one.startswith(f"{CDI_GPU}=") for one in self.device_ids)
        return bool(self.capabilities) and all("gpu" in one for one in self.capabilities)

    def names(self) -> Iterator[str]:
        yield from self.device_ids
        if self.count == ALL_DEVICES:
            yield ALL_GPUS
        elif self.count or not self.device_ids:
            yield f"{self.count} of {self.driver or 'any kind'}"


class _Mount(Answer):
    type: str = ""
    destination: str
    writable: bool = Field(alias="RW")


class _TmpfsOptions(Answer):
    options: list[list[str]] = []


class _MountRequest(Answer):
    target: str = ""
    tmpfs_options: _TmpfsOptions = _TmpfsOptions()


class _HostConfig(Answer):
    privileged: bool
    readonly_rootfs: bool
    cap_add: list[str] = []
    cap_drop: list[str] = []
    security_opt: list[Option] = []
    masked_paths: list[str] | None = None
    readonly_paths: list[str] | None = None
    network_mode: str
    pid_mode: str
    ipc_mode: str
    uts_mode: str = Field(alias="UTSMode")
    userns_mode: str
    cgroupns_mode: str = ""
    tmpfs: dict[str, str] = {}
    devices: list[_Device] = []
    device_cgroup_rules: list[str] = []
    device_requests: list[_DeviceRequest] = []
    port_bindings: dict[str, JsonValue] = {}
    publish_all_ports: bool = False
    restart_policy: _RestartPolicy = _RestartPolicy()
    memory: Integer
    nano_cpus: Integer = 0
    cpu_quota: Integer = 0
    cpu_period: Integer = 0
    pids_limit: Integer = 0
    init: bool = False
    runtime: str = ""
    group_add: list[str] = []
    sysctls: dict[str, str] = {}
    mounts: list[_MountRequest] = []


class _NetworkSettings(Answer):
    networks: dict[str, JsonValue] = {}
    ports: dict[str, JsonValue] = {}


class ContainerState(Answer):
    """Whether a container runs, and how it ended."""

    running: bool
    exit_code: Integer = 0
    out_of_memory: bool = Field(default=False, alias="OOMKilled")


class InspectedContainer(Answer):
    """The parts of a container's document that say how it runs."""

    id: str = Field(pattern=r"^[0-9a-f]{64}$")
    image: str = Field(pattern=r"^(sha256:)?[0-9a-f]{64}$")
    state: ContainerState
    config: _Config
    host_config: _HostConfig
    network_settings: _NetworkSettings = _NetworkSettings()
    mounts: list[_Mount] = []

    def described(self, engine: str, *, rootless: bool) -> ContainerDescription:
        """Return the description that the rules are applied to.

        Args:
            engine: name, version and platform of the engine.
            rootless: whether the engine runs without rights of root.

        Raises:
            EngineAnswerError: something is longer, or there is more of it, than a description
                holds.
        """
        host = self.host_config
        try:
            return ContainerDescription(
                engine=engine,
                rootless=rootless,
                container_id=self.id,
                image_id=self.image.removeprefix(DIGEST_PREFIX),
                entrypoint=tuple(self.config.entrypoint),
                command=tuple(self.config.cmd),
                environment=tuple(self.config.env),
                user=self.config.user,
                working_directory=self.config.working_dir,
                privileged=host.privileged,
                read_only_root=host.readonly_rootfs,
                capabilities_added=tuple(host.cap_add),
                capabilities_dropped=tuple(host.cap_drop),
                security_options=tuple(_security_options(host)),
                network_mode=host.network_mode,
                networks=tuple(self.network_settings.networks),
                published_ports=tuple(_published_ports(host, self.network_settings)),
                pid_mode=host.pid_mode,
                ipc_mode=host.ipc_mode,
                uts_mode=host.uts_mode,
                user_namespace_mode=host.userns_mode,
                cgroup_namespace_mode=host.cgroupns_mode,
                devices=tuple(_devices(host)),
                gpus=tuple(
                    name
                    for request in host.device_requests
                    if request.is_for_gpus
                    for name in request.names()
                ),
                mounts=tuple(_mounts(host.tmpfs, self.mounts)),
                restart_policy=host.restart_policy.name,
                health_check=tuple(_health_check(self.config.healthcheck)),
                extras=tuple(_extras(host)),
                memory_bytes=max(host.memory, 0),
                cpus=_cpus(host),
                most_processes=host.pids_limit,
            )
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise EngineAnswerError(
                "the container has more of a setting than its description can hold: "
                f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}; let the agent "
                "create the container"
            ) from error


def _health_check(check: _HealthCheck) -> list[str]:
    return [] if check.test == [NO_HEALTH_CHECK] else check.test


def _security_options(host: _HostConfig) -> Iterator[str]:
    for option in host.security_opt:
        profile = option.removeprefix(SECCOMP_PREFIX)
        if option.startswith(SECCOMP_PREFIX) and profile.strip() != UNCONFINED:
            # Engines keep the whole text of a profile here.
            yield f"{SECCOMP_PREFIX}{DIGEST_PREFIX}{canonical.sha256_hex(profile.encode())}"
        else:
            yield option
    if [] in (host.masked_paths, host.readonly_paths):
        yield UNMASKED


def _published_ports(host: _HostConfig, settings: _NetworkSettings) -> Iterator[str]:
    yield from sorted(host.port_bindings.keys() | {p for p, to in settings.ports.items() if to})
    if host.publish_all_ports:
        yield EPHEMERAL_PORTS


def _devices(host: _HostConfig) -> Iterator[str]:
    yield from map(str, host.devices)
    yield from host.device_cgroup_rules
    for request in host.device_requests:
        if not request.is_for_gpus:
            yield from request.names()


def _extras(host: _HostConfig) -> Iterator[str]:
    if host.init:
        yield "init=true"
    if host.runtime not in USUAL_RUNTIMES:
        yield f"runtime={host.runtime}"
    for group in host.group_add:
        yield f"group={group}"
    for name, value in host.sysctls.items():
        yield f"sysctl={name}={value}"
    scratch = [(place, options.split(",")) for place, options in host.tmpfs.items()]
    for mount in host.mounts:
        scratch += [(mount.target, one) for one in mount.tmpfs_options.options]
    for place, options in scratch:
        for option in options:
            if option in LOOSENING_TMPFS_OPTIONS:
                yield f"tmpfs={place}:{option}"


def _mounts(tmpfs: Mapping[str, str], mounts: list[_Mount]) -> Iterator[ContainerMount]:
    for destination, options in tmpfs.items():
        yield ContainerMount(
            destination=destination, kind="tmpfs", read_only="ro" in options.split(",")
        )
    for mount in mounts:
        if not (mount.type == "tmpfs" and mount.destination in tmpfs):
            yield ContainerMount(
                destination=mount.destination,
                kind=_kind(mount.type),
                read_only=not mount.writable,
            )


def _kind(text: str) -> MountKind:
    match text:
        case "bind" | "volume" | "tmpfs" | "image":
            return text
        case _:
            return "other"


def _cpus(host: _HostConfig) -> float:
    if host.nano_cpus > 0:
        return host.nano_cpus / NANO
    if host.cpu_quota > 0 and host.cpu_period > 0:
        return host.cpu_quota / host.cpu_period
    return 0.0
