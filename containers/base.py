"""A base image from Debian packages, where no registry can be reached: `mmdebstrap`, then our tar.

No root is needed: mmdebstrap takes root's rights, user namespaces or fakechroot, whichever it finds
(`mmdebstrap(1)`, section "MODES"), and all give the same files under `SOURCE_DATE_EPOCH`.
"""

import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO

from containers.errors import BaseBuildError, MmdebstrapMissingError
from containers.identity import identify
from containers.platform import ARCHITECTURE, OPERATING_SYSTEM
from containers.programs import run_to_end
from containers.progress import Counter, Progress, silent
from containers.tar import Entry, TarReader, path_parts
from containers.tar_writer import SOURCE_DATE_EPOCH, Member, tar
from containers.tree import read_exactly
from containers.write import Configuration, new_image
from schemas import ImageIdentity

DEFAULT_SUITE = "bookworm"
"""Debian 12: its Python is 3.11, for which the packages are pinned."""

PACKAGES = ("python3", "libstdc++6")
"""Beyond Debian's essential packages: the interpreter, and what compiled extensions are linked to.
"""

SEARCH_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
COMMAND = ("python3",)

EMPTIED = (
    "dev",
    "proc",
    "run",
    "sys",
    "tmp",
    "etc/apt",
    "var/backups",
    "var/cache",
    "var/lib/apt",
    "var/log",
    "var/tmp",
)
"""Folders whose content depends on the host, the mirror or the hour, or is an engine's to make."""

LEFT_OUT = frozenset(
    {
        "etc/.pwd.lock",
        "etc/group-",
        "etc/gshadow-",
        "etc/hostname",
        "etc/machine-id",
        "etc/passwd-",
        "etc/resolv.conf",
        "etc/shadow-",
        "etc/subgid-",
        "etc/subuid-",
        "var/lib/dbus/machine-id",
    }
)

OS_RELEASE = Path("/etc/os-release")
SOURCES = (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list"))
CREDENTIALS = Path("/etc/apt/auth.conf.d")
APT_SETTINGS = "Acquire"
"""The part of apt's settings that says how to reach a mirror: proxies, certificates, retries."""

MAX_FILES = 200_000
MAKING = "making the root file system"
WRITING = "writing the archive"


def build_base(
    output: Path,
    work: Path,
    *,
    suite: str = DEFAULT_SUITE,
    mirrors: Sequence[str] = (),
    progress: Progress = silent,
) -> ImageIdentity:
    """Make a base image with Python from Debian packages.

    Args:
        output: the archive to write.
        work: a folder of the caller's own, with space for about 200 MB.
        suite: name of the Debian release.
        mirrors: where from, as `mmdebstrap` takes it: addresses, lines or files of apt's sources.
            By default the host's own sources if the host runs that release, else Debian's.
        progress: is told how far it is.

    Raises:
        OSError: a file cannot be written.
        MmdebstrapMissingError: mmdebstrap is not installed.
        BaseBuildError: mmdebstrap failed, or made something that is no root file system.
    """
    program = shutil.which("mmdebstrap")
    if program is None:
        raise MmdebstrapMissingError(
            "expected the program mmdebstrap, found none; install it (`apt install mmdebstrap` on "
            "Debian and Ubuntu), or build on a published image with `auditkit image build --base`"
        )
    progress(MAKING)
    root = work / "root.tar"
    _make(program, root, suite, mirrors or host_sources(suite))
    members = _root_members(root)
    counter = Counter(progress, WRITING, sum(member.size for member in members))
    configuration = Configuration(
        ARCHITECTURE, OPERATING_SYSTEM, {"Cmd": list(COMMAND), "Env": [SEARCH_PATH]}
    )
    with new_image(output) as writer:
        writer.add_layer(counter.count(tar(members)))
        writer.finish(configuration)
    return identify(output)


def host_sources(suite: str) -> tuple[str, ...]:
    """Return the file that names this host's Debian mirror, if the host runs that release."""
    if not OS_RELEASE.is_file():
        return ()
    release = OS_RELEASE.read_text(encoding="utf-8").splitlines()
    if f"VERSION_CODENAME={suite}" not in release:
        return ()
    return tuple(str(path) for path in SOURCES if path.is_file())[:1]


def _make(program: str, root: Path, suite: str, mirrors: Iterable[str]) -> None:
    command = [
        *(program, "--variant=essential", f"--architectures={ARCHITECTURE}", "--format=tar"),
        f"--include={','.join(PACKAGES)}",
        *_reach_options(),
        *("--", suite, str(root), *mirrors),
    ]
    run_to_end(
        command,
        {**os.environ, "SOURCE_DATE_EPOCH": str(SOURCE_DATE_EPOCH), "LC_ALL": "C.UTF-8"},
        error=BaseBuildError,
        failure="mmdebstrap failed",
        advice="check the mirror (--mirror) and that user namespaces or fakechroot are available",
    )


def _reach_options() -> Iterator[str]:
    """Hand on how this host reaches mirrors; none of it stays in the image (see `EMPTIED`)."""
    apt_config = shutil.which("apt-config")
    if apt_config:
        settings = subprocess.run(  # noqa: S603 - the program that was just found
            [apt_config, "dump", "--no-empty", APT_SETTINGS],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            check=False,
        )
        yield from (f"--aptopt={line}" for line in settings.stdout.splitlines())
    if CREDENTIALS.is_dir() and any(os.access(file, os.R_OK) for file in CREDENTIALS.iterdir()):
        yield f"--setup-hook=copy-in {CREDENTIALS} /etc/apt/"


class _Seekable:
    """A file as the tar reader wants it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        """Return the next bytes."""
        return self._file.read(size)

    def skip(self, size: int) -> None:
        """Leave out the next bytes."""
        self._file.seek(size, os.SEEK_CUR)


def _root_members(root: Path) -> list[Member]:
    """Return what of mmdebstrap's archive belongs in the image, files before links to them."""
    what = "the root file system"
    members: list[Member] = []
    with root.open("rb") as file:
        for entry in TarReader(_Seekable(file), what, MAX_FILES):
            name = "/".join(path_parts(entry.name, what))
            if name and _belongs(name):
                members += _member(root, name, entry)
    return sorted(members, key=lambda member: (member.kind == "hard link", member.name.encode()))


def _belongs(name: str) -> bool:
    return name not in LEFT_OUT and not any(name.startswith(f"{folder}/") for folder in EMPTIED)


def _member(root: Path, name: str, entry: Entry) -> Iterator[Member]:
    match entry.kind:
        case "file":
            content = partial(read_exactly, root, entry.offset, entry.size)
            yield Member(
                name=name,
                kind="file",
                mode=entry.mode,
                size=entry.size,
                content=content,
                user=entry.user,
                group=entry.group,
            )
        case "directory" | "symbolic link" | "hard link":
            link = entry.link
            if entry.kind == "hard link":
                link = "/".join(path_parts(link, "the root file system"))
            yield Member(
                name=name,
                kind=entry.kind,
                mode=entry.mode,
                link=link,
                user=entry.user,
                group=entry.group,
            )
        case _:
            return  # devices and sockets are the engine's to make
