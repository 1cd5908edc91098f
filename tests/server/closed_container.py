"""The evidence of a locked-down container, as an honest launcher and agent put it together."""

import base64
import json
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from auditkit.evidence import containment
from auditkit.evidence.canonical import sha256_hex
from schemas import (
    ContainerDescription,
    ContainerMount,
    ContainerRun,
    ImageIdentity,
    ImageSignature,
    InsideView,
)

LAYER = "5d" * 32
ENTRY_POINT = ("python3", "-I", "/opt/auditkit/agent.py")
ENVIRONMENT_VARIABLES = ("LANG=C.UTF-8", "PATH=/usr/local/bin:/usr/bin:/bin")
CONTAINER_ID = "c0" * 32


def image_config(entry_point: tuple[str, ...] = ENTRY_POINT) -> str:
    """The text of an image's configuration (OCI)."""
    return json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {
                "Entrypoint": list(entry_point),
                "Env": list(ENVIRONMENT_VARIABLES),
                "User": "10001:10001",
                "WorkingDir": "/",
            },
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{LAYER}"]},
        }
    )


CONFIG_TEXT = image_config()
IMAGE = sha256_hex(CONFIG_TEXT.encode())
OTHER_CONFIG_TEXT = image_config(("python3", "/somewhere/else.py"))
OTHER_IMAGE = sha256_hex(OTHER_CONFIG_TEXT.encode())


def identity(config_text: str = CONFIG_TEXT) -> ImageIdentity:
    return ImageIdentity(
        config_digest=sha256_hex(config_text.encode()),
        diff_ids=(LAYER,),
        manifest_digest="e1" * 32,
        manifest_source="derived",
        archive_digest="a7" * 32,
    )


def description(**changes: Any) -> ContainerDescription:
    return ContainerDescription(
        **{
            "engine": "Docker 20.10.24 (linux/amd64)",
            "rootless": False,
            "container_id": CONTAINER_ID,
            "image_id": IMAGE,
            "entrypoint": ENTRY_POINT,
            "command": (),
            "environment": ENVIRONMENT_VARIABLES,
            "user": "10001:10001",
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
            "mounts": (
                bind(containment.RELAY_FOLDER, read_only=True),
                bind(containment.OUTPUT, read_only=False),
            ),
            "restart_policy": "no",
            "memory_bytes": 8 * 2**30,
            "cpus": 2.0,
            "most_processes": 512,
            **changes,
        }
    )


def bind(destination: str, *, read_only: bool) -> ContainerMount:
    return ContainerMount(destination=destination, kind="bind", read_only=read_only)


def inside(**changes: Any) -> InsideView:
    return InsideView(
        **{
            "hostname": CONTAINER_ID[:12],
            "uid": 10001,
            "gid": 10001,
            "effective_capabilities": "0" * 16,
            "bounding_capabilities": "0" * 16,
            "no_new_privileges": True,
            "seccomp_mode": 2,
            "network_interfaces": ("lo",),
            "writable_mounts": ("/dev/shm", "/output", "/tmp"),
            **changes,
        }
    )


def run(**changes: Any) -> ContainerRun:
    return ContainerRun(
        **{
            "image": identity(),
            "image_config": CONFIG_TEXT,
            "description": description(),
            "inside": inside(),
            **changes,
        }
    )


def run_of_other_image() -> ContainerRun:
    """A container in perfect order, of an image that nobody has allowed."""
    return run(
        image=identity(OTHER_CONFIG_TEXT),
        image_config=OTHER_CONFIG_TEXT,
        description=description(image_id=OTHER_IMAGE, entrypoint=("python3", "/somewhere/else.py")),
    )


def new_image_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def public_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return (
        key.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )


def sign_image(key: ec.EllipticCurvePrivateKey, config_digest: str = IMAGE) -> ImageSignature:
    """Sign an image as `cosign sign --key` does."""
    manifest = json.dumps(
        {"schemaVersion": 2, "config": {"digest": f"sha256:{config_digest}"}, "layers": []}
    )
    payload = json.dumps(
        {
            "critical": {
                "identity": {"docker-reference": "registry.example.org/trainer"},
                "image": {"docker-manifest-digest": f"sha256:{sha256_hex(manifest.encode())}"},
                "type": "cosign container image signature",
            },
            "optional": None,
        }
    )
    signature = key.sign(payload.encode(), ec.ECDSA(hashes.SHA256()))
    return ImageSignature(
        manifest=manifest, payload=payload, signature=base64.b64encode(signature).decode()
    )
