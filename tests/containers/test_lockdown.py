"""The options of a container, and what is read back from an engine that says what it likes."""

import copy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditkit.evidence import containment
from auditkit.evidence.canonical import sha256_hex
from containers import errors
from containers.engine_errors import EngineAnswerError, StoredImageError
from containers.exported import check_exported
from containers.filesystem import FileState
from containers.inspection import InspectedContainer, read_answer
from containers.lockdown import Lockdown
from schemas import ContainerDescription
from tests.containers.saved_images import File, layer

LOCKDOWN = Lockdown(
    relay_folder=Path("/relay"),
    output=Path("/run/out"),
    pool=Path("/data/pool: all"),
    test=None,
    user=(10001, 10002),
    memory_bytes=2**30,
    cpus=1.5,
    most_processes=100,
)

INSPECTED: dict[str, Any] = {
    "Id": "c" * 64,
    "Image": "sha256:" + "a" * 64,
    "State": {"Running": True, "ExitCode": 0, "OOMKilled": False},
    "Config": {
        "Entrypoint": ["python3"],
        "Cmd": None,
        "Env": ["PATH=/bin"],
        "User": "10001:10001",
        "WorkingDir": "",
        "Healthcheck": {"Test": ["NONE"]},
    },
    "HostConfig": {
        "Privileged": False,
        "ReadonlyRootfs": True,
        "CapAdd": None,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        "MaskedPaths": ["/proc/kcore"],
        "ReadonlyPaths": ["/proc/sys"],
        "NetworkMode": "none",
        "PidMode": "",
        "IpcMode": "private",
        "UTSMode": "",
        "UsernsMode": "",
        "CgroupnsMode": "private",
        "Tmpfs": {"/tmp": "rw,size=1"},
        "Devices": [],
        "DeviceRequests": None,
        "PortBindings": {},
        "PublishAllPorts": False,
        "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
        "Memory": 2**30,
        "NanoCpus": 0,
        "CpuQuota": 150_000,
        "CpuPeriod": 100_000,
        "PidsLimit": 100,
    },
    "NetworkSettings": {"Networks": {"none": {}}, "Ports": {}},
    "Mounts": [{"Type": "bind", "Source": "/x", "Destination": "/output", "RW": True}],
}


def described(**host: Any) -> ContainerDescription:
    document = copy.deepcopy(INSPECTED)
    for name, value in host.items():
        part = "HostConfig" if name in INSPECTED["HostConfig"] else "Config"
        document[part if name not in document else name] = (
            value if name in document else document[part] | {name: value}
        )
    return read_answer(InspectedContainer, document, "a container").described(
        "Docker 27.3.1 linux/amd64", rootless=False
    )


def host_with(**changes: Any) -> ContainerDescription:
    return described(HostConfig=INSPECTED["HostConfig"] | changes)


def test_what_is_left_out_or_null_is_empty() -> None:
    description = described()
    assert description.image_id == "a" * 64
    assert (description.command, description.capabilities_added) == ((), ())
    assert (description.devices, description.gpus, description.health_check) == ((), (), ())
    assert description.cpus == 1.5
    assert [(mount.destination, mount.kind) for mount in description.mounts] == [
        ("/tmp", "tmpfs"),
        ("/output", "bind"),
    ]


@pytest.mark.parametrize("paths", ["MaskedPaths", "ReadonlyPaths"])
def test_unmasked_system_paths_are_a_security_option(paths: str) -> None:
    description = described(**{paths: []})
    assert "systempaths=unconfined" in description.security_options


def test_a_profile_is_told_by_its_digest_and_its_absence_as_it_is() -> None:
    profile = '{"defaultAction": "SCMP_ACT_ALLOW"}' * 1000
    description = described(SecurityOpt=["seccomp=" + profile, "seccomp=unconfined"])
    assert description.security_options == (
        "seccomp=sha256:" + sha256_hex(profile.encode()),
        "seccomp=unconfined",
    )


