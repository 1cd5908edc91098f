"""An honest, locked-down container of a small image, and the same with changes."""

import base64
import hashlib
import json
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from auditkit.evidence import containment
from schemas import (
    ContainerDescription,
    ContainerMount,
    ContainerRun,
    ImageIdentity,
    ImageSignature,
    InsideView,
)

LAYERS = tuple(hashlib.sha256(name.encode()).hexdigest() for name in ("base", "wheels", "code"))
ENTRY_POINT = ("python3", "-I", "/opt/auditkit/agent.py")
ENVIRONMENT_VARIABLES = ("PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8")
USER = (1000, 1000)
NOTHING = "0" * 16


def config_text(settings: dict[str, Any] | None = None, **changes: Any) -> str:
    """The configuration of an image as OCI writes it, as text."""
    document = {
        "architecture": "amd64",
        "os": "linux",
        "config": {
            "Entrypoint": list(ENTRY_POINT),
            "Env": list(ENVIRONMENT_VARIABLES),
            "WorkingDir": "/",
            "User": "10001:10001",
            "Labels": {"org.example.name": "auditkit"},
            **(settings or {}),
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer}" for layer in LAYERS]},
        "history": [],
        **changes,
    }
    return json.dumps(document)


CONFIG_TEXT = config_text()
IMAGE = hashlib.sha256(CONFIG_TEXT.encode()).hexdigest()
OTHER_CONFIG_TEXT = config_text({"Labels": {"org.example.name": "another image"}})
OTHER_IMAGE = hashlib.sha256(OTHER_CONFIG_TEXT.encode()).hexdigest()


def manifest_text(image_config: str = CONFIG_TEXT, **changes: Any) -> str:
    """The OCI manifest of an image, as text."""
    digest = hashlib.sha256(image_config.encode()).hexdigest()
    media = "application/vnd.oci.image"
    document = {
        "schemaVersion": 2,
        "mediaType": f"{media}.manifest.v1+json",
        "config": {
            "mediaType": f"{media}.config.v1+json",
            "digest": f"sha256:{digest}",
            "size": len(image_config),
        },
        "layers": [
            {"mediaType": f"{media}.layer.v1.tar", "digest": f"sha256:{layer}", "size": 10}
            for layer in LAYERS
        ],
        **changes,
    }
    return json.dumps(document)


def identity(config: str = CONFIG_TEXT, **changes: Any) -> ImageIdentity:
    return ImageIdentity(
        **{
            "config_digest": hashlib.sha256(config.encode()).hexdigest(),
            "diff_ids": LAYERS,
            "manifest_digest": hashlib.sha256(manifest_text(config).encode()).hexdigest(),
            "manifest_source": "archive",
            "archive_digest": hashlib.sha256(b"archive").hexdigest(),
            **changes,
        }
    )


def image_key(name: str) -> ec.EllipticCurvePrivateKey:
    """The same key in every run, of the kind that cosign makes."""
    secret = int.from_bytes(hashlib.sha256(name.encode()).digest(), "big")
    return ec.derive_private_key(secret, ec.SECP256R1())


def pem(key: Any) -> str:
    public = key.public_key()
    return public.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    ).decode()


def payload_text(manifest: str, kind: str = "cosign container image signature") -> str:
    """The document that cosign signs for a manifest, in the bytes that cosign gives it."""
    digest = hashlib.sha256(manifest.encode()).hexdigest()
    return json.dumps(
        {
            "critical": {
                "identity": {"docker-reference": "registry.example.org/trainer"},
                "image": {"docker-manifest-digest": f"sha256:{digest}"},
                "type": kind,
            },
            "optional": None,
        },
        separators=(",", ":"),
    )


def signed_image(
    key: ec.EllipticCurvePrivateKey, manifest: str | None = None, payload: str | None = None
) -> ImageSignature:
    manifest = manifest_text() if manifest is None else manifest
    payload = payload_text(manifest) if payload is None else payload
    signature = key.sign(payload.encode(), ec.ECDSA(hashes.SHA256()))
    return ImageSignature(
        manifest=manifest, payload=payload, signature=base64.b64encode(signature).decode()
    )


def mount(destination: str, *, read_only: bool = True, kind: str = "bind") -> ContainerMount:
    return ContainerMount.model_validate(
        {"destination": destination, "kind": kind, "read_only": read_only}
    )


MOUNTS = (
    mount(containment.RELAY_FOLDER),
    mount(containment.OUTPUT, read_only=False),
    mount(containment.POOL),
    mount(containment.TEST),
    mount(containment.SCRATCH, read_only=False, kind="tmpfs"),
)


def container_id(number: int = 1) -> str:
    return hashlib.sha256(f"container {number}".encode()).hexdigest()


