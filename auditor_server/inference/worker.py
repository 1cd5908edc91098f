"""`python -m auditor_server.inference.worker KIND SETTINGS`: do the work that comes in on stdin.

Standard input is one end of a socket pair whose other end the server holds. The worker ends when
that is closed.
"""

import socket
import sys
import traceback
from collections.abc import Iterator
from typing import Protocol

from auditor_server.inference.channel import Channel, ChannelClosedError
from auditor_server.inference.confinement import confine
from auditor_server.inference.limits import (
    WorkerKind,
    WorkerSettings,
    limit_files,
    limit_memory,
    limit_processor_time,
)
from auditor_server.inference.messages import (
    MOST_DETAIL_CHARACTERS,
    MOST_TRACEBACK_CHARACTERS,
    Done,
    Failed,
    OutOfMemory,
    Refused,
    Reply,
    Request,
    Work,
)

# The server keeps its own limits, and is believed.
MOST_PAYLOAD_BYTES = 2**40

# How torch's allocator for the processor, and C++ below it, say that memory ran out.
SIGNS_OF_NO_MEMORY = ("can't allocate memory", "bad_alloc", "not enough memory")


class Worker(Protocol):
    """What one kind of worker does."""

    @property
    def refusals(self) -> type[Exception]:
        """Base of the typed errors that say what is wrong with what others sent."""

    def do(self, work: Work, payload: bytes) -> tuple[Done, bytes]:
        """Do one piece of work."""


def main() -> int:
    """Serve until the connection is closed; return the exit code."""
    settings = WorkerSettings.model_validate_json(sys.argv[1])
    channel = Channel(socket.socket(fileno=sys.stdin.fileno()))
    try:
        worker = _worker(settings)
        # After the libraries are loaded: torch wants a folder that it can write to.
        limit_files()
        ready = confine(settings.blobs)
        limit_memory(settings.memory_bytes)
    except Exception:  # noqa: BLE001 - the server has to know why there is no worker
        channel.send(_failed())
        return 1
    channel.send(Reply(outcome=ready))
    try:
        while True:
            request, payload = channel.receive(Request, MOST_PAYLOAD_BYTES)
            limit_processor_time(request.seconds)
            channel.send(*_done(worker, request.work, payload))
    except ChannelClosedError:
        return 0


def _worker(settings: WorkerSettings) -> Worker:
    # Each kind loads what it needs and no more: torch takes seconds and most of the memory.
    match settings.kind:
        case WorkerKind.IMAGES:
            from auditor_server.inference.image_work import ImageWork

            return ImageWork()
        case WorkerKind.MODELS:
            from auditor_server.inference.model_work import ModelWork

            return ModelWork(settings)


def _done(worker: Worker, work: Work, payload: bytes) -> tuple[Reply, bytes]:
    try:
        done, result = worker.do(work, payload)
    except Exception as error:  # noqa: BLE001 - hostile input makes libraries raise anything
        if any(map(_is_lack_of_memory, _chain(error))):
            return Reply(outcome=OutOfMemory()), b""
        if isinstance(error, worker.refusals):
            detail = str(error)[:MOST_DETAIL_CHARACTERS]
            return Reply(outcome=Refused(error=type(error).__name__, detail=detail)), b""
        return _failed(), b""
    return Reply(outcome=done), result


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those that it came from: a typed one may hide what really happened."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _is_lack_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS_OF_NO_MEMORY)
    )


def _failed() -> Reply:
    return Reply(outcome=Failed(traceback=traceback.format_exc()[-MOST_TRACEBACK_CHARACTERS:]))


if __name__ == "__main__":
    sys.exit(main())
