"""What a process can see of its own confinement: proc(5) of itself, read by pure functions."""

import re
import socket
from pathlib import Path

from developer_agent.errors import AgentError
from schemas import InsideView

STATUS = Path("/proc/self/status")
MOUNTS = Path("/proc/self/mountinfo")
INTERFACES = Path("/proc/self/net/dev")

READ_ONLY = "ro"
INTERFACE_HEADER_LINES = 2
_OCTAL = re.compile(r"\\([0-7]{3})")


class ProcessViewError(AgentError):
    """The kernel tells about this process in a form that is not understood."""


def look_around() -> InsideView:
    """Return what this process sees of the container that it runs in.

    Raises:
        ProcessViewError: a file of /proc is missing or of another form; nothing is guessed.
    """
    return inside_view(
        hostname=socket.gethostname(),
        status=_read(STATUS),
        mounts=_read(MOUNTS),
        interfaces=_read(INTERFACES),
    )


def inside_view(hostname: str, status: str, mounts: str, interfaces: str) -> InsideView:
    """As `look_around`, from the texts of the three files.

    Raises:
        ProcessViewError: a field is missing or of another form.
    """
    fields = parse_status(status)
    return InsideView(
        hostname=hostname,
        uid=_identity(fields, "Uid"),
        gid=_identity(fields, "Gid"),
        effective_capabilities=_capabilities(fields, "CapEff"),
        bounding_capabilities=_capabilities(fields, "CapBnd"),
        no_new_privileges=_number(fields, "NoNewPrivs") == 1,
        seccomp_mode=_number(fields, "Seccomp"),
        network_interfaces=parse_interfaces(interfaces),
        writable_mounts=parse_writable_mounts(mounts),
    )


def parse_status(text: str) -> dict[str, str]:
    """Return the fields of /proc/<pid>/status, proc_pid_status(5)."""
    fields = {}
    for line in _lines(text):
        name, colon, value = line.partition(":")
        if colon:
            fields[name] = value.strip()
    return fields


def parse_writable_mounts(text: str) -> tuple[str, ...]:
    """Return the mount points of /proc/<pid>/mountinfo that are not mounted read-only, sorted.

    Counted are the options of the mount and not those of its file system, which other mounts share
    (proc_pid_mountinfo(5), fields 5 and 6).

    Raises:
        ProcessViewError: a line has fewer fields.
    """
    writable = set()
    for line in _lines(text):
        fields = line.split(" ")
        if len(fields) < 6:
            raise ProcessViewError(
                f"expected a line of {MOUNTS} to have six fields or more, found {line[:200]!r}"
            )
        if READ_ONLY not in fields[5].split(","):
            writable.add(_unescaped(fields[4]))
    return tuple(sorted(writable))


def parse_interfaces(text: str) -> tuple[str, ...]:
    """Return the names of the network interfaces in /proc/<pid>/net/dev, sorted.

    Raises:
        ProcessViewError: a line names none.
    """
    names = []
    for line in _lines(text)[INTERFACE_HEADER_LINES:]:
        name, colon, _ = line.rpartition(":")
        if not colon:
            raise ProcessViewError(
                f"expected a line of {INTERFACES} to name an interface, found {line[:200]!r}"
            )
        names.append(name.strip())
    return tuple(sorted(names))


def _lines(text: str) -> list[str]:
    """Split at newlines alone; a name may hold what Python takes for other ends of lines."""
    return text.removesuffix("\n").split("\n") if text else []


def _unescaped(path: str) -> str:
    """Undo the kernel's escapes: space, tab, newline and backslash as three octal digits."""
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), path)


def _identity(fields: dict[str, str], name: str) -> int:
    """Return the least of the real, effective, saved and file-system identity: 0 if any is."""
    try:
        return min(int(number) for number in fields[name].split())
    except (KeyError, ValueError) as error:
        raise _unreadable(fields, name) from error


def _number(fields: dict[str, str], name: str) -> int:
    try:
        return int(fields[name])
    except (KeyError, ValueError) as error:
        raise _unreadable(fields, name) from error


def _capabilities(fields: dict[str, str], name: str) -> str:
    found = fields.get(name, "")
    if not re.fullmatch(r"[0-9a-f]{16}", found):
        raise _unreadable(fields, name)
    return found


def _unreadable(fields: dict[str, str], name: str) -> ProcessViewError:
    return ProcessViewError(
        f"expected the field {name} in {STATUS}, found {fields.get(name)!r}; this needs a Linux "
        "kernel of version 4.10 or later with seccomp"
    )


def _read(path: Path) -> str:
    try:
        # Paths are bytes; those that are no UTF-8 must not stop the look at all others.
        return path.read_bytes().decode(errors="backslashreplace")
    except OSError as error:
        raise ProcessViewError(
            f"cannot read {path}: {error.strerror}; /proc must be mounted in the container"
        ) from error
