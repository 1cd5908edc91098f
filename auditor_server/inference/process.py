"""One worker, as the server sees it: started, asked, and ended with everything that it started."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from auditor_server.inference.channel import Channel, ChannelFormatError, Deadline
from auditor_server.inference.limits import WorkerSettings
from auditor_server.inference.messages import Ready, Reply, Request, Work

MODULE = "auditor_server.inference.worker"
# Loading torch from a slow disk; three seconds are usual.
START_SECONDS = 120.0

# Of the server's environment, which may hold passwords, a worker gets these alone: where libraries
# and time zones are, and what decides which instructions torch computes with.
PASSED_VARIABLES = (
    "ATEN_CPU_CAPABILITY",
    "LANG",
    "LC_ALL",
    "LD_LIBRARY_PATH",
    "MKL_CBWR",
    "ONEDNN_MAX_CPU_ISA",
    "PATH",
    "TZ",
)
# One thread, whatever computes.
SET_VARIABLES = {
    "MKL_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
}


class WorkerProcess:
    """A worker in a process group of its own."""

    def __init__(self, settings: WorkerSettings) -> None:
        """Start a worker and wait until it is ready.

        Raises:
            OSError, ChannelError: it can't be started; the message says why, if it could tell.
            TimeoutError: it takes too long.

        """
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - this very interpreter
                [sys.executable, "-P", "-m", MODULE, settings.model_dump_json()],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env=_environment(os.environ),
                start_new_session=True,
            )
        self._channel = Channel(ours)
        try:
            reply, _ = self._channel.receive(Reply, 0, Deadline(START_SECONDS))
        except BaseException:
            self.end()
            raise
        if not isinstance(reply.outcome, Ready):
            self.end()
            raise ChannelFormatError(f"the worker could not start: {reply.outcome}")
        self.ready = reply.outcome

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it can be asked at all."""
        return self._process.poll() is None

    def ask(
        self, work: Work, payload: bytes, most_result_bytes: int, deadline: Deadline
    ) -> tuple[Reply, bytes]:
        """Have a piece of work done.

        Raises:
            ChannelClosedError: the worker has ended.
            ChannelFormatError: it says what it must not say.
            TimeoutError: the deadline has passed.

        """
        request = Request(work=work, seconds=deadline.remaining())
        self._channel.send(request, payload, deadline)
        return self._channel.receive(Reply, most_result_bytes, deadline)

    def end(self) -> int:
        """End it at once, with all its processes; return its exit status, negative for a signal."""
        # Only while nobody has asked for its status, its number is surely not somebody else's.
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._channel.close()
        return self._process.wait()


def _environment(server: Mapping[str, str]) -> dict[str, str]:
    passed = {name: server[name] for name in PASSED_VARIABLES if name in server}
    code = os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path)
    return {**passed, **SET_VARIABLES, "PYTHONPATH": code}
