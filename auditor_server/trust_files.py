"""A trust root on disk: the newest version that was accepted, and beside it the ones before.

    trust-root.json                      DSSE, the newest version; this one is trusted
    trust-root.versions/000001.json      earlier versions, proven by the newest

The auditor's home and everybody who pins the auditor's trust root keep it in this form.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path

from auditkit.evidence.trust import read_trust_root
from auditkit.evidence.trust_history import TrustHistory

VERSIONS_SUFFIX = ".versions"
# Histories read again only when a file has changed; a server has one, a test run a few.
HISTORIES_IN_MEMORY = 8


@dataclass(frozen=True)
class TrustFile:
    """Where a trust root lies."""

    path: Path

    @property
    def versions_folder(self) -> Path:
        """Where the earlier versions lie, if there are any."""
        return self.path.with_name(self.path.stem + VERSIONS_SUFFIX)

    def read(self) -> TrustHistory:
        """Read the trusted version, and the others that it proves.

        Raises:
            TrustRootError: a file is not what it should be.
            OSError: it cannot be read.

        """
        trusted = self.path.read_bytes()
        others = (
            sorted(self.versions_folder.glob("*.json")) if self.versions_folder.is_dir() else ()
        )
        return _history(trusted, tuple(path.read_bytes() for path in others))

    def update(self, others: Sequence[bytes], now: datetime) -> TrustHistory:
        """Take over newer versions, after all checks, and never older ones (TUF, section 5.3).

        The trusted file is exchanged last and at once, so a crash leaves the old or the new one.

        Raises:
            TrustRootError: the versions do not follow from the trusted one; nothing has changed.
            OSError: a file cannot be read or written.

        """
        known = self.read()
        updated = known.updated(others, now)
        if updated.current == known.current:
            return updated
        self.versions_folder.mkdir(exist_ok=True)
        for version in updated.versions[:-1]:
            if version.envelope is not None:
                name = f"{version.root.version:06}.json"
                write_durably(self.versions_folder / name, version.envelope.to_bytes())
        newest = updated.versions[-1].envelope
        if newest is not None:
            write_durably(self.path, newest.to_bytes())
        return updated


def newer_versions(documents: Sequence[bytes]) -> list[bytes]:
    """Return trust roots from several files in the order in which a history takes them.

    Raises:
        TrustRootError: one of them is no trust root.

    """
    return sorted(documents, key=lambda data: read_trust_root(data)[1].version)


def write_durably(path: Path, data: bytes) -> None:
    """Write a file so that after a crash it holds all of the old content or all of the new."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@lru_cache(maxsize=HISTORIES_IN_MEMORY)
def _history(trusted: bytes, others: tuple[bytes, ...]) -> TrustHistory:
    # By content, so a file that changes is read anew at once.
    return TrustHistory.open(trusted, others)
