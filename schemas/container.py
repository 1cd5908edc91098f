"""The container that a training ran in: what the engine reports, and what the agent sees inside."""

from typing import Annotated, Literal

from pydantic import Field

from schemas.base import Count, Schema, Sha256
from schemas.image import ImageIdentity

MountKind = Literal["bind", "volume", "tmpfs", "image", "other"]
Text = Annotated[str, Field(max_length=10_000)]
Texts = Annotated[tuple[Text, ...], Field(max_length=1_000)]
CapabilitySet = Annotated[
    str, Field(pattern=r"^[0-9a-f]{16}$", description="as in /proc/self/status, hexadecimal")
]


class ContainerMount(Schema):
    """One mount; where it comes from on the developer's machine is nobody else's business."""

    destination: Text
    kind: MountKind
    read_only: bool


class ContainerDescription(Schema):
    """A started container, as the engine on the developer's machine reports it."""

    engine: Text = Field(description="name, version and platform of the engine")
    rootless: bool
    container_id: Sha256
    image_id: Sha256 = Field(
        description="the engine's name for the image: its configuration's digest or its manifest's"
    )
    entrypoint: Texts
    command: Texts
    environment: Texts
    user: Text = Field(description="`<uid>:<gid>`")
    working_directory: Text
    privileged: bool
    read_only_root: bool
    capabilities_added: Texts
    capabilities_dropped: Texts
    security_options: Texts
    network_mode: Text
    networks: Texts = Field(description="names of the networks that it is attached to")
    published_ports: Texts
    pid_mode: Text
    ipc_mode: Text
    uts_mode: Text
    user_namespace_mode: Text
    cgroup_namespace_mode: Text
    devices: Texts
    gpus: Texts = Field(description="device requests, for example `all` or one identifier each")
    mounts: Annotated[tuple[ContainerMount, ...], Field(max_length=100)]
    restart_policy: Text
    health_check: Texts = Field(
        default=(), description="a second program that the engine would run inside; none is allowed"
    )
    extras: Texts = Field(
        default=(),
        description="settings that no locked-down container has, as `name=value`; none is allowed",
    )
    memory_bytes: Count = Field(description="limit; 0: none")
    cpus: float = Field(ge=0.0, description="limit in cores; 0: none")
    most_processes: int = Field(description="limit; 0 or less: none")


class InsideView(Schema):
    """What the agent finds when it looks at its own process (proc(5))."""

    hostname: Text = Field(description="an engine names a container by the head of its identifier")
    uid: Count
    gid: Count
    effective_capabilities: CapabilitySet
    bounding_capabilities: CapabilitySet
    no_new_privileges: bool
    seccomp_mode: Count = Field(description="2: a filter is in force")
    network_interfaces: Texts
    writable_mounts: Texts = Field(description="mount points that are not read-only")


class ImageSignature(Schema):
    """A signature on an image as `cosign sign --key` makes it, with what it signs.

    The payload is a "simple signing" document that names the manifest's digest; the manifest
    names the configuration's.
    """

    manifest: str = Field(max_length=1_000_000, description="exact text of the OCI image manifest")
    payload: str = Field(max_length=100_000, description="exact text of the signed document")
    signature: str = Field(max_length=10_000, description="base64, ASN.1 ECDSA over the payload")


class ContainerRun(Schema):
    """The evidence that a training runs in one particular, locked-down container."""

    image: ImageIdentity = Field(description="recomputed from what the engine has on disk")
    image_config: str = Field(
        max_length=1_000_000, description="exact text of the image's configuration"
    )
    signature: ImageSignature | None = Field(
        default=None, description="the second way in: an image that a trusted key has signed"
    )
    description: ContainerDescription
    inside: InsideView
