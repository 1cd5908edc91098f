"""A locked-down container passes every rule; each departure is refused by exactly its rule."""

import socket
import threading
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.types import DeviceRequest, Mount

from auditkit.evidence import containment
from containers import engine_errors
from containers.container import Container
from containers.engine import Engine
from schemas import ContainerDescription
from tests.containers.engine import require_engine
from tests.containers.python_image import LoadedImage, loaded, python_image

SLEEP = "import time; print('up', flush=True); time.sleep(600)"


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    require_engine().close()
    with Engine.connect() as found:
        yield found


@pytest.fixture(scope="module")
def image(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoadedImage]:
    with loaded(engine, tmp_path_factory.mktemp("image"), python_image()) as found:
        yield found


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the container's user can reach."""
    return tmp_path_factory.mktemp("run")


def finished(container: Container) -> tuple[int, str, str]:
    """Run a container to its end, and return its exit code and output."""
    stdout, stderr = BytesIO(), BytesIO()
    container.start()
    container.forward_output(stdout, stderr)
    code = container.wait()
    container.remove()
    return code, stdout.getvalue().decode(), stderr.getvalue().decode()


def described(container: Container) -> ContainerDescription:
    container.start()
    try:
        return container.describe()
    finally:
        container.remove()


def check(image: LoadedImage, description: ContainerDescription) -> None:
    containment.check_description(image.identity, image.config, description)


# What the honest launcher makes.


def test_a_locked_down_container_passes_every_rule(image: LoadedImage, folder: Path) -> None:
    for name in ("pool", "test"):
        (folder / name).mkdir()
    container = image.create(folder, SLEEP, pool=folder / "pool", test=folder / "test")
    description = described(container)
    check(image, description)
    assert description.container_id == container.id
    assert {mount.destination: mount.read_only for mount in description.mounts} == {
        "/tmp": False,
        "/run/auditkit": True,
        "/output": False,
        "/data/pool": True,
        "/data/test": True,
    }


def test_a_locked_down_container_with_a_terminal_passes_too(
    image: LoadedImage, folder: Path
) -> None:
    check(image, described(image.create(folder, SLEEP, terminal=(30, 100))))


def test_pool_and_test_may_lie_in_one_folder_with_any_name(
    image: LoadedImage, folder: Path
) -> None:
    data = folder / "data: all, of it"
    data.mkdir()
    (data / "sample").write_text("pixels")
    code, out, _ = finished(
        image.create(
            folder,
            "print(open('/data/pool/sample').read(), open('/data/test/sample').read())",
            pool=data,
            test=data,
        )
    )
    assert (code, out) == (0, "pixels pixels\n")


def test_only_output_and_scratch_can_be_written_to(image: LoadedImage, folder: Path) -> None:
    program = """
import os
for path in ("/", "/python", "/opt", "/run/auditkit", "/data/pool", "/output", "/tmp", "/dev"):
    try:
        open(os.path.join(path, "file"), "w").write("x")
        print("wrote", path)
    except OSError:
        pass
"""
    pool = folder / "pool"
    pool.mkdir(mode=0o777)
    pool.chmod(0o777)
    code, out, _ = finished(image.create(folder, program, pool=pool))
    assert (code, out.split()) == (0, ["wrote", "/output", "wrote", "/tmp"])
    assert (folder / "output" / "file").read_text() == "x"


def test_inside_there_is_no_right_to_gain(image: LoadedImage, folder: Path) -> None:
    program = """
import os, resource, socket
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines())
print(os.getuid(), os.getgid(), status["CapEff"], status["CapBnd"], status["NoNewPrivs"],
      status["Seccomp"], socket.gethostname(), resource.getrlimit(resource.RLIMIT_CORE)[1],
      *sorted(name for _, name in socket.if_nameindex()))
"""
    container = image.create(folder, program)
    code, out, _ = finished(container)
    found = out.split()
    assert code == 0
    assert found[:8] == [
        *("10001", "10001", "0" * 16, "0" * 16, "1", "2"),
        *(container.id[:12], "0"),
    ]
    assert "eth0" not in found


# What the developer could change about it. Each container is really started.

Change = Callable[[dict[str, Any], Path], dict[str, Any]]


def setting(**changes: Any) -> Change:
    return lambda _arguments, _folder: changes


def mounted(target: str, **options: Any) -> Change:
    def change(arguments: dict[str, Any], folder: Path) -> dict[str, Any]:
        kept = [mount for mount in arguments["mounts"] if mount["Target"] != target]
        return {"mounts": [*kept, Mount(target, str(folder), type="bind", **options)]}

    return change


