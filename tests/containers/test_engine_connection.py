"""Which engine is found, what it is told when it lacks something, and what happens when it dies.

Engines that this machine does not have are small servers on a socket, which answer as they do.
"""

import contextlib
import json
import os
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from io import BytesIO
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any

import pytest

from containers import engine_errors
from containers.engine import DEFAULT_SOCKET, Engine
from containers.lockdown import Lockdown
from schemas import ImageIdentity
from tests.containers.engine import require_engine
from tests.containers.python_image import loaded, python_image

DOCKER: dict[str, Any] = {
    "Version": "27.3.1",
    "ApiVersion": "1.47",
    "MinAPIVersion": "1.24",
    "Os": "linux",
    "Arch": "amd64",
    "Components": [{"Name": "Engine", "Version": "27.3.1"}],
}
PODMAN = DOCKER | {
    "Version": "4.3.1",
    "Components": [{"Name": "Podman Engine", "Version": "4.3.1"}],
}
ROOTFUL: dict[str, Any] = {
    "Driver": "overlay2",
    "DockerRootDir": "/var/lib/docker",
    "CgroupVersion": "2",
    "CgroupDriver": "systemd",
    "MemoryLimit": True,
    "PidsLimit": True,
    "CpuCfsQuota": True,
    "SecurityOptions": ["name=seccomp,profile=builtin", "name=cgroupns"],
    "Runtimes": {"runc": {"path": "runc"}},
    "MemTotal": 2**35,
    "NCPU": 8,
    "SomethingNew": None,
}
ROOTLESS = ROOTFUL | {"SecurityOptions": ["name=seccomp", "name=rootless"]}
IDENTITY = ImageIdentity(
    config_digest="0" * 64,
    diff_ids=(),
    manifest_digest="1" * 64,
    manifest_source="archive",
    archive_digest="2" * 64,
)


