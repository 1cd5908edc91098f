"""A few workers of one kind: started when they are first needed, kept, and replaced when lost."""

import logging
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Condition

from auditor_server.errors import (
    InferenceBusyError,
    InferenceCrashedError,
    InferenceError,
    InferenceFailedError,
    InferenceMemoryError,
    InferenceTimeoutError,
)
from auditor_server.inference.channel import (
    ChannelClosedError,
    ChannelError,
    ChannelFormatError,
    Deadline,
)
from auditor_server.inference.limits import WorkerSettings
from auditor_server.inference.messages import Done, Failed, OutOfMemory, Ready, Refused, Work
from auditor_server.inference.process import WorkerProcess
from auditor_server.metrics import Metrics

_LOG = logging.getLogger(__name__)

# Where the system has no name for a signal.
UNKNOWN_SIGNAL = "a signal"


@dataclass(frozen=True)
class PoolLimits:
    """How many workers there are, and how long anybody holds one or waits for one."""

    workers: int
    seconds: float
    """Time that one call may hold a worker."""
    most_waiting: int
    most_waiting_seconds: float


class WorkerPool:
    """Workers of one kind, each lent to one call at a time. Safe to use from several threads."""

    def __init__(
        self,
        settings: WorkerSettings,
        limits: PoolLimits,
        refusals: Mapping[str, type[Exception]],
        metrics: Metrics,
    ) -> None:
        """Start nothing yet.

        Args:
            settings: of each worker.
            limits: of the pool.
            refusals: the typed errors that a worker may name, by their names.
            metrics: what is counted.

        """
        self._settings = settings
        self._limits = limits
        self._refusals = refusals
        self._metrics = metrics
        self._idle: list[WorkerProcess] = []
        self._lent: set[WorkerProcess] = set()
        self._starting = 0
        self._waiting = 0
        self._stopped = False
        self._changed = Condition()

    @contextmanager
    def lease(self) -> Iterator["Lease"]:
        """Lend a worker for one call; the last one used comes first.

        Raises:
            InferenceBusyError: too many others wait, or none becomes free in time.
            InferenceCrashedError: a worker can't be started.

        """
        with self._metrics.waiting(self._settings.kind):
            worker = self._take()
        lease = Lease(worker, Deadline(self._limits.seconds), self._refusals)
        try:
            with self._metrics.working(self._settings.kind):
                yield lease
        except BaseException as error:
            # In the middle of a message, perhaps: what comes next would be taken for its answer.
            if not lease.answered or isinstance(error, InferenceError):
                lease.give_up()
            raise
        finally:
            self._put_back(worker, is_lost=lease.lost)

    def stop(self) -> None:
        """End all workers for good; whoever waits for one, or for its answer, is told."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
            workers = [*self._idle, *self._lent]
            self._idle.clear()
        for worker in workers:
            worker.end()

    def _take(self) -> WorkerProcess:
        with self._changed:
            if not self._is_free():
                self._wait()
            if self._stopped:
                raise InferenceBusyError("the server is stopping; ask again when it is back")
            worker = self._idle_worker()
            if worker is not None:
                self._lent.add(worker)
                return worker
            self._starting += 1
        try:
            worker = self._start()
        except BaseException:
            with self._changed:
                self._starting -= 1
                self._changed.notify()
            raise
        with self._changed:
            self._starting -= 1
            self._lent.add(worker)
            stopped = self._stopped
        if stopped:
            worker.end()
        return worker

    def _idle_worker(self) -> WorkerProcess | None:
        while self._idle:
            worker = self._idle.pop()
            if worker.is_running:
                return worker
            _LOG.warning("an idle worker (%s) has ended; it is replaced", self._settings.kind)
            worker.end()
        return None

    def _is_free(self) -> bool:
        started = len(self._idle) + len(self._lent) + self._starting
        return self._stopped or bool(self._idle) or started < self._limits.workers

    def _wait(self) -> None:
        most_seconds = self._limits.most_waiting_seconds
        if self._waiting >= self._limits.most_waiting:
            raise InferenceBusyError(
                f"{self._waiting} calls are waiting already; ask again later, or have the auditor "
                "allow more processes"
            )
        self._waiting += 1
        try:
            if not self._changed.wait_for(self._is_free, most_seconds):
                raise InferenceBusyError(
                    f"no process became free in {most_seconds:g} s; ask again later, or have the "
                    "auditor allow more of them"
                )
        finally:
            self._waiting -= 1

    def _start(self) -> WorkerProcess:
        try:
            worker = WorkerProcess(self._settings)
        except (OSError, ChannelError) as error:
            _LOG.exception("a worker (%s) can't be started", self._settings.kind)
            raise InferenceCrashedError(
                "the server can't start the process that does this; its log says why"
            ) from error
        if not (worker.ready.network_closed and worker.ready.files_closed):
            _LOG.warning(
                "this system can't close network and files to a worker (%s): %s",
                self._settings.kind,
                worker.ready,
            )
        return worker

    def _put_back(self, worker: WorkerProcess, *, is_lost: bool) -> None:
        with self._changed:
            self._lent.discard(worker)
            if not is_lost:
                self._idle.append(worker)
            self._changed.notify()


class Lease:
    """A worker in the hands of one call, for a limited time."""

    def __init__(
        self, worker: WorkerProcess, deadline: Deadline, refusals: Mapping[str, type[Exception]]
    ) -> None:
        self.worker = worker
        self.lost = False
        self.answered = True
        self._deadline = deadline
        self._refusals = refusals

    def give_up(self) -> int:
        """End the worker; return its exit status."""
        self.lost = True
        return self.worker.end()

    def do(
        self, work: Work, payload: bytes, most_result_bytes: int, what: str
    ) -> tuple[tuple[int, ...], bytes]:
        """Have a piece of work done, and return shape and bytes of its result.

        Args:
            work: what to do.
            payload: what to do it with.
            most_result_bytes: that the result can have.
            what: the work, in words, for messages.

        Raises:
            InferenceTimeoutError, InferenceMemoryError, InferenceCrashedError,
                InferenceFailedError: there is no result, and the worker is lost.
            Exception: a typed error of `refusals`: what was sent is not as it must be.

        """
        self.answered = False
        try:
            reply, result = self.worker.ask(work, payload, most_result_bytes, self._deadline)
        except TimeoutError:
            self.give_up()
            raise self._too_slow(what) from None
        except ChannelClosedError as error:
            raise self._ended(what) from error
        except ChannelFormatError as error:
            raise self._failed(what, str(error)) from error
        self.answered = True
        if isinstance(reply.outcome, Done):
            return reply.outcome.shape, result
        raise self._no_result(reply.outcome, what)

    def _no_result(self, outcome: Ready | Refused | OutOfMemory | Failed, what: str) -> Exception:
        match outcome:
            case Refused(error=name, detail=detail) if name in self._refusals:
                return self._refusals[name](detail)
            case OutOfMemory():
                self.give_up()
                return InferenceMemoryError(
                    f"{what}: needs more memory than the server's settings allow; use something "
                    "smaller, or have the auditor raise the limit"
                )
            case Failed(traceback=traceback):
                return self._failed(what, traceback)
            case _:
                return self._failed(what, f"unexpected reply {outcome}")

    def _too_slow(self, what: str) -> InferenceTimeoutError:
        return InferenceTimeoutError(
            f"{what}: not done within {self._deadline.seconds:g} s; send fewer images in one call, "
            "or have the auditor raise the limit"
        )

    def _ended(self, what: str) -> InferenceTimeoutError | InferenceCrashedError:
        status = self.give_up()
        if status == -signal.SIGXCPU:
            return self._too_slow(what)
        how = f"with exit status {status}" if status >= 0 else f"by {_signal_name(-status)}"
        _LOG.error("%r: a worker was ended %s", what, how)
        return InferenceCrashedError(
            f"{what}: the process that did this was ended {how}; nothing else is affected, and the "
            "next call gets a new one"
        )

    def _failed(self, what: str, reason: str) -> InferenceFailedError:
        self.give_up()
        # The text comes from a process that may be in other hands: no line breaks of its making.
        _LOG.error("%r failed: %r", what, reason)
        return InferenceFailedError(f"{what}: the server failed; its log says why")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return UNKNOWN_SIGNAL