def without_mount(target: str) -> Change:
    return lambda arguments, _folder: {
        "mounts": [mount for mount in arguments["mounts"] if mount["Target"] != target]
    }


# Docker switches labels off, too, where a container shares processes or memory with the host.
SHARED = (containment.NamespaceError, containment.SecurityOptionError)

Expected = type[containment.ContainmentError] | tuple[type[containment.ContainmentError], ...]

DEPARTURES: dict[str, tuple[Change, Expected]] = {
    "writable root": (setting(read_only=False), containment.WritableRootError),
    "an added capability": (setting(cap_add=["NET_RAW"]), containment.CapabilityError),
    "kept capabilities": (setting(cap_drop=None), containment.CapabilityError),
    "some dropped": (setting(cap_drop=["CHOWN", "KILL"]), containment.CapabilityError),
    "host network": (setting(network_mode="host"), containment.NetworkError),
    "a published port": (setting(ports={"80/tcp": 18080}), containment.NetworkError),
    "an extra mount": (mounted("/extra", read_only=True), containment.MountError),
    "code from outside": (mounted("/opt/run/code", read_only=True), containment.MountError),
    "a writable relay folder": (mounted("/run/auditkit"), containment.MountError),
    "a writable pool": (mounted("/data/pool"), containment.MountError),
    "a read-only output": (mounted("/output", read_only=True), containment.MountError),
    "no relay folder": (without_mount("/run/auditkit"), containment.MountError),
    "a volume": (
        lambda arguments, _: {"mounts": [*arguments["mounts"], Mount("/volume", None)]},
        containment.MountError,
    ),
    "another tmpfs": (setting(tmpfs={"/tmp": "", "/extra": ""}), containment.MountError),
    "a mounted tmpfs": (
        lambda arguments, _: {
            "mounts": [*arguments["mounts"], Mount("/extra", None, type="tmpfs")]
        },
        containment.MountError,
    ),
    "another entry point": (
        setting(entrypoint=["/python/bin/python3", "-c", SLEEP]),
        containment.EntryPointError,
    ),
    "a command": (setting(command=["--quiet"]), containment.EntryPointError),
    "an extra variable": (
        setting(environment=["LD_PRELOAD=/output/hook.so"]),
        containment.EnvironmentVariablesError,
    ),
    "another variable": (
        setting(environment=["PATH=/output"]),
        containment.EnvironmentVariablesError,
    ),
    "another folder": (setting(working_dir="/output"), containment.WorkingDirectoryError),
    "privileged": (setting(privileged=True), containment.PrivilegedError),
    "no memory limit": (
        setting(mem_limit=None, memswap_limit=None),
        containment.ResourceLimitError,
    ),
    "no processor limit": (setting(nano_cpus=None), containment.ResourceLimitError),
    "no process limit": (setting(pids_limit=None), containment.ResourceLimitError),
    "endless processes": (setting(pids_limit=-1), containment.ResourceLimitError),
    "the host's processes": (setting(pid_mode="host"), SHARED),
    "the host's memory": (setting(ipc_mode="host"), SHARED),
    "shareable memory": (setting(ipc_mode="shareable"), containment.NamespaceError),
    "the host's name": (setting(uts_mode="host"), containment.NamespaceError),
    "the host's users": (setting(userns_mode="host"), containment.NamespaceError),
    "the host's control groups": (setting(cgroupns="host"), containment.NamespaceError),
    "unconfined seccomp": (
        setting(security_opt=["no-new-privileges", "seccomp=unconfined"]),
        containment.SecurityOptionError,
    ),
    "new privileges": (setting(security_opt=None), containment.SecurityOptionError),
    "a device": (setting(devices=["/dev/zero:/dev/zero:r"]), containment.DeviceError),
    "devices by rule": (setting(device_cgroup_rules=["c 1:5 r"]), containment.DeviceError),
    "root": (setting(user="0:0"), containment.ContainerUserError),
    "a user without a group": (setting(user="10001"), containment.ContainerUserError),
    "restarts": (
        setting(restart_policy={"Name": "unless-stopped"}),
        containment.RestartPolicyError,
    ),
}


def departed(image: LoadedImage, folder: Path, change: Change) -> Container:
    """Create a container with changed arguments, as a developer could with the SDK."""
    arguments = image.lockdown(folder, SLEEP).arguments(image.id, None)
    arguments |= change(arguments, folder)
    client = docker.DockerClient(base_url=image.engine.facts().address)
    made = client.containers.create(**arguments)
    client.close()
    return next(one for one in image.engine.containers(image.labels) if one.id == made.id)