def description(number: int = 1, **changes: Any) -> ContainerDescription:
    return ContainerDescription(
        **{
            "engine": "Docker Engine 20.10.24, linux/amd64",
            "rootless": False,
            "container_id": container_id(number),
            "image_id": identity().config_digest,
            "entrypoint": ENTRY_POINT,
            "command": (),
            "environment": ENVIRONMENT_VARIABLES,
            "user": "{}:{}".format(*USER),
            "working_directory": "/",
            "privileged": False,
            "read_only_root": True,
            "capabilities_added": (),
            "capabilities_dropped": ("ALL",),
            "security_options": ("no-new-privileges",),
            "network_mode": "none",
            "networks": ("none",),
            "published_ports": (),
            "pid_mode": "",
            "ipc_mode": "private",
            "uts_mode": "",
            "user_namespace_mode": "",
            "cgroup_namespace_mode": "private",
            "devices": (),
            "gpus": (),
            "mounts": MOUNTS,
            "restart_policy": "no",
            "health_check": (),
            "memory_bytes": 4 * 2**30,
            "cpus": 2.0,
            "most_processes": 1024,
            **changes,
        }
    )


def inside(number: int = 1, **changes: Any) -> InsideView:
    return InsideView(
        **{
            "hostname": container_id(number)[:12],
            "uid": USER[0],
            "gid": USER[1],
            "effective_capabilities": NOTHING,
            "bounding_capabilities": NOTHING,
            "no_new_privileges": True,
            "seccomp_mode": 2,
            "network_interfaces": ("lo",),
            "writable_mounts": (
                containment.OUTPUT,
                containment.SCRATCH,
                "/dev",
                "/dev/pts",
                "/dev/shm",
                "/dev/mqueue",
                "/proc",
                "/proc/keys",
                "/sys/fs/cgroup",
            ),
            **changes,
        }
    )


def contained_run(
    number: int = 1,
    *,
    config: str = CONFIG_TEXT,
    image: dict[str, Any] | None = None,
    described: dict[str, Any] | None = None,
    seen: dict[str, Any] | None = None,
    signature: ImageSignature | None = None,
) -> ContainerRun:
    """The evidence of one container of a session; `number` tells its containers apart."""
    found = identity(config, **(image or {}))
    return ContainerRun(
        image=found,
        image_config=config,
        signature=signature,
        description=description(number, **{"image_id": found.config_digest, **(described or {})}),
        inside=inside(number, **(seen or {})),
    )


RELAY, OUTPUT, POOL, TEST, SCRATCH = MOUNTS

Changes = dict[str, Any]
Hole = tuple[Changes, type[containment.ContainmentError]]

