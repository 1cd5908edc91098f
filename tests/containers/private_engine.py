"""A container engine of the tests' own, which they may kill: nobody else's containers are on it."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import docker
from docker.errors import DockerException

START_SECONDS = 60
POLL_SECONDS = 0.2


def missing() -> str | None:
    """Say why no such engine can be started here; None if one can."""
    if shutil.which("dockerd") is None:
        return "dockerd is not installed (Debian: docker.io)"
    if os.geteuid() != 0:
        return "an engine of one's own is started as root"
    return None


class PrivateEngine:
    """One dockerd with its own folders and socket, and no network at all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.host = f"unix://{folder}/docker.sock"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            [
                "dockerd",
                "--iptables=false",
                "--ip6tables=false",
                "--bridge=none",
                "--storage-driver=overlay2",
                f"--host={self.host}",
                f"--data-root={self.folder / 'data'}",
                f"--exec-root={self.folder / 'exec'}",
                f"--pidfile={self.folder / 'pid'}",
            ],
            stdout=(self.folder / "log").open("ab"),
            stderr=subprocess.STDOUT,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),  # noqa: PLW1509
        )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            assert self._process.poll() is None, (self.folder / "log").read_text()[-2000:]
            try:
                self.client().ping()
            except DockerException:
                time.sleep(POLL_SECONDS)
            else:
                return
        raise AssertionError((self.folder / "log").read_text()[-2000:])

    def kill(self) -> None:
        """End the daemon as a crash would; its containers are not asked."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        (self.folder / "pid").unlink(missing_ok=True)

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(START_SECONDS)

    def client(self) -> docker.DockerClient:
        return docker.DockerClient(base_url=self.host)
