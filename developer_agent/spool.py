"""An append-only file of lines that survives crashes: one record is one line.

Appending costs one `write` call and no fsync, so it may stand in a training loop. `sync` makes all
lines so far durable. After a crash a torn last line is cut: it was never synced, so nobody was ever
promised it.

The lines are also leaves of a Merkle tree (RFC 6962, section 2.1), whose root over the first n
lines is `root(n)`.

The file may lie where others can write. So each line is hashed once, from the bytes that were
appended, or that were read when the file was opened. Those hashes stay in memory (32 bytes per
line): roots are made of them alone, and what is read again must have them.
"""

import os
from array import array
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Self

from auditkit.evidence.merkle import HASH_BYTES, Frontier, LeafHash, leaf_hash
from developer_agent.disk import PUBLIC_MODE, sync_folder
from developer_agent.errors import (
    DiskWriteError,
    LogDamagedError,
    SpoolLineError,
    SpoolRangeError,
    SpoolWriteError,
)

_OPEN_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
_NEWLINE = b"\n"
_NUL = b"\0"
_BLOCK_BYTES = 1 << 20  # read at once while recovering
_LINES_AT_ONCE = 4096  # read at once while iterating, to bound memory


class Spool:
    """Lines of a file, appended by one thread at a time and readable by others meanwhile."""

    def __init__(self, path: Path, descriptor: int, ends: "array[int]", hashes: bytearray) -> None:
        """Use `Spool.open`."""
        self._path = path
        self._descriptor = descriptor
        self._ends = ends  # byte offset after each line, with a leading 0; grows after the write
        self._hashes = hashes  # leaf hash of each line; grows before `_ends`, which readers look at
        self._frontier = Frontier()
        self._torn = False  # something stands after the last line that could not be cut off

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open or create the file and cut what a crash has torn.

        A line is whole when it ends in a newline and has no NUL byte, which a filesystem may leave
        where data did not reach the disk. Everything from the first torn line on is cut.

        Raises:
            DiskWriteError: the file can't be opened or made.
        """
        try:
            descriptor = os.open(path, _OPEN_FLAGS, PUBLIC_MODE)
        except OSError as error:
            raise _unopened(path, error) from error
        try:
            # An earlier process may have made the file and stopped before its name was durable.
            if os.fstat(descriptor).st_size == 0:
                sync_folder(path.parent)
            ends, hashes = _whole_lines(descriptor)
            if os.fstat(descriptor).st_size != ends[-1]:
                os.ftruncate(descriptor, ends[-1])
                os.fsync(descriptor)
        except OSError as error:
            os.close(descriptor)
            raise _unopened(path, error) from error
        return cls(path, descriptor, ends, hashes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._ends) - 1

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    def append(self, line: bytes) -> int:
        """Append one line, without its newline; return its index.

        Raises:
            SpoolLineError: the line is empty, or holds a newline or a NUL byte.
            SpoolWriteError: the disk is full; the file is as it was before.
        """
        return self.extend((line,))

    def extend(self, lines: Sequence[bytes]) -> int:
        """Append lines with one write; return the index of the first.

        Raises:
            SpoolLineError: as for `append`; nothing was written.
            SpoolWriteError: the disk is full; the file is as it was before.
        """
        first = len(self)
        for line in lines:
            if not line or _NEWLINE in line or _NUL in line:
                raise SpoolLineError(
                    f"line {first} of {self._path} would be empty or hold a newline or NUL byte; "
                    "records are canonical JSON, which has neither"
                )
        data = _NEWLINE.join((*lines, b""))
        self._write(data)
        self._hashes += b"".join(map(leaf_hash, lines))
        end = self._ends[-1]
        for line in lines:
            end += len(line) + 1
            self._ends.append(end)
        return first

    def _write(self, data: bytes) -> None:
        try:
            if self._torn:
                self._cut()
            written = os.write(self._descriptor, data)
            if written != len(data):
                self._cut()
        except OSError as error:
            raise SpoolWriteError(str(self._path), len(data), str(error.strerror)) from error
        if written != len(data):
            raise SpoolWriteError(
                str(self._path), len(data), f"only {written} bytes fitted on the disk"
            )

    def _cut(self) -> None:
        """Cut off what stands after the last line; until that is done, nothing is appended."""
        self._torn = True
        os.ftruncate(self._descriptor, self._ends[-1])
        self._torn = False

    def sync(self) -> None:
        """Make all lines so far durable.

        Raises:
            SpoolWriteError: the disk reports that it lost data.
        """
        try:
            os.fdatasync(self._descriptor)
        except OSError as error:
            raise SpoolWriteError(str(self._path), 0, str(error.strerror)) from error

    def read(self, first: int, count: int, most_bytes: int | None = None) -> list[bytes]:
        """Return `count` lines from `first` on, without newlines.

        With `most_bytes` the list ends early, before the line that would exceed it; one line is
        always returned, however long.

        Raises:
            SpoolRangeError: the file has no such lines.
            LogDamagedError: somebody else has changed one of them since it was appended or opened.
        """
        last = first + count
        if first < 0 or count < 0 or last > len(self):
            raise SpoolRangeError(
                f"lines {first} to {last - 1} of {self._path} were asked for, it has {len(self)}"
            )
        ends = self._ends[first : last + 1]
        if most_bytes is not None:
            while len(ends) > 2 and ends[-1] - ends[0] > most_bytes:
                ends.pop()
        data = self._read_bytes(ends[0], ends[-1])
        start = ends[0]
        lines = [data[low - start : high - start - 1] for low, high in pairwise(ends)]
        for index, line in enumerate(lines, start=first):
            self._check_unchanged(index, line)
        return lines

    def _hash(self, index: int) -> LeafHash:
        return LeafHash(self._hashes[index * HASH_BYTES : (index + 1) * HASH_BYTES])

    def _check_unchanged(self, index: int, line: bytes) -> None:
        expected, found = self._hash(index), leaf_hash(line)
        if found != expected:
            raise LogDamagedError(
                f"line {index} of {self._path} was changed by another program: expected leaf hash "
                f"{expected.hex()}, found {found.hex()}; nothing of the change was signed. Keep "
                "other programs away from the run folder, restore the file, and resume the run"
            )

    def _read_bytes(self, start: int, end: int) -> bytes:
        parts = []
        while start < end:
            part = os.pread(self._descriptor, end - start, start)
            if not part:
                raise SpoolRangeError(
                    f"{self._path} ends at byte {start}, {end} were written; another program cut it"
                )
            parts.append(part)
            start += len(part)
        return b"".join(parts)

    def lines(self) -> Iterator[bytes]:
        """Iterate over all lines that are there now, in constant memory.

        Raises:
            LogDamagedError: as for `read`.
        """
        size = len(self)
        for first in range(0, size, _LINES_AT_ONCE):
            yield from self.read(first, min(_LINES_AT_ONCE, size - first))

    def truncate(self, count: int) -> None:
        """Keep the first `count` lines.

        Raises:
            SpoolRangeError: the file has fewer lines.
            SpoolWriteError: the disk did not take it; the lines are gone for this process, and
                the next `append` cuts them off first.
        """
        if not 0 <= count <= len(self):
            raise SpoolRangeError(f"cannot keep {count} lines of {self._path}, it has {len(self)}")
        if count == len(self):
            return
        del self._ends[count + 1 :]
        del self._hashes[count * HASH_BYTES :]
        if self._frontier.size > count:
            self._frontier = Frontier()
        try:
            self._cut()
            os.fsync(self._descriptor)
        except OSError as error:
            raise SpoolWriteError(str(self._path), 0, str(error.strerror)) from error

    def root(self, size: int) -> bytes:
        """Merkle root over the first `size` lines (RFC 6962, section 2.1).

        The file is not read: the leaves are the lines as they were appended, or read when it was
        opened. Asking for growing sizes takes each leaf once. One thread at a time may ask.

        Raises:
            SpoolRangeError: the file has fewer lines.
        """
        if not 0 <= size <= len(self):
            raise SpoolRangeError(
                f"the root over {size} lines of {self._path} was asked for, it has {len(self)}"
            )
        if size < self._frontier.size:
            self._frontier = Frontier()
        self._frontier.extend(map(self._hash, range(self._frontier.size, size)))
        return self._frontier.root()

    def close(self) -> None:
        """Sync and close the file; closing twice is harmless."""
        if self._descriptor < 0:
            return
        try:
            self.sync()
        finally:
            os.close(self._descriptor)
            self._descriptor = -1


def _unopened(path: Path, error: OSError) -> DiskWriteError:
    return DiskWriteError(
        f"cannot open {path}: {error.strerror}; check the disk and the folder's permissions"
    )


def _whole_lines(descriptor: int) -> "tuple[array[int], bytearray]":
    """Read the file once, up to its first torn line.

    Returns:
        Byte offsets after each whole line from the start of the file, with a leading 0; and the
        leaf hashes of those lines, of 32 bytes each.
    """
    ends, hashes = array("Q", [0]), bytearray()
    offset = 0
    begun: list[bytes] = []  # parts of the line that the blocks before have broken off
    while block := os.pread(descriptor, _BLOCK_BYTES, offset):
        torn = block.find(_NUL)
        limit = len(block) if torn < 0 else torn
        start = 0
        while (position := block.find(_NEWLINE, start, limit)) >= 0:
            hashes += leaf_hash(b"".join((*begun, block[start:position])))
            begun.clear()
            start = position + 1
            ends.append(offset + start)
        if torn >= 0:
            break
        begun.append(block[start:])
        offset += len(block)
    return ends, hashes
