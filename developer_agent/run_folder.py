"""Where one supervised run lives on the developer's disk.

| name | what it is |
|---|---|
| `trust-root.dsse.json` | the auditor's keys, as pinned when the run began |
| `order.dsse.json`, `request.json`, `grant.dsse.json` | what was ordered, asked for and granted |
| `session.key.pem`, `manifest.key` | secrets of this run; they never leave the disk |
| `continuations/` | requests to go on in a fresh container, and the auditor's answers |
| `spool.jsonl` | what happened, in the order in which it happened |
| `records.jsonl` | the session's log: the same records with the receipts between them |
| `checkpoints.jsonl` | the notes that the auditor cosigned, one JSON string per line |
| `pending.json` | the flush that was signed and is not acknowledged yet |
| `states/` | training states to resume from |
| `model/` | what is submitted: weights, description, calibration scores |
| `lock` | held while a process works on the run |
| `launch.lock` | held while a launcher watches the run's container |
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from developer_agent.disk import (
    PRIVATE_MODE,
    PUBLIC_MODE,
    is_temporary,
    remove_durably,
    remove_temporaries,
    sync_folder,
    write_atomically,
)
from developer_agent.errors import DiskWriteError, RunFileMissingError, RunLockedError
from schemas import SessionRequest

LOCK, LAUNCH_LOCK = "lock", "launch.lock"
_FOLDER_MODE = 0o700  # the pool's keys and the model are the developer's secrets


class StoredFile:
    """One file of a run, always replaced as a whole."""

    def __init__(self, path: Path, mode: int = PUBLIC_MODE) -> None:
        self.path = path
        self._mode = mode

    def exists(self) -> bool:
        """Tell whether it has been written."""
        return self.path.is_file()

    def read(self) -> bytes:
        """Return its content.

        Raises:
            RunFileMissingError: it has not been written.
        """
        try:
            return self.path.read_bytes()
        except FileNotFoundError as error:
            raise RunFileMissingError(
                f"{self.path} is missing: this run has not got that far, or {self.path.parent} is "
                "not the folder of a run"
            ) from error

    def write(self, data: bytes) -> None:
        """Replace its content; a crash leaves the old one or the new one.

        Raises:
            DiskWriteError: the disk is full or the folder not writable.
        """
        write_atomically(self.path, data, self._mode)

    def delete(self) -> None:
        """Remove it durably; it may be missing.

        Raises:
            DiskWriteError: it can't be removed; calling again is safe.
        """
        remove_durably(self.path)


class RunFolder:
    """The files of one run, by name. Making one of these objects does not touch the disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.states = path / "states"
        self.continuations = path / "continuations"
        self.spool_path = path / "spool.jsonl"
        self.records_path = path / "records.jsonl"
        self.checkpoints_path = path / "checkpoints.jsonl"
        self.trust_root = StoredFile(path / "trust-root.dsse.json")
        self.trust_roots = path / "trust-roots"  # later versions, fetched while the run goes on
        self.order = StoredFile(path / "order.dsse.json")
        self.request = StoredFile(path / "request.json")
        self.grant = StoredFile(path / "grant.dsse.json")
        self.session_key = StoredFile(path / "session.key.pem", PRIVATE_MODE)
        self.manifest_key = StoredFile(path / "manifest.key", PRIVATE_MODE)
        self.pending = StoredFile(path / "pending.json")
        self.weights = StoredFile(path / "model" / "weights.safetensors")
        self.description = StoredFile(path / "model" / "description.json")
        self.scores = StoredFile(path / "model" / "scores.safetensors")

    @classmethod
    def create(cls, path: Path) -> "RunFolder":
        """Make the folder and its parts; an existing run is opened as it is.

        Raises:
            DiskWriteError: the folder can't be made.
        """
        folder = cls(path)
        try:
            path.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
            folder.states.mkdir(exist_ok=True)
            folder.weights.path.parent.mkdir(exist_ok=True)
            sync_folder(path)
            sync_folder(path.parent)
        except OSError as error:
            raise DiskWriteError(
                f"cannot make the run folder {path}: {error.strerror}; choose another one"
            ) from error
        return folder

    def strangers(self) -> list[str]:
        """Return the names of what lies in the folder and is no part of a run, sorted."""
        if not self.path.is_dir():
            return []
        members = [one.path if isinstance(one, StoredFile) else one for one in vars(self).values()]
        own = {one.relative_to(self.path).parts[0] for one in members if one != self.path}
        own |= {LOCK, LAUNCH_LOCK}
        return sorted(
            one.name for one in self.path.iterdir() if one.name not in own and not is_temporary(one)
        )

    @property
    def of_container(self) -> bool:
        """True when the session was asked for in a container, whose key is not kept here."""
        if not self.request.exists():
            return False
        return SessionRequest.from_bytes(self.request.read()).container is not None

    def state(self, name: str) -> StoredFile:
        """Return the file of one training state."""
        return StoredFile(self.states / name)

    def continuation_request(self, number: int) -> StoredFile:
        """Return what was asked for the continuation of this number; the first is 1."""
        return StoredFile(self.continuations / f"{number:03d}.request.json")

    def continuation(self, number: int) -> StoredFile:
        """Return the auditor's answer to the request of this number, a DSSE envelope."""
        return StoredFile(self.continuations / f"{number:03d}.dsse.json")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep every other process, and every other part of this one, off this run.

        Leftovers of a crash are removed.

        Raises:
            RunLockedError: somebody else holds the lock.
            RunFileMissingError: there is no such run.
            DiskWriteError: the lock can't be made, or a leftover can't be removed.
        """
        with self._locked(LOCK):
            for folder in (
                self.path,
                self.states,
                self.continuations,
                self.weights.path.parent,
            ):
                remove_temporaries(folder)
            yield

    @contextmanager
    def launch_lock(self) -> Iterator[None]:
        """Keep other launchers off this run, while its container holds the run's own lock.

        Raises:
            RunLockedError: somebody else holds the lock.
            RunFileMissingError: there is no such run.
        """
        with self._locked(LAUNCH_LOCK):
            yield

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """Hold a lock, which the system releases when this process ends, however it ends."""
        try:
            descriptor = os.open(
                self.path / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PUBLIC_MODE
            )
        except FileNotFoundError as error:
            raise RunFileMissingError(
                f"{self.path} is no run folder; `auditkit train` makes one"
            ) from error
        except OSError as error:
            raise self._unlockable(name, error) from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip() or "unknown"
                raise RunLockedError(
                    f"{self.path} is in use by process {holder}; wait until it ends, or stop it"
                ) from error
            try:
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            except OSError as error:
                raise self._unlockable(name, error) from error
            yield
        finally:
            os.close(descriptor)

    def _unlockable(self, name: str, error: OSError) -> DiskWriteError:
        return DiskWriteError(
            f"cannot lock {self.path / name}: {error.strerror}; make room or check the folder's "
            "permissions, then try again"
        )
