"""The pinned packages of the image, from wheels, installed without root, chroot or engine.

The host's own pip does it, for the image's platform: so the user's index, cache, proxy and
certificates are used as always, and none of them gets into the image.
"""

import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path

from containers.errors import PipMissingError, WheelInstallError
from containers.platform import PYTHON_VERSION
from containers.programs import run_to_end
from containers.progress import Progress, silent

REQUIREMENTS = Path(__file__).parent / "requirements.txt"
PHASE = "installing the pinned packages"

PYTHON_TAG = "cp" + PYTHON_VERSION.replace(".", "")
APPLICATION_INTERFACES = (PYTHON_TAG, "abi3", "none")
PLATFORMS = (
    # Every glibc that Debian 12's 2.36 can serve, the newest first (PEP 600), and the older names.
    *(f"manylinux_2_{minor}_x86_64" for minor in range(36, 4, -1)),
    "manylinux2014_x86_64",
    "manylinux2010_x86_64",
    "manylinux1_x86_64",
)

PROGRAMS = "bin"
"""Start scripts; they name the host's Python, and the image starts nothing by them."""

HOST_DEPENDENT = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")
"""What an installer notes about itself and its source (PEP 376, PEP 610)."""


def install(requirements: Path, target: Path, progress: Progress = silent) -> None:
    """Install pinned, hashed wheels into a folder, as a Python of the image will read them.

    Args:
        requirements: names, versions and hashes of all packages, none left to be resolved.
        target: the folder; is made.
        progress: is told that it has begun.

    Raises:
        OSError: the folder cannot be written to.
        PipMissingError: this Python has no pip.
        WheelInstallError: pip failed: no connection, a wheel that is not there, another hash.
    """
    if importlib.util.find_spec("pip") is None:
        raise PipMissingError(
            f"expected pip in {sys.executable}, found none; add it with `python3 -m ensurepip` or "
            "with the package python3-pip of your system"
        )
    progress(PHASE)
    target.mkdir(parents=True)
    _run_pip(requirements, target)
    shutil.rmtree(target / PROGRAMS, ignore_errors=True)
    for information in target.glob("*.dist-info"):
        for name in HOST_DEPENDENT:
            (information / name).unlink(missing_ok=True)


def _run_pip(requirements: Path, target: Path) -> None:
    command = [
        *(sys.executable, "-m", "pip", "install", "--target", str(target)),
        *("--no-deps", "--no-compile", "--require-hashes", "--only-binary=:all:"),
        *("--implementation", "cp", "--python-version", PYTHON_VERSION),
        *(part for tag in APPLICATION_INTERFACES for part in ("--abi", tag)),
        *(part for tag in PLATFORMS for part in ("--platform", tag)),
        *("--no-input", "--progress-bar", "off", "--disable-pip-version-check"),
        *("-r", str(requirements)),
    ]
    # pip unpacks elsewhere and then moves; across file systems that would copy gigabytes.
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
        environment = {
            **os.environ,
            "TMPDIR": temporary,
            # A user's defaults that contradict --target.
            "PIP_USER": "0",
            "PIP_REQUIRE_VIRTUALENV": "0",
        }
        run_to_end(
            command,
            environment,
            error=WheelInstallError,
            failure="pip could not install the pinned packages",
            advice="check its index and the connection",
        )
