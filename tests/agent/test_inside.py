"""What the agent sees of its own confinement, from texts as the kernel writes them."""

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditkit.evidence import containment
from developer_agent.inside import (
    ProcessViewError,
    inside_view,
    look_around,
    parse_interfaces,
    parse_writable_mounts,
)
from tests.evidence.contained import description

STATUS = """\
Name:\tpython3
Umask:\t0022
State:\tR (running)
Uid:\t1000\t1000\t1000\t1000
Gid:\t1000\t1000\t1000\t1000
CapPrm:\t0000000000000000
CapEff:\t0000000000000000
CapBnd:\t0000000000000000
NoNewPrivs:\t1
Seccomp:\t2
Seccomp_filters:\t1
"""
MOUNTS = """\
601 530 0:46 / / ro,relatime master:225 - overlay overlay rw,lowerdir=/l/A:/l/B,upperdir=/u
602 601 0:49 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw
603 601 0:50 / /dev rw,nosuid - tmpfs tmpfs rw,size=65536k,mode=755
604 603 0:51 / /dev/pts rw,nosuid,noexec,relatime - devpts devpts rw,gid=5,mode=620
605 601 0:52 / /sys ro,nosuid,nodev,noexec,relatime - sysfs sysfs ro
606 601 0:53 / /tmp rw,nosuid,nodev,noexec - tmpfs tmpfs rw,size=1g
607 601 254:0 /home/d/run /output rw,relatime - ext4 /dev/vda rw
608 601 254:0 /run/relay /run/auditkit ro,relatime - ext4 /dev/vda rw
531 602 0:49 /bus /proc/bus ro,nosuid,nodev,noexec,relatime - proc proc rw
532 602 0:54 / /proc/acpi ro,relatime - tmpfs tmpfs ro
"""
INTERFACES = """\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop
    lo:       0       0    0    0    0     0          0         0        0       0    0    0
"""


def test_a_locked_down_container_is_seen_as_one() -> None:
    report = description(1)
    view = inside_view(report.container_id[:12], STATUS, MOUNTS, INTERFACES)
    assert (view.uid, view.gid, view.no_new_privileges, view.seccomp_mode) == (1000, 1000, True, 2)
    assert view.network_interfaces == ("lo",)
    assert view.writable_mounts == ("/dev", "/dev/pts", "/output", "/proc", "/tmp")
    containment.check_inside(report, view)


@pytest.mark.parametrize(
    ("found", "changed", "attribute", "value"),
    [
        ("Uid:\t1000\t1000", "Uid:\t1000\t0", "uid", 0),
        ("Gid:\t1000\t1000\t1000", "Gid:\t1000\t1000\t0", "gid", 0),
        ("CapBnd:\t0000", "CapBnd:\t00ff", "bounding_capabilities", "00ff000000000000"),
        ("NoNewPrivs:\t1", "NoNewPrivs:\t0", "no_new_privileges", False),
        ("Seccomp:\t2", "Seccomp:\t0", "seccomp_mode", 0),
    ],
)
def test_every_right_that_is_left_is_seen(
    found: str, changed: str, attribute: str, value: object
) -> None:
    view = inside_view("host", STATUS.replace(found, changed), MOUNTS, INTERFACES)
    assert getattr(view, attribute) == value


@pytest.mark.parametrize("field", ["Uid", "Gid", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp"])
@pytest.mark.parametrize("line", ["", "{field}:\t\n", "{field}:\tnone\n"])
def test_a_field_that_cannot_be_read_is_never_guessed(field: str, line: str) -> None:
    lines = [
        line.format(field=field) if found.startswith(f"{field}:") else found
        for found in STATUS.splitlines(keepends=True)
    ]
    with pytest.raises(ProcessViewError, match=field):
        inside_view("host", "".join(lines), MOUNTS, INTERFACES)


def escaped(path: str) -> str:
    """As the kernel escapes a mount point."""
    return "".join(f"\\{ord(c):03o}" if c in " \t\n\\" else c for c in path)


PATHS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).map(
    lambda name: f"/{name}"
)


@given(st.dictionaries(PATHS, st.booleans(), max_size=8))
def test_every_writable_mount_is_named_whatever_it_is_called(mounts: dict[str, bool]) -> None:
    text = "".join(
        f"{number} 1 0:1 / {escaped(path)} {'rw' if writable else 'ro'},nodev - ext4 /dev/x rw\n"
        for number, (path, writable) in enumerate(mounts.items())
    )
    expected = sorted(path for path, writable in mounts.items() if writable)
    assert parse_writable_mounts(text) == tuple(expected)


def test_a_mount_that_only_has_ro_in_a_name_is_writable() -> None:
    line = "1 1 0:1 / /x rw,errors=remount-ro - ext4 /dev/x ro\n"
    assert parse_writable_mounts(line) == ("/x",)


def test_lines_of_another_form_are_errors() -> None:
    with pytest.raises(ProcessViewError, match="six fields"):
        parse_writable_mounts("36 35 98:0 /\n")
    with pytest.raises(ProcessViewError, match="interface"):
        parse_interfaces(INTERFACES + "no colon\n")


def test_interfaces_may_have_colons_in_their_names() -> None:
    names = parse_interfaces(INTERFACES + "eth0:1: 0 0\n  eth0:12 0\n")
    assert names == ("eth0", "eth0:1", "lo")


def test_this_process_sees_itself() -> None:
    view = look_around()
    assert view.hostname == socket.gethostname()
    assert "lo" in view.network_interfaces
    assert view.writable_mounts
