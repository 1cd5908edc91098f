"""The evidence of a container that keeps every rule."""

import json

from auditkit.evidence.canonical import sha256_hex
from schemas import (
    ContainerDescription,
    ContainerMount,
    ContainerRun,
    ImageIdentity,
    InsideView,
)

LAYERS = tuple(letter * 64 for letter in "abc")
IMAGE_CONFIG = json.dumps(
    {
        "config": {
            "Entrypoint": ["python3", "-I", "/opt/auditkit/agent.py"],
            "Env": ["PATH=/usr/local/bin:/usr/bin:/bin"],
            "WorkingDir": "/",
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer}" for layer in LAYERS]},
    }
)
IMAGE = sha256_hex(IMAGE_CONFIG.encode())


def container_run(letter: str = "6") -> ContainerRun:
    """A container that keeps every rule; the letter makes its identifier."""
    return ContainerRun(
        image=ImageIdentity(
            config_digest=IMAGE,
            diff_ids=LAYERS,
            manifest_digest="d" * 64,
            manifest_source="archive",
            archive_digest="e" * 64,
        ),
        image_config=IMAGE_CONFIG,
        description=ContainerDescription(
            engine="Docker 20.10.24 (linux/amd64)",
            rootless=False,
            container_id=letter * 64,
            image_id=IMAGE,
            entrypoint=("python3", "-I", "/opt/auditkit/agent.py"),
            command=(),
            environment=("PATH=/usr/local/bin:/usr/bin:/bin",),
            user="10001:10001",
            working_directory="/",
            privileged=False,
            read_only_root=True,
            capabilities_added=(),
            capabilities_dropped=("ALL",),
            security_options=("no-new-privileges",),
            network_mode="none",
            networks=("none",),
            published_ports=(),
            pid_mode="",
            ipc_mode="private",
            uts_mode="",
            user_namespace_mode="",
            cgroup_namespace_mode="private",
            devices=(),
            gpus=(),
            mounts=(
                ContainerMount(destination="/run/auditkit", kind="bind", read_only=True),
                ContainerMount(destination="/output", kind="bind", read_only=False),
                ContainerMount(destination="/data/pool", kind="bind", read_only=True),
                ContainerMount(destination="/tmp", kind="tmpfs", read_only=False),
            ),
            restart_policy="no",
            memory_bytes=16 * 2**30,
            cpus=4.0,
            most_processes=1024,
        ),
        inside=InsideView(
            hostname=(letter * 64)[:12],
            uid=10001,
            gid=10001,
            effective_capabilities="0" * 16,
            bounding_capabilities="0" * 16,
            no_new_privileges=True,
            seccomp_mode=2,
            network_interfaces=("lo",),
            writable_mounts=("/output", "/tmp"),
        ),
    )
