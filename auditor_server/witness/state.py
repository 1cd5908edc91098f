"""What a witness has cosigned: one row per log, changed only by a synced, atomic transaction."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path

from auditkit.evidence.witnessing import LogState
from auditor_server.errors import ServerError

# How long one request waits for another one before it is refused.
BUSY_TIMEOUT_SECONDS = 30.0
_TABLE = """
CREATE TABLE logs (
    origin TEXT PRIMARY KEY,
    digest TEXT NOT NULL UNIQUE,
    size INTEGER NOT NULL,
    root BLOB NOT NULL,
    time INTEGER NOT NULL,
    note BLOB NOT NULL
)"""
_STORE = """
INSERT INTO logs (origin, digest, size, root, time, note) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (origin) DO UPDATE SET
    size = excluded.size, root = excluded.root, time = excluded.time, note = excluded.note"""


class WitnessStateError(ServerError):
    """The state file is not there or can't be used; without it nothing may be cosigned."""

    status = HTTPStatus.INTERNAL_SERVER_ERROR


@dataclass
class LockedLog:
    """One log inside a transaction. What is stored counts once the transaction has ended."""

    origin: str
    state: LogState
    _connection: sqlite3.Connection = field(repr=False)

    def store(self, state: LogState, note: bytes) -> None:
        """Replace the log's state.

        Args:
            state: of the checkpoint that is about to be cosigned.
            note: that checkpoint with the log's signatures and the witness's own.
        """
        digest = origin_digest(self.origin)
        row = (self.origin, digest, state.size, state.root, state.time, note)
        self._connection.execute(_STORE, row)


@dataclass(frozen=True)
class WitnessedLog:
    """The latest checkpoint of a log that was cosigned."""

    origin: str
    size: int
    time: int


@dataclass(frozen=True)
class WitnessState:
    """The state file of one witness. Several threads and processes may use it at once."""

    path: Path

    @classmethod
    def create(cls, path: Path) -> "WitnessState":
        """Make an empty state file.

        Raises:
            WitnessStateError: there is one already.

        """
        if path.exists():
            raise WitnessStateError(f"{path} is there already; it must never start anew")
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(_TABLE)
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> "WitnessState":
        """Open the state file. A lost one is not replaced: that would forget what was cosigned.

        Raises:
            WitnessStateError: it is not there, or damaged.

        """
        state = cls(path)
        if not path.is_file():
            raise WitnessStateError(
                f"{path} is not there; this witness no longer knows what it has cosigned. Make "
                "another one, with a new key, by `auditkit witness init`"
            )
        state.logs()
        return state

    @contextmanager
    def locked(self, origin: str) -> Iterator[LockedLog]:
        """Lock the state while one request about a log is judged.

        At the end of the block everything stored is committed and synced to the disk; if the block
        raises, nothing has changed. Nobody else reads or changes the log in between.

        Raises:
            WitnessStateError: the file can't be read or written.

        """
        with self._connected() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                row = connection.execute(
                    "SELECT size, root, time FROM logs WHERE origin = ?", (origin,)
                ).fetchone()
                yield LockedLog(origin, LogState(*row) if row else LogState(), connection)
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    def latest(self, digest: str) -> bytes | None:
        """Return the latest cosigned checkpoint of the log with this origin digest."""
        with self._connected() as connection:
            row = connection.execute("SELECT note FROM logs WHERE digest = ?", (digest,)).fetchone()
        return bytes(row[0]) if row else None

    def logs(self) -> Sequence[WitnessedLog]:
        """Return the logs that were ever cosigned, by origin."""
        with self._connected() as connection:
            rows = connection.execute("SELECT origin, size, time FROM logs ORDER BY origin")
            return [WitnessedLog(*row) for row in rows]

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        # `mode=rw` never makes a new file, as SQLite would otherwise do in place of a lost one.
        address = f"{self.path.resolve().as_uri()}?mode=rw"
        try:
            with closing(
                sqlite3.connect(
                    address, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None, uri=True
                )
            ) as connection:
                # A commit is on the disk before it returns.
                connection.execute("PRAGMA synchronous = FULL")
                yield connection
        except sqlite3.Error as error:
            raise WitnessStateError(f"the state file {self.path} can't be used: {error}") from error


def origin_digest(origin: str) -> str:
    """Return SHA-256 of an origin, lower-case hexadecimal: where its checkpoint is served."""
    return sha256(origin.encode()).hexdigest()
