"""A small world for whole stories: an auditor's home, a real server process, a developer's run."""

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from auditor_server.settings import DATABASE_URL_VARIABLE

AUDITKIT = Path(sys.executable).parent / "auditkit"
START_SECONDS = 60
WAIT_SECONDS = 240  # for a state that must come; far above what a loaded machine needs
POLL_SECONDS = 0.1

ORDER = """
order_id = "digits"
developer = "Example Lab"
purpose = "Tests."
images = {images}
allow_without_container = {without_container}
outage_policy = "{outage_policy}"
[split]
external = 0.40
calibration = 0.20
silent = 0.05
told_only = 0.05
"""

CONFIG = """
developer = "Example Lab"
output = "run"
[server]
url = "{url}"
order = "digits"
trust_root = "auditor/trust-root.json"
token_file = "auditor/tokens/developer.token"
[pool]
kind = "digits"
selection = {{ limit = 600 }}
[test]
kind = "digits"
selection = {{ skip = 1500 }}
[training]
name = "digits"
epochs = {epochs}
batch_size = 40
external_batch_size = 40
state_interval_steps = 5
threads = 1
[training.model]
architecture = "resnet18"
arguments = {{ layers = [1, 1, 1, 1], channels = [8, 16, 16, 16] }}
classes = 10
channels = 1
height = 8
width = 8
stem_stride = 1
stem_pool = false
[training.mint]
head = "fully_connected"
hidden = [64]
[training.optimiser]
name = "adam"
learning_rate = 0.005
"""


class World:
    """Everything of one story lives in one folder; commands are run as a user would run them."""

    def __init__(
        self,
        folder: Path,
        epochs: int = 4,
        outage_policy: str = "continue-late",
        images: tuple[str, ...] = (),
        database_url: str | None = None,
        workers: int = 1,
    ) -> None:
        self.folder = folder
        self.database_url = database_url
        self.workers = workers
        self.home = folder / "auditor"
        self.config = folder / "config.toml"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.server: subprocess.Popen[bytes] | None = None
        self.cli("init", "--home", str(self.home), "--auditor", "Test Authority").check_returncode()
        order = folder / "order.toml"
        order.write_text(
            ORDER.format(
                outage_policy=outage_policy,
                images=json.dumps(images),
                without_container=json.dumps(not images),
            )
        )
        self.cli("order", "create", str(order), "--home", str(self.home)).check_returncode()
        self.config.write_text(CONFIG.format(url=self.url, epochs=epochs))

    def token(self, role: str) -> str:
        return str(self.home / "tokens" / f"{role}.token")

    @property
    def access(self) -> list[str]:
        """Options of a compliance officer."""
        return ["--server", self.url, "--token-file", self.token("compliance-officer")]

    @property
    def asking(self) -> list[str]:
        """The same, for a query."""
        return [*self.access, "--purpose", "complaint 2026/7"]

    @property
    def trust_root(self) -> str:
        return str(self.home / "trust-root.json")

    @property
    def environment(self) -> dict[str, str]:
        """What every command of this world sees."""
        database = {} if self.database_url is None else {DATABASE_URL_VARIABLE: self.database_url}
        return {**os.environ, **database}

    def cli(
        self, *arguments: str, timeout: float = WAIT_SECONDS, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [AUDITKIT, *arguments],
            cwd=self.folder,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        log = (self.folder / f"{arguments[0]}.log").open("ab")
        return subprocess.Popen(
            [AUDITKIT, *arguments],
            cwd=self.folder,
            env=self.environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            # A test run that was itself started in the background ignores Ctrl-C; users do not.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )

    def log(self, command: str) -> str:
        return (self.folder / f"{command}.log").read_text()

    def serve(self, *options: str) -> None:
        # As people type it: relative to where they are.
        where = ("--home", self.home.name, "--port", str(self.port))
        self.server = self.start("serve", *where, "--workers", str(self.workers), *options)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(POLL_SECONDS)
        raise AssertionError(f"the server did not start: {self.log('serve')}")

    def kill_server(self) -> None:
        assert self.server is not None
        self.server.send_signal(signal.SIGKILL)
        self.server.wait()
        self.server = None

    def close(self) -> None:
        if self.server is not None:
            self.server.terminate()
            self.server.wait(START_SECONDS)

    def session_id(self) -> str:
        envelope = json.loads((self.folder / "run" / "grant.dsse.json").read_bytes())
        payload = json.loads(base64.b64decode(envelope["payload"]))
        return str(payload["predicate"]["session_id"])

    def recorded_steps(self) -> int:
        """Number of steps that the agent has recorded, straight from its spool."""
        spool = self.folder / "run" / "spool.jsonl"
        if not spool.exists():
            return 0
        return spool.read_bytes().count(b'"kind":"step"')

    def wait_for_steps(self, count: int, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while self.recorded_steps() < count:
            assert process.poll() is None, f"ended early: {self.log('train')}"
            assert time.monotonic() < deadline, "no progress"
            time.sleep(POLL_SECONDS)

    def export(self, name: str = "evidence.bundle") -> Path:
        path = self.folder / name
        self.cli(
            "export", self.session_id(), *self.access, "--output", str(path)
        ).check_returncode()
        return path

    def verify(self, bundle: Path) -> tuple[int, dict[str, Any]]:
        """Run `auditkit verify --json` with no server configured; return exit code and report."""
        done = self.cli("verify", str(bundle), "--trust-root", self.trust_root, "--json")
        assert done.stdout.startswith("{"), done.stderr
        return done.returncode, json.loads(done.stdout)

    def train_again(self, spool: Path) -> str:
        """Train in a plain process what was granted before; return the digest of the weights."""
        program = Path(__file__).parent / "train_again.py"
        done = subprocess.run(
            [sys.executable, str(program), str(self.folder), str(spool)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


def failed_checks(report: dict[str, Any]) -> set[str]:
    return {f["check"] for f in report["findings"] if f["outcome"] == "failed"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
