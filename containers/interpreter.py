"""The image's own Python, run from its unpacked files: no engine, no rights, no chroot.

The image's loader is started with the image's libraries (`ld.so(8)`), so nothing of the host's C
library or Python has a part in what it computes.
"""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from containers.errors import BasePythonError
from containers.platform import PYTHON_VERSION
from containers.unpack import resolve

LOADER = "/lib64/ld-linux-x86-64.so.2"
"""Where every x86-64 system with the GNU C library has its loader (System V ABI, AMD64)."""

LIBRARIES = (
    "/usr/local/lib",
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib64",
    "/usr/lib64",
)
PROGRAM_FOLDERS = ("/usr/local/bin", "/usr/bin", "/bin")
ENVIRONMENT = {"PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"}
OPTIONS = ("-s", "-P", "-W", "ignore")
"""No packages of the user or of the script's folder. `-I` would also ignore the hash seed."""

VERSION_PROGRAM = "import sys; print('%d.%d' % sys.version_info[:2])"
SECONDS_TO_START = 60


@dataclass(frozen=True)
class Interpreter:
    """A Python in an unpacked image; `command` starts it, and takes what Python takes."""

    command: tuple[str, ...]

    def run(self, *arguments: str) -> list[str]:
        """Return the whole command for these arguments; it needs `ENVIRONMENT` as its own."""
        return [*self.command, *OPTIONS, *arguments]


def find_interpreter(root: Path) -> Interpreter:
    """Return the Python of an unpacked image, after trying it.

    Args:
        root: the folder that the image is unpacked in.

    Raises:
        BasePythonError: there is none, it is another version, or it cannot be run here.
    """
    loader = resolve(root, LOADER)
    places = (resolve(root, f"{folder}/python3") for folder in PROGRAM_FOLDERS)
    program = next((place for place in places if place.is_file()), None)
    if program is None or not loader.is_file():
        raise BasePythonError(
            f"expected a base with `python3` in {', '.join(PROGRAM_FOLDERS)} and with the GNU C "
            "library, found one without; take a slim Python image, or make a base with "
            "`auditkit image base`"
        )
    libraries = ":".join(str(resolve(root, folder)) for folder in LIBRARIES)
    interpreter = Interpreter(
        (
            str(loader),
            "--inhibit-cache",
            "--library-path",
            libraries,
            "--argv0",
            str(program),
            str(program),
        )
    )
    version = _version(interpreter)
    if version != PYTHON_VERSION:
        raise BasePythonError(
            f"expected a base with Python {PYTHON_VERSION}, for which the packages are pinned, "
            f"found {version[:40]!r}"
        )
    return interpreter


def _version(interpreter: Interpreter) -> str:
    try:
        done = subprocess.run(  # noqa: S603 - the image that the user chose to build on
            interpreter.run("-c", VERSION_PROGRAM),
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS_TO_START,
            check=True,
        )
    except OSError as error:
        raise BasePythonError(
            f"the Python of the base cannot be started: {error}. An x86-64 Linux machine is "
            "needed, and a work folder on a file system that allows programs (not `noexec`)"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise BasePythonError("the Python of the base does not start; take another base") from error
    except subprocess.CalledProcessError as error:
        raise BasePythonError(
            f"the Python of the base does not start (exit code {error.returncode}): "
            f"{error.stderr.strip()[-500:]}"
        ) from error
    return done.stdout.strip()
