"""How a supervised training is locked down: the one place where its container's options are said.

What each option must be is judged in `auditkit.evidence.containment`, on the started container.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from docker.types import DeviceRequest, LogConfig, Mount, Ulimit

from auditkit.evidence.containment import OUTPUT, POOL, RELAY_FOLDER, SCRATCH, TEST

GpuSupport = Literal["runtime", "cdi"]
"""How an engine passes on GPUs: its NVIDIA runtime, or the Container Device Interface."""

ALL_GPUS = "all"
CDI_GPU = "nvidia.com/gpu"

GPU_ADVICE = (
    "install the NVIDIA Container Toolkit, then `sudo nvidia-ctk runtime configure "
    "--runtime=docker` and restart the engine"
)

SCRATCH_BYTES = 2**30
"""Size of the scratch folder; what lies in it counts against the memory limit."""

SHARED_MEMORY_BYTES = 2**30
"""Size of /dev/shm, through which data-loading processes hand over batches; counts as well."""

NANO = 10**9


@dataclass(frozen=True)
class Lockdown:
    """What differs from one locked-down container to the next; all the rest is fixed.

    Args:
        relay_folder: holds the relay's socket, or a task; mounted read-only.
        output: the run's folder, the only one that the container can write to; None: a container
            that answers a question writes nothing, and prints its answer.
        pool: folder of the pool of samples; None where the image contains them.
        test: folder of the test samples; None where the image contains them.
        user: numbers of user and group.
        memory_bytes: limit on memory, without any swap beyond it.
        cpus: limit on processor time, in cores.
        most_processes: limit on processes and threads.
        gpus: identifiers of GPUs, or `all`.
        terminal: height and width in characters; None for an output that is no terminal.
        labels: by which the container is found again.
    """

    relay_folder: Path
    output: Path | None
    pool: Path | None
    test: Path | None
    user: tuple[int, int]
    memory_bytes: int
    cpus: float
    most_processes: int
    gpus: tuple[str, ...] = ()
    terminal: tuple[int, int] | None = None
    labels: Mapping[str, str] = field(default_factory=dict)

    def arguments(self, image_id: str, gpu_support: GpuSupport | None) -> dict[str, Any]:
        """Return the keyword arguments of the SDK's `containers.create`.

        Entry point, command, environment and working folder are the image's own, and the engine's
        default seccomp profile stays in force. The host's name is left to the engine, which takes
        the head of the container's identifier.

        Args:
            image_id: `sha256:…`, never a tag: a tag can be moved.
            gpu_support: how the engine passes on GPUs, where it does.
        """
        user, group = self.user
        return {
            "image": image_id,
            "user": f"{user}:{group}",
            "read_only": True,
            "tmpfs": {SCRATCH: f"rw,nosuid,nodev,noexec,size={SCRATCH_BYTES},mode=1777"},
            "mounts": self._mounts(),
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges"],
            "network_mode": "none",
            "ipc_mode": "private",
            # On cgroup v1 engines share the host's unless told otherwise.
            "cgroupns": "private",
            "mem_limit": self.memory_bytes,
            "memswap_limit": self.memory_bytes,
            "shm_size": SHARED_MEMORY_BYTES,
            "nano_cpus": round(self.cpus * NANO),
            "pids_limit": self.most_processes,
            # The session's key is in memory and must not end up in a core file.
            "ulimits": [Ulimit(name="core", soft=0, hard=0)],
            "device_requests": self._device_requests(gpu_support),
            "restart_policy": {"Name": "no"},
            "init": False,
            "healthcheck": {"test": ["NONE"]},
            # The output is forwarded while it comes; a log would be a second copy on disk.
            "log_config": LogConfig(type="none"),
            "tty": self.terminal is not None,
            "stdin_open": False,
            # The user's proxy settings would become variables of the environment.
            "use_config_proxy": False,
            "labels": dict(self.labels),
        }

    def _mounts(self) -> list[Mount]:
        folders = (
            (RELAY_FOLDER, self.relay_folder, True),
            (OUTPUT, self.output, False),
            (POOL, self.pool, True),
            (TEST, self.test, True),
        )
        return [
            Mount(target, str(source.resolve()), type="bind", read_only=read_only)
            for target, source, read_only in folders
            if source is not None
        ]

    def _device_requests(self, support: GpuSupport | None) -> list[DeviceRequest]:
        if not self.gpus:
            return []
        if support == "cdi":
            return [
                DeviceRequest(driver="cdi", device_ids=[f"{CDI_GPU}={one}" for one in self.gpus])
            ]
        if ALL_GPUS in self.gpus:
            return [DeviceRequest(count=-1, capabilities=[["gpu"]])]
        return [DeviceRequest(device_ids=list(self.gpus), capabilities=[["gpu"]])]