HOLES_DESCRIBED: dict[str, Hole] = {
    "another image": ({"image_id": OTHER_IMAGE}, containment.ContainerImageError),
    "another entry point": ({"entrypoint": ("sh",)}, containment.EntryPointError),
    "an entry point cut short": ({"entrypoint": ENTRY_POINT[:2]}, containment.EntryPointError),
    "arguments of its own": ({"command": ("--help",)}, containment.EntryPointError),
    "one more variable": (
        {"environment": (*ENVIRONMENT_VARIABLES, "LD_PRELOAD=/output/x.so")},
        containment.EnvironmentVariablesError,
    ),
    "a variable left out": (
        {"environment": ENVIRONMENT_VARIABLES[:1]},
        containment.EnvironmentVariablesError,
    ),
    "another folder": ({"working_directory": "/output"}, containment.WorkingDirectoryError),
    "root": ({"user": "0:0"}, containment.ContainerUserError),
    "nobody in particular": ({"user": ""}, containment.ContainerUserError),
    "a user by name": ({"user": "trainer"}, containment.ContainerUserError),
    "root in another spelling": ({"user": "00:1000"}, containment.ContainerUserError),
    "privileged": ({"privileged": True}, containment.PrivilegedError),
    "a writable root": ({"read_only_root": False}, containment.WritableRootError),
    "a capability": ({"capabilities_added": ("SYS_PTRACE",)}, containment.CapabilityError),
    "capabilities kept": ({"capabilities_dropped": ("NET_RAW",)}, containment.CapabilityError),
    "no security option": ({"security_options": ()}, containment.SecurityOptionError),
    "new privileges allowed": (
        {"security_options": ("no-new-privileges:false",)},
        containment.SecurityOptionError,
    ),
    "new privileges allowed after all": (
        {"security_options": ("no-new-privileges", "no-new-privileges:false")},
        containment.SecurityOptionError,
    ),
    "no seccomp": (
        {"security_options": ("no-new-privileges", "seccomp=unconfined")},
        containment.SecurityOptionError,
    ),
    "a seccomp filter of one's own": (
        {"security_options": ("no-new-privileges", 'seccomp={"defaultAction":"SCMP_ACT_ALLOW"}')},
        containment.SecurityOptionError,
    ),
    "no AppArmor": (
        {"security_options": ("no-new-privileges", "apparmor:unconfined")},
        containment.SecurityOptionError,
    ),
    "no SELinux": (
        {"security_options": ("no-new-privileges", "label=disable")},
        containment.SecurityOptionError,
    ),
    "a privileged type of SELinux": (
        {"security_options": ("no-new-privileges", "label=type:spc_t")},
        containment.SecurityOptionError,
    ),
    "an unconfined type of SELinux": (
        {"security_options": ("no-new-privileges", "label:type:unconfined_t")},
        containment.SecurityOptionError,
    ),
    "all of /proc shown": (
        {"security_options": ("no-new-privileges", "systempaths=unconfined")},
        containment.SecurityOptionError,
    ),
    "the host's network": (
        {"network_mode": "host", "networks": ("host",)},
        containment.NetworkError,
    ),
    "an internal network": ({"network_mode": "audit"}, containment.NetworkError),
    "attached to a network later": ({"networks": ("none", "bridge")}, containment.NetworkError),
    "a published port": ({"published_ports": ("80/tcp",)}, containment.NetworkError),
    "the host's processes": ({"pid_mode": "host"}, containment.NamespaceError),
    "another container's processes": ({"pid_mode": "container:ab"}, containment.NamespaceError),
    "the host's shared memory": ({"ipc_mode": "host"}, containment.NamespaceError),
    "shared memory to join": ({"ipc_mode": "shareable"}, containment.NamespaceError),
    "the host's name": ({"uts_mode": "host"}, containment.NamespaceError),
    "the host's users": ({"user_namespace_mode": "host"}, containment.NamespaceError),
    "the host's control groups": (
        {"cgroup_namespace_mode": "host"},
        containment.NamespaceError,
    ),
    "a device": ({"devices": ("/dev/kmsg",)}, containment.DeviceError),
    "one more mount": ({"mounts": (*MOUNTS, mount("/secret"))}, containment.MountError),
    "a mount over the code": (
        {"mounts": (*MOUNTS, mount("/opt/run/code"))},
        containment.MountError,
    ),
    "a volume": (
        {"mounts": (*MOUNTS[:2], mount(POOL.destination, kind="volume"))},
        containment.MountError,
    ),
    "a writable pool": (
        {"mounts": (RELAY, OUTPUT, mount(POOL.destination, read_only=False), TEST)},
        containment.MountError,
    ),
    "a writable relay folder": (
        {"mounts": (mount(RELAY.destination, read_only=False), OUTPUT)},
        containment.MountError,
    ),
    "an output that cannot be written": (
        {"mounts": (RELAY, mount(OUTPUT.destination))},
        containment.MountError,
    ),
    "no output": ({"mounts": (RELAY, POOL)}, containment.MountError),
    "no relay": ({"mounts": (OUTPUT, POOL)}, containment.MountError),
    "two pools, one over the other": ({"mounts": (*MOUNTS, POOL)}, containment.MountError),
    "a tmpfs over the code": (
        {"mounts": (*MOUNTS, mount("/opt/auditkit", kind="tmpfs"))},
        containment.MountError,
    ),
    "a mount that climbs": (
        {"mounts": (*MOUNTS, mount("/data/pool/../.."))},
        containment.MountError,
    ),
    "started again": ({"restart_policy": "always"}, containment.RestartPolicyError),
    "a second program": (
        {"health_check": ("CMD-SHELL", "python3 /output/other.py")},
        containment.HealthCheckError,
    ),
    "another program as the first": (
        {"extras": ("init=true",)},
        containment.ExtraSettingError,
    ),
    "no limit on memory": ({"memory_bytes": 0}, containment.ResourceLimitError),
    "no limit on processors": ({"cpus": 0.0}, containment.ResourceLimitError),
    "no limit on processes": ({"most_processes": -1}, containment.ResourceLimitError),
}
"""What an engine may report about a container that is not locked down, and the error."""

HOLES_SEEN: dict[str, Hole] = {
    "another container": (
        {"hostname": container_id(2)[:12]},
        containment.SwappedContainerError,
    ),
    "a host": ({"hostname": "workstation"}, containment.SwappedContainerError),
    "root": ({"uid": 0}, containment.ContainerUserError),
    "another group": ({"gid": 0}, containment.ContainerUserError),
    "an effective capability": (
        {"effective_capabilities": "0000000000000001"},
        containment.CapabilityError,
    ),
    "a capability to regain": (
        {"bounding_capabilities": "000001ffffffffff"},
        containment.CapabilityError,
    ),
    "new privileges": ({"no_new_privileges": False}, containment.SecurityOptionError),
    "no filter": ({"seccomp_mode": 0}, containment.SecurityOptionError),
    "a network": ({"network_interfaces": ("lo", "eth0")}, containment.NetworkError),
    "a writable root": ({"writable_mounts": ("/", "/output")}, containment.MountError),
    "writable code": ({"writable_mounts": ("/opt/run/code",)}, containment.MountError),
    "a writable device": ({"writable_mounts": ("/dev/sda",)}, containment.MountError),
    "writable control groups": (
        {"writable_mounts": ("/sys/fs/cgroup/memory",)},
        containment.MountError,
    ),
    "a name that only begins like /proc": (
        {"writable_mounts": ("/processing",)},
        containment.MountError,
    ),
}
"""What the agent may see inside such a container, or inside another one, and the error."""