@pytest.mark.parametrize("name", sorted(DEPARTURES))
def test_every_departure_is_refused_by_its_rule(
    name: str, image: LoadedImage, folder: Path
) -> None:
    change, expected = DEPARTURES[name]
    description = described(departed(image, folder, change))
    with pytest.raises(expected):
        check(image, description)


def test_a_second_program_is_reported(image: LoadedImage, folder: Path) -> None:
    check_health = ["CMD", "/python/bin/python3", "-c", "pass"]
    change = setting(healthcheck={"test": check_health})
    assert described(departed(image, folder, change)).health_check == tuple(check_health)
    assert described(image.create(folder, SLEEP)).health_check == ()


def test_a_changed_option_of_another_kind_is_no_departure(image: LoadedImage, folder: Path) -> None:
    check(image, described(departed(image, folder, setting(labels=image.labels | {"a": "b"}))))


def test_a_container_of_another_image_is_refused(
    engine: Engine, image: LoadedImage, folder: Path
) -> None:
    with loaded(engine, folder, python_image()) as other:
        description = described(other.create(folder, SLEEP))
    with pytest.raises(containment.ContainerImageError):
        check(image, description)


def test_gpus_that_the_engine_does_not_have_are_refused(
    engine: Engine, image: LoadedImage, folder: Path
) -> None:
    if engine.facts().gpu_support is not None:
        pytest.skip("this engine has GPUs")
    with pytest.raises(engine_errors.GpuSupportError, match="Container Toolkit"):
        image.create(folder, SLEEP, gpus=("all",))
    request = DeviceRequest(count=-1, capabilities=[["gpu"]])
    container = departed(image, folder, setting(device_requests=[request]))
    with pytest.raises(engine_errors.GpuSupportError, match="Container Toolkit"):
        container.start()


def test_an_engines_refusal_is_told_shortly(image: LoadedImage, folder: Path) -> None:
    with pytest.raises(engine_errors.EngineError, match="CPUs") as caught:
        image.create(folder, SLEEP, cpus=1e6)
    assert len(str(caught.value)) < 600
    with pytest.raises(engine_errors.EngineError, match="refused to create"):
        image.create(folder, SLEEP, pool=folder / "missing")


# From inside: nothing but the socket.

REACH = """
import socket, sys
def attempt(name, call):
    try:
        call()
        print("reached", name)
    except OSError:
        print("failed", name)
port = int(open("/output/port").read())
for host in open("/output/hosts").read().split():
    attempt("host", lambda: socket.create_connection((host, port), timeout=5))
attempt("loopback", lambda: socket.create_connection(("127.0.0.1", port), timeout=5))
attempt("name", lambda: socket.getaddrinfo("example.org", 443))
packets = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
attempt("packets", lambda: packets.sendto(b"x", ("192.0.2.1", 53)))
attempt("abstract", lambda: socket.socket(socket.AF_UNIX).connect("\\0auditkit-test-abstract"))
with socket.socket(socket.AF_UNIX) as relay:
    relay.connect("/run/auditkit/relay.sock")
    relay.sendall(b"from inside")
    print(relay.recv(100).decode())
"""


def own_addresses() -> list[str]:
    """Addresses of this machine that are not loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing: it only chooses an address
        except OSError:
            return []
        return [str(probe.getsockname()[0])]


def test_nothing_but_the_socket_can_be_reached(image: LoadedImage, folder: Path) -> None:
    container = image.create(folder, REACH)
    with (
        socket.create_server(("0.0.0.0", 0)) as listener,
        socket.socket(socket.AF_UNIX) as abstract,
        socket.socket(socket.AF_UNIX) as relay,
    ):
        abstract.bind("\0auditkit-test-abstract")
        abstract.listen()
        relay.bind(str(folder / "relay" / "relay.sock"))
        (folder / "relay" / "relay.sock").chmod(0o777)
        relay.listen()
        port = listener.getsockname()[1]
        socket.create_connection(("127.0.0.1", port)).close()  # which works out here
        (folder / "output" / "port").write_text(str(port))
        (folder / "output" / "hosts").write_text("\n".join(own_addresses()))

        def answer() -> None:
            connection, _ = relay.accept()
            with connection:
                connection.sendall(connection.recv(100).upper())

        threading.Thread(target=answer, daemon=True).start()
        code, out, err = finished(container)
    assert code == 0, err
    lines = out.splitlines()
    assert lines[-1] == "FROM INSIDE"
    assert all(line.startswith("failed ") for line in lines[:-1]), lines
    assert len(lines) == 5 + len(own_addresses())


# Output, signals, exit codes.


def test_output_is_forwarded_from_the_first_byte_on(image: LoadedImage, folder: Path) -> None:
    program = """