def test_gpus_are_told_from_other_devices() -> None:
    requests = [
        {"Driver": "", "Count": -1, "DeviceIDs": None, "Capabilities": [["gpu"]]},
        {"Driver": "cdi", "Count": 0, "DeviceIDs": ["nvidia.com/gpu=0"], "Capabilities": None},
        {"Driver": "cdi", "Count": 0, "DeviceIDs": ["vendor.com/net=0"], "Capabilities": None},
        {"Driver": "", "Count": 2, "DeviceIDs": None, "Capabilities": [["gpu"], ["network"]]},
        {"Driver": "odd", "Count": 0, "DeviceIDs": None, "Capabilities": None},
    ]
    description = described(
        DeviceRequests=requests,
        Devices=[{"PathOnHost": "/dev/kvm", "PathInContainer": "/dev/kvm"}],
    )
    assert description.gpus == ("all", "nvidia.com/gpu=0")
    assert description.devices == (
        "/dev/kvm:/dev/kvm:",
        "vendor.com/net=0",
        "2 of any kind",
        "0 of odd",
    )


def test_ports_and_networks_are_told_wherever_they_stand() -> None:
    description = described(
        PortBindings={"80/tcp": [{"HostPort": "8080"}]},
        PublishAllPorts=True,
        NetworkSettings={
            "Networks": {"bridge": {}},
            "Ports": {"443/tcp": [{"HostPort": "1"}], "9/udp": None},
        },
    )
    assert description.published_ports == ("443/tcp", "80/tcp", "all exposed ports")
    assert description.networks == ("bridge",)


def test_a_plain_container_has_no_extras() -> None:
    assert described().extras == ()
    usual = {"Init": False, "Runtime": "runc", "GroupAdd": None, "Sysctls": {}}
    assert host_with(**usual).extras == ()
    assert host_with(Runtime="nvidia").extras == ()


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ({"Init": True}, "init=true"),
        ({"Runtime": "/output/other"}, "runtime=/output/other"),
        ({"GroupAdd": ["docker"]}, "group=docker"),
        ({"Sysctls": {"kernel.shmmax": "1"}}, "sysctl=kernel.shmmax=1"),
        ({"Tmpfs": {"/tmp": "rw,exec,size=1"}}, "tmpfs=/tmp:exec"),
        (
            {"Mounts": [{"Target": "/tmp", "TmpfsOptions": {"Options": [["suid"]]}}]},
            "tmpfs=/tmp:suid",
        ),
    ],
)
def test_settings_that_no_locked_down_container_has_are_told(
    host: dict[str, Any], expected: str
) -> None:
    assert host_with(**host).extras == (expected,)


def test_a_mount_of_a_kind_that_is_not_known_is_other() -> None:
    mounts = [
        {"Type": "cluster", "Destination": "/a", "RW": False},
        {"Type": "tmpfs", "Destination": "/tmp", "RW": True},
        {"Type": "tmpfs", "Destination": "/b", "RW": True},
    ]
    assert [(mount.destination, mount.kind) for mount in described(Mounts=mounts).mounts] == [
        ("/tmp", "tmpfs"),
        ("/a", "other"),
        ("/b", "tmpfs"),
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"Id": "short"},
        {"Image": "training:latest"},
        {"Image": None},
        {"Privileged": "no"},
        {"Privileged": None},
        {"ReadonlyRootfs": 1},
        {"CapDrop": "ALL"},
        {"Memory": "lots"},
        {"Memory": 2**63},
        {"NanoCpus": 10**400},
        {"CpuQuota": 10**400, "CpuPeriod": 1},
        {"SecurityOpt": ["seccomp=\ud800"]},
        {"CapDrop": ["\ud800"]},
        {"Mounts": [{"Type": "bind"}]},
        {"State": {}},
        {"Env": ["A=" + "x" * 20_000]},
        {"Env": ["A=1"] * 2_000},
        {"HostConfig": None},
    ],
)
def test_what_is_no_description_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(EngineAnswerError):
        described(**change)


# What goes out.


