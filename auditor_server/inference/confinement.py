"""What a worker may reach, once it is ready to open what others sent.

Nothing here needs privileges, and all of it holds until the process ends:

* seccomp: no new connection, no program, no other process (Linux 3.17);
* Landlock: of all files, libraries and submitted files alone, and nothing to be written (Linux
  5.13, unless the administrator turned it off).

What the kernel does not offer is left out, and the server is told.
"""

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from auditor_server.inference.messages import Ready

PR_SET_NO_NEW_PRIVS = 38  # <linux/prctl.h>

# <linux/seccomp.h>
SECCOMP_SET_MODE_FILTER = 1
SECCOMP_FILTER_FLAG_TSYNC = 1
KILL_PROCESS, RETURN_ERROR, ALLOW = 0x80000000, 0x00050000, 0x7FFF0000

# <linux/bpf_common.h>: load a word of `struct seccomp_data`, compare it, return.
LOAD, IF_EQUAL, IF_AT_LEAST, IF_BITS, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16  # offsets in it
INSTRUCTION = struct.Struct("=HBBI")

CLONE_THREAD = 0x00010000
# Numbers from here on are those of the x32 calls, a second way to do everything.
X32_CALLS = 0x40000000

# <linux/landlock.h>, version 1, which every later one understands.
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
RULESET_VERSION = 1
PATH_BENEATH = 1
EVERY_ACCESS = (1 << 13) - 1
READ_FILE, READ_FOLDER = 1 << 2, 1 << 3

# What the C library, Python and torch read at any time. Without the description of the processor,
# torch computes as on the least one, which gives other last bits.
SYSTEM_PATHS = (
    "/usr",
    "/lib",
    "/lib64",
    "/etc/ld.so.cache",
    "/proc/self",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/sys/devices/system",
)


@dataclass(frozen=True)
class _Calls:
    """Numbers of system calls on one architecture (<asm/unistd.h>)."""

    architecture: int  # <linux/audit.h>
    seccomp: int
    clone: int
    on_processes: tuple[int, ...]  # prlimit64 and tgkill: first argument is a process
    refused: tuple[int, ...]


# refused: socket socketpair connect bind listen accept accept4 io_uring_setup; execve execveat;
# kill tkill rt_sigqueueinfo rt_tgsigqueueinfo pidfd_send_signal pidfd_open pidfd_getfd; ptrace
# process_vm_readv process_vm_writev; unshare setns mount open_by_handle_at; bpf perf_event_open
# userfaultfd; add_key request_key keyctl; on x86-64 fork and vfork.
# fmt: off
CALLS = {
    "x86_64": _Calls(
        architecture=0xC000003E, seccomp=317, clone=56, on_processes=(302, 234),
        refused=(
            41, 53, 42, 49, 50, 43, 288, 425, 59, 322, 62, 200, 129, 297, 424, 434, 438, 101, 310,
            311, 272, 308, 165, 304, 321, 298, 323, 248, 249, 250, 57, 58,
        ),
    ),
    "aarch64": _Calls(
        architecture=0xC00000B7, seccomp=277, clone=220, on_processes=(261, 131),
        refused=(
            198, 199, 203, 200, 201, 202, 242, 425, 221, 281, 129, 130, 138, 240, 424, 434, 438,
            117, 270, 271, 97, 268, 40, 265, 280, 241, 282, 217, 218, 219,
        ),
    ),
}
# fmt: on
CLONE3 = 435  # everywhere; its flags lie in memory, where a filter cannot look


def confine(blobs: Path) -> Ready:
    """Give up everything that the work does not need; tell what the kernel could hold us to.

    Args:
        blobs: the folder of submitted files, in the auditor's home.

    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return Ready(network_closed=False, files_closed=False)
    # Landlock holds for the thread that asks for it and for those that it starts.
    alone = len(os.listdir("/proc/self/task")) == 1  # noqa: PTH208 - names only
    files_closed = alone and _close_files(libc, blobs)
    return Ready(network_closed=_close_network(libc), files_closed=files_closed)


def _close_files(libc: ctypes.CDLL, blobs: Path) -> bool:
    handled = ctypes.c_uint64(EVERY_ACCESS)
    rules = libc.syscall(CREATE_RULESET, ctypes.byref(handled), ctypes.sizeof(handled), 0)
    if rules < 0:
        return False
    for path in _readable(blobs):
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        access = READ_FILE | READ_FOLDER if path.is_dir() else READ_FILE
        rule = struct.pack("=Qi", access, descriptor)
        added = libc.syscall(ADD_RULE, rules, PATH_BENEATH, rule, 0)
        os.close(descriptor)
        if added != 0:
            os.close(rules)
            return False
    done: int = libc.syscall(RESTRICT_SELF, rules, 0)
    os.close(rules)
    return done == 0


def _readable(blobs: Path) -> Iterator[Path]:
    home = blobs.resolve().parent
    yield blobs
    for place in {*SYSTEM_PATHS, sys.prefix, sys.base_prefix, *sys.path}:
        path = Path(place).resolve()
        # A folder that holds the home would open its keys and its database.
        if path.exists() and not home.is_relative_to(path):
            yield path


def _close_network(libc: ctypes.CDLL) -> bool:
    calls = CALLS.get(platform.machine())
    if calls is None:
        return False
    program = b"".join(INSTRUCTION.pack(*step) for step in _program(calls, os.getpid()))
    buffer = ctypes.create_string_buffer(program, len(program))

    class _Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_void_p))

    found = _Program(len(program) // INSTRUCTION.size, ctypes.addressof(buffer))
    mode, flags = SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC
    done: int = libc.syscall(calls.seccomp, mode, flags, ctypes.byref(found))
    return done == 0


def _program(calls: _Calls, process: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield a filter in classic BPF: (code, steps to skip if so, if not so, operand)."""
    refuse = (RETURN, 0, 0, RETURN_ERROR | errno.EPERM)
    allow = (RETURN, 0, 0, ALLOW)
    yield LOAD, 0, 0, ARCHITECTURE
    yield IF_EQUAL, 1, 0, calls.architecture
    yield RETURN, 0, 0, KILL_PROCESS
    yield LOAD, 0, 0, NUMBER
    yield IF_AT_LEAST, 0, 1, X32_CALLS
    yield refuse
    for number in calls.refused:
        yield IF_EQUAL, 0, 1, number
        yield refuse
    # The C library then starts its threads by `clone`, as on an older kernel.
    yield IF_EQUAL, 0, 1, CLONE3
    yield RETURN, 0, 0, RETURN_ERROR | errno.ENOSYS
    yield IF_EQUAL, 0, 4, calls.clone
    yield LOAD, 0, 0, FIRST_ARGUMENT
    yield IF_BITS, 0, 1, CLONE_THREAD
    yield allow
    yield refuse
    for number in calls.on_processes:
        yield IF_EQUAL, 0, 5, number
        yield LOAD, 0, 0, FIRST_ARGUMENT
        yield IF_EQUAL, 1, 0, 0  # oneself, for prlimit64
        yield IF_EQUAL, 0, 1, process
        yield allow
        yield refuse
    yield allow