class _Server(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True


@contextlib.contextmanager
def engine_answering(path: Path, answers: dict[str, Any]) -> Iterator[Path]:
    """Serve these answers by the end of their paths, everything else being not found."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            name = self.path.partition("?")[0].rpartition("/")[2]
            found = answers.get(name)
            body = json.dumps({"message": "No such image"} if found is None else found).encode()
            self.send_response(404 if found is None else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = answer  # noqa: N815 - the names that are looked up

        def address_string(self) -> str:
            return "unix"

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    path.parent.mkdir(parents=True, exist_ok=True)
    with _Server(str(path), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield path
        server.shutdown()


def connected(path: Path) -> Engine:
    return Engine.connect({"DOCKER_HOST": f"unix://{path}"})


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("e")  # short: a socket's path has at most 107 bytes


@pytest.fixture
def no_default_engine(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr("containers.engine.DEFAULT_SOCKET", folder / "docker.sock")


def lockdown(folder: Path, **changes: Any) -> Lockdown:
    settings: dict[str, Any] = {
        "relay_folder": folder,
        "output": folder,
        "pool": None,
        "test": None,
        "user": (1000, 1000),
        "memory_bytes": 2**30,
        "cpus": 1.0,
        "most_processes": 100,
    }
    return Lockdown(**(settings | changes))


# Which engine.


def test_the_engine_of_this_machine_is_found_and_known() -> None:
    expected = require_engine().version()["Version"]
    with Engine.connect() as engine:
        facts = engine.facts()
    assert facts.version == expected
    assert str(facts) == f"Docker {expected} linux/amd64"
    assert facts.cpus == len(os.sched_getaffinity(0))  # an engine may be given fewer


@pytest.mark.parametrize("name", ["docker.sock", "podman/podman.sock"])
@pytest.mark.usefixtures("no_default_engine")
def test_a_users_own_engine_is_found(name: str, folder: Path) -> None:
    environment = {"XDG_RUNTIME_DIR": str(folder / "run")}
    answers = {"version": DOCKER, "info": ROOTLESS}
    with (
        engine_answering(folder / "run" / name, answers),
        Engine.connect(environment) as engine,
    ):
        facts = engine.facts()
    assert (facts.rootless, facts.address) == (True, f"unix://{folder / 'run' / name}")


@pytest.mark.usefixtures("no_default_engine")
def test_without_an_engine_the_user_learns_how_to_install_one(folder: Path) -> None:
    for environment in ({}, {"XDG_RUNTIME_DIR": str(folder)}, {"DOCKER_HOST": "unix:///nowhere"}):
        with pytest.raises(engine_errors.EngineMissingError, match=r"apt-get install docker\.io"):
            Engine.connect(environment)


def test_an_engine_that_was_stopped_is_told_from_none(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(folder / "s"))
    with pytest.raises(engine_errors.EngineMissingError, match="systemctl start"):
        connected(folder / "s")


def test_without_rights_the_user_learns_of_the_group_and_of_rootless_engines(folder: Path) -> None:
    with engine_answering(folder / "s", {"version": DOCKER}) as path:
        path.chmod(0)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        try:
            with pytest.raises(engine_errors.EngineRightsError, match="security/rootless"):
                connected(path)
        finally:
            if root:
                os.seteuid(0)


@pytest.mark.parametrize("host", ["tcp://127.0.0.1:2375", "ssh://elsewhere", "https://x"])
def test_an_engine_elsewhere_cannot_mount_folders_of_this_machine(host: str) -> None:
    with pytest.raises(engine_errors.RemoteEngineError, match="unix://"):
        Engine.connect({"DOCKER_HOST": host})


def test_the_default_is_dockers_own() -> None:
    assert str(DEFAULT_SOCKET) == "/var/run/docker.sock"


# What it can do.


def test_podman_is_marked_experimental(folder: Path) -> None:
    answers = {"version": PODMAN, "info": ROOTLESS}
    with engine_answering(folder / "s", answers) as path, connected(path) as engine:
        facts = engine.facts()
    assert (facts.name, facts.experimental, facts.enforces_limits) == ("Podman", True, True)


@pytest.mark.parametrize(
    "information",
    [
        ROOTLESS | {"CgroupVersion": "1"},
        {key: value for key, value in ROOTLESS.items() if key != "CgroupVersion"},
        ROOTLESS | {"CgroupDriver": "none"},
        ROOTLESS | {"MemoryLimit": False},
        ROOTFUL | {"PidsLimit": False},
        ROOTFUL | {"CpuCfsQuota": False},
    ],
    ids=["cgroup v1", "older", "no driver", "no memory", "no processes", "no processors"],
)
def test_an_engine_that_would_ignore_limits_is_refused(
    information: dict[str, Any], folder: Path
) -> None:
    answers = {"version": DOCKER, "info": information}
    with engine_answering(folder / "s", answers) as path, connected(path) as engine:
        assert not engine.facts().enforces_limits
        with pytest.raises(engine_errors.RootlessLimitsError, match="cgroup v2"):
            engine.create("sha256:" + "0" * 64, lockdown(folder))


def test_gpus_need_a_runtime_or_a_device_interface(folder: Path) -> None:
    runtimes = {"runc": {"path": "runc"}, "nvidia": {"path": "nvidia-container-runtime"}}
    specifications = folder / "cdi"
    specifications.mkdir()
    device = {"Source": "cdi", "ID": "nvidia.com/gpu=0"}
    cases: list[tuple[dict[str, Any], str | None]] = [
        ({}, None),
        ({"Runtimes": runtimes}, "runtime"),
        ({"DiscoveredDevices": [device]}, "cdi"),
        ({"DiscoveredDevices": [device | {"ID": "vendor.com/net=0"}]}, None),
        ({"CDISpecDirs": [str(specifications)]}, None),
    ]
    for number, (change, expected) in enumerate(cases):
        answers = {"version": DOCKER, "info": ROOTFUL | change}
        with engine_answering(folder / str(number), answers) as path, connected(path) as engine:
            assert engine.facts().gpu_support == expected
            if expected is None:
                with pytest.raises(engine_errors.GpuSupportError, match="nvidia-ctk"):
                    engine.create("sha256:" + "0" * 64, lockdown(folder, gpus=("all",)))
    (specifications / "nvidia.yaml").touch()
    answers = {"version": DOCKER, "info": ROOTFUL | {"CDISpecDirs": [str(specifications)]}}
    with engine_answering(folder / "last", answers) as path, connected(path) as engine:
        assert engine.facts().gpu_support == "cdi"


@pytest.mark.parametrize(
    "information",
    [{}, [], ROOTFUL | {"Driver": 3}, ROOTFUL | {"MemoryLimit": "yes"}, {"Driver": "x"}],
)
def test_an_answer_that_is_none_is_refused(information: Any, folder: Path) -> None:
    answers = {"version": DOCKER, "info": information}
    with (
        engine_answering(folder / "s", answers) as path,
        connected(path) as engine,
        pytest.raises(engine_errors.EngineAnswerError),
    ):
        engine.facts()


def test_an_image_that_is_found_under_another_name_is_not_found(folder: Path) -> None:
    answers = {"version": DOCKER, "json": {"Id": "sha256:" + "3" * 64, "Size": 1}}
    with engine_answering(folder / "s", answers) as path, connected(path) as engine:
        assert engine.find_image(IDENTITY) is None
    for image_id in ("sha256:" + "1" * 64, "1" * 64):  # Podman leaves out the prefix
        answers["json"] = {"Id": image_id, "Size": 1}
        with engine_answering(folder / image_id[-3:], answers) as path, connected(path) as engine:
            assert engine.find_image(IDENTITY) == "sha256:" + "1" * 64
        path.unlink()


# When it goes away.


class _Line:
    """A connection to the real engine that can be cut, as if the engine were killed."""

    def __init__(self, path: Path, target: str) -> None:
        self._target = target
        self._open: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in self._open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.socket(socket.AF_UNIX)
                far.connect(self._target)
                self._open += [near, far]
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=self._copy, args=ends, daemon=True).start()

    @staticmethod
    def _copy(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(65536):
                sink.sendall(piece)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


def test_an_engine_that_dies_is_told_from_a_container_that_ends(folder: Path) -> None:
    require_engine().close()
    program = "import time; print('up', flush=True); time.sleep(600)"
    with Engine.connect() as real, loaded(real, folder, python_image()) as image:
        line = _Line(folder / "s", real.facts().address.removeprefix("unix://"))
        with connected(folder / "s") as engine:
            container = engine.create(image.id, image.lockdown(folder, program))
            container.start()
            failures: list[Exception] = []
            came = threading.Event()

            class Sink(BytesIO):
                def write(self, data: Any) -> int:
                    came.set()
                    return super().write(data)

            def watch(call: Any) -> None:
                try:
                    call()
                except engine_errors.EngineError as error:
                    failures.append(error)

            sink = Sink()
            threads = [
                threading.Thread(target=watch, args=(call,), daemon=True)
                for call in (lambda: container.forward_output(sink, sink), container.wait)
            ]
            for thread in threads:
                thread.start()
            assert came.wait(60)
            line.cut()
            for thread in threads:
                thread.join(60)
            assert sink.getvalue() == b"up\n"
            assert [type(one) for one in failures] == [engine_errors.EngineLostError] * 2
            for call in (container.interrupt, container.describe, engine.facts, container.remove):
                with pytest.raises(engine_errors.EngineLostError, match="docker info"):
                    call()
        # The container itself goes on, and a fresh connection finds it.
        (survivor,) = real.containers(image.labels)
        assert survivor.running
