"""What the system tells about processes."""

from contextlib import suppress
from pathlib import Path


def children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError):  # a thread that has just ended
            found += map(int, (task / "children").read_text().split())
    return found


def has_loaded_torch(pid: int) -> bool:
    return "libtorch" in Path(f"/proc/{pid}/maps").read_text()


def model_workers(pid: int) -> list[int]:
    return [child for child in children(pid) if has_loaded_torch(child)]


def status_fields(pid: int) -> list[str]:
    """Those after the name, the state first (proc_pid_stat(5))."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def state(pid: int) -> str:
    return status_fields(pid)[0]


def processor_ticks(pid: int) -> int:
    return sum(map(int, status_fields(pid)[11:13]))