import sys
sys.stdout.write("first\\n")
sys.stderr.write("aside\\n")
sys.stdout.write("x" * 3_000_000 + "\\nlast")
sys.exit(3)
"""
    code, out, err = finished(image.create(folder, program))
    assert (code, err) == (3, "aside\n")
    assert out == "first\n" + "x" * 3_000_000 + "\nlast"


def test_with_a_terminal_output_is_what_a_terminal_gets(image: LoadedImage, folder: Path) -> None:
    program = """
import os, sys, time
for _ in range(100):
    size = os.get_terminal_size()
    if size.columns:
        break
    time.sleep(0.05)
print(sys.stdout.isatty(), size.lines, size.columns)
print("aside", file=sys.stderr)
"""
    code, out, err = finished(image.create(folder, program, terminal=(33, 111)))
    assert (code, out, err) == (0, "True 33 111\r\naside\r\n", "")


def test_a_container_reads_nothing_from_its_input(image: LoadedImage, folder: Path) -> None:
    code, out, _ = finished(image.create(folder, "import sys; print(repr(sys.stdin.read()))"))
    assert (code, out) == (0, "''\n")


class _Lines(BytesIO):
    """Tells when the first line was written."""

    def __init__(self) -> None:
        super().__init__()
        self.began = threading.Event()

    def write(self, data: Any) -> int:
        written = super().write(data)
        self.began.set()
        return written


def started(container: Container) -> tuple[_Lines, threading.Thread]:
    """Start a container, forward its output in a thread, and wait for its first line."""
    container.start()
    return followed(container)


def followed(container: Container) -> tuple[_Lines, threading.Thread]:
    """Forward a container's output in a thread, and wait for its first line: it is up."""
    sink = _Lines()
    thread = threading.Thread(target=container.forward_output, args=(sink, sink), daemon=True)
    thread.start()
    assert sink.began.wait(60)
    return sink, thread


STOPPABLE = """
import sys, time
try:
    print("up", flush=True)
    time.sleep(600)
except KeyboardInterrupt:
    print("stopped cleanly")
    sys.exit(130)
"""


@pytest.mark.parametrize("terminal", [None, (24, 80)])
def test_an_interruption_reaches_the_first_process(
    terminal: tuple[int, int] | None, image: LoadedImage, folder: Path
) -> None:
    container = image.create(folder, STOPPABLE, terminal=terminal)
    sink, thread = started(container)
    assert container.running
    container.interrupt()
    assert container.wait() == 130
    thread.join(60)
    assert sink.getvalue().replace(b"\r", b"") == b"up\nstopped cleanly\n"
    assert not container.running
    container.interrupt()  # late, and no error
    container.kill()
    with pytest.raises(engine_errors.ContainerEndedError, match="130"):
        container.describe()
    container.remove()
    container.remove()


def test_killing_ends_what_does_not_listen(image: LoadedImage, folder: Path) -> None:
    program = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n" + SLEEP
    container = image.create(folder, program)
    sink, thread = started(container)
    container.interrupt()
    assert container.running
    container.kill()
    assert container.wait() == 137
    thread.join(60)
    assert not thread.is_alive()
    assert sink.getvalue() == b"up\n"
    assert not container.out_of_memory


def test_a_container_without_enough_memory_says_so(image: LoadedImage, folder: Path) -> None:
    container = image.create(folder, "bytearray(2**30)", memory_bytes=2**26)
    container.start()
    assert container.wait() == 137
    assert container.out_of_memory


def test_a_container_of_another_process_is_found_and_joined(
    engine: Engine, image: LoadedImage, folder: Path
) -> None:
    labels = image.labels | {"auditkit.test.run": "joined"}
    made = image.create(folder, STOPPABLE, labels=labels)
    made.start()
    (found,) = engine.containers(labels)
    assert found.id == made.id
    _, thread = followed(found)
    made.interrupt()
    thread.join(60)
    assert found.wait() == 130
    assert engine.containers({"auditkit.test.run": "somebody else's"}) == []