def test_paths_may_have_any_name_and_only_the_output_is_writable() -> None:
    arguments = LOCKDOWN.arguments("sha256:" + "a" * 64, None)
    assert [(one["Source"], one["Target"], one["ReadOnly"]) for one in arguments["mounts"]] == [
        ("/relay", containment.RELAY_FOLDER, True),
        ("/run/out", containment.OUTPUT, False),
        ("/data/pool: all", containment.POOL, True),
    ]
    assert not {"command", "entrypoint", "environment", "hostname", "working_dir"} & set(arguments)


@pytest.mark.parametrize(
    ("gpus", "support", "expected"),
    [
        ((), "runtime", []),
        (("all",), "runtime", [("", -1, [], [["gpu"]])]),
        (("0", "GPU-1"), "runtime", [("", 0, ["0", "GPU-1"], [["gpu"]])]),
        (("all",), "cdi", [("cdi", 0, ["nvidia.com/gpu=all"], [])]),
        (("0", "1"), "cdi", [("cdi", 0, ["nvidia.com/gpu=0", "nvidia.com/gpu=1"], [])]),
    ],
)
def test_gpus_are_asked_for_as_the_engine_can(
    gpus: tuple[str, ...], support: Any, expected: list[tuple[Any, ...]]
) -> None:
    lockdown = Lockdown(**(vars(LOCKDOWN) | {"gpus": gpus}))
    requests = lockdown.arguments("sha256:" + "a" * 64, support)["device_requests"]
    assert [
        (one["Driver"], one["Count"], one["DeviceIDs"], one["Capabilities"]) for one in requests
    ] == expected


# What the container sees of its image.

EXPECTED = {
    "/": FileState("directory", 0o755, 0, 0, 0),
    "/lib/code": FileState("file", 0o644, 0, 0, 1, digest=sha256_hex(b"1")),
    "/link": FileState("symbolic link", 0o644, 0, 0, 0, link="lib"),
}
HONEST = (
    File("lib/", mode=0o755),
    File("lib/code", b"1"),
    File("link", link="lib", kind=b"2", mode=0o777),
)


def test_what_engines_add_to_every_container_is_no_change() -> None:
    added = (
        File(".dockerenv", b"", mode=0o755),
        File("dev/", mode=0o755),
        File("etc/", mode=0o755),
        File("etc/hosts", b"", mode=0o755),
        File("etc/mtab", link="/proc/mounts", kind=b"2"),
    )
    check_exported([layer(*HONEST, *added)], EXPECTED)


@pytest.mark.parametrize(
    "files",
    [
        (*HONEST, File("etc/hosts", b"10.0.0.1 auditor\n")),
        (*HONEST, File("etc/mtab", link="/lib/code", kind=b"2")),
        (*HONEST, File("dev/", mode=0o777)),
        (*HONEST, File("etc/", mode=0o755, user=1)),
        (*HONEST, File("lib/.wh.code", b"")),
        (*HONEST, File("lib/other", link="lib/code", kind=b"1")),
        (File("lib/", mode=0o777), *HONEST[1:]),
        (HONEST[0], File("lib/code", b"2"), HONEST[2]),
        (HONEST[0], File("lib/code", b"1", mode=0o666), HONEST[2]),
        (*HONEST[:2], File("link", link="etc", kind=b"2")),
        HONEST[:2],
        (),
    ],
)
def test_anything_else_is_a_change(files: tuple[File, ...]) -> None:
    with pytest.raises(StoredImageError, match="changed"):
        check_exported([layer(*files)], EXPECTED)


@pytest.mark.parametrize(
    "files",
    [
        (*HONEST, HONEST[1]),
        (*HONEST, File("../outside", b"")),
        (File("first", link="lib/code", kind=b"1"), *HONEST),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(files: tuple[File, ...]) -> None:
    with pytest.raises(errors.ContainerError):
        check_exported([layer(*files)], EXPECTED)


@given(data=st.binary(max_size=2000))
def test_arbitrary_bytes_are_refused_with_a_typed_error(data: bytes) -> None:
    with pytest.raises(errors.ContainerError):
        check_exported([data], EXPECTED)
