"""Keeps the auditor up to date while the training runs, and finishes what was interrupted.

The `Uplink` is a background thread around a `Committer`. The training thread never waits for it,
except where the order's outage policy says so (`permit`).
"""

import contextlib
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

from developer_agent.client import ServerClient
from developer_agent.committer import MOST_RECORDS_PER_FLUSH, Committer
from developer_agent.errors import (
    AgentError,
    CommitterStoppedError,
    ServerError,
    ServerOutageError,
    UplinkStoppedError,
)
from developer_agent.recorder import is_seal
from developer_agent.run_folder import RunFolder
from developer_agent.spool import Spool
from schemas import OutagePolicy, TrustRoot

# From the start of one flush to the start of the next; the protocol promises one a second.
FLUSH_INTERVAL_SECONDS = 0.9
FIRST_RETRY_SECONDS = 0.25
LONGEST_RETRY_SECONDS = 10.0
# `auditkit sync` gives up after this many failures in a row, about half a minute.
SYNC_ATTEMPTS = 6
# Where no order says otherwise.
LATE_AFTER_SECONDS = 60.0
# How long `close` waits for a request that is under way; its answer is dropped after that.
CLOSE_SECONDS = 5.0

_SYSTEM_RANDOM = random.SystemRandom()


@dataclass(frozen=True)
class UplinkState:
    """How far the auditor is behind; counts are records of the spool, receipts not included."""

    spooled: int
    acknowledged: int
    log_size: int
    last_cosigned_at: datetime | None
    outage_since: datetime | None
    error: Exception | None

    @property
    def unacknowledged(self) -> int:
        """Records that the auditor does not have yet."""
        return self.spooled - self.acknowledged


class Uplink:
    """Sends what is recorded at least once a second, until it is closed or can't go on."""

    def __init__(
        self,
        committer: Committer,
        spool: Spool,
        *,
        policy: OutagePolicy = "continue-late",
        late_after_seconds: float = LATE_AFTER_SECONDS,
        jitter: random.Random = _SYSTEM_RANDOM,
    ) -> None:
        """Take over the committer; nothing is sent before `start`.

        Args:
            committer: closed when the uplink ends.
            spool: what the committer reads; it stays the caller's, to be closed after the uplink.
            policy: the order's, for when the server can't be reached.
            late_after_seconds: the order's; how long an outage may last under policy `stop`.
            jitter: spreads retries, so that agents don't come back all at once after an outage.
        """
        self._committer = committer
        self._spool = spool
        self._policy = policy
        self._late_after = late_after_seconds
        self._jitter = jitter
        self._changed = threading.Condition()
        self._wake = threading.Event()
        self._closing = False
        self._ended = False
        self._draining = 0
        self._error: Exception | None = None
        self._waiting_since: float | None = None  # monotonic: the current flush's first attempt
        self._outage_since: datetime | None = None
        self._thread = threading.Thread(target=self._run, name="auditkit-uplink", daemon=True)

    def start(self) -> Self:
        """Begin to send."""
        self._thread.start()
        return self

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def state(self) -> UplinkState:
        """Where things stand, for display."""
        last = self._committer.last
        return UplinkState(
            spooled=len(self._spool),
            acknowledged=self._committer.acknowledged,
            log_size=0 if last is None else last.size,
            last_cosigned_at=None if last is None else last.cosigned_at,
            outage_since=self._outage_since,
            error=self._error,
        )

    def permit(self) -> None:
        """Let the training thread go on to its next step; at once while all is well.

        Policy `continue-late` goes on during an outage. `pause` waits until the server has
        acknowledged again. `stop` goes on until an outage has lasted `late_after_seconds`.

        Raises:
            UplinkStoppedError: the log can no longer reach the auditor, whatever the policy.
            ServerOutageError: policy `stop`, and the outage has lasted too long.
        """
        with self._changed:
            self._refuse_when_stopped()
            if self._policy == "pause":
                while self._outage_since is not None:
                    self._changed.wait()
                    self._refuse_when_stopped()
            elif self._policy == "stop" and self._silence() > self._late_after:
                raise ServerOutageError(
                    f"the auditor's server has not answered for {self._silence():.0f} s and the "
                    f"order says to stop after {self._late_after:g} s. Nothing is lost: start "
                    "the run again when the server is back, it resumes from its last state"
                )

    def drain(self, timeout: float) -> int:
        """Send everything now; wait for at most `timeout` seconds.

        Returns:
            How many records the auditor still lacks; `auditkit sync` sends them later.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            self._draining += 1
            self._wake.set()
            try:
                while self._committer.remaining and not self._ended:
                    left = deadline - time.monotonic()
                    if left <= 0:
                        break
                    self._changed.wait(left)
            finally:
                self._draining -= 1
        return self._committer.remaining

    def close(self) -> None:
        """Stop sending, within `CLOSE_SECONDS`; call `drain` first to leave nothing behind."""
        with self._changed:
            self._closing = True
            self._wake.set()
        if self._thread.ident is None:
            self._committer.close()
            return
        self._thread.join(CLOSE_SECONDS)
        # A request that still hangs ends with its own timeout; the thread then closes its files.
        self._committer.stop()

    def _silence(self) -> float:
        return 0.0 if self._waiting_since is None else time.monotonic() - self._waiting_since

    def _refuse_when_stopped(self) -> None:
        if self._error is not None:
            raise UplinkStoppedError(
                f"the log no longer reaches the auditor, so training on would be unsupervised: "
                f"{self._error}"
            ) from self._error
        if self._ended:
            raise UplinkStoppedError("the uplink was closed while the training still ran")

    def _run(self) -> None:
        try:
            self._send_until_closed()
        except CommitterStoppedError:
            pass  # `close` did not want to wait for the answer
        except Exception as error:  # noqa: BLE001 - a thread that dies unseen would lose evidence
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()
            with contextlib.suppress(AgentError):  # closing syncs again what is synced already
                self._committer.close()

    def _send_until_closed(self) -> None:
        failures = 0
        while not self._closing:
            started = time.monotonic()
            self._wake.clear()
            try:
                self._attempt(started)
            except ServerError as error:
                if not error.temporary:
                    raise
                failures += 1
                self._pause(retry_delay(failures, self._jitter))
                continue
            failures = 0
            if not self._hurries():
                self._pause(started + FLUSH_INTERVAL_SECONDS - time.monotonic())

    def _attempt(self, started: float) -> None:
        """Send one segment; keep the books of the outage."""
        if self._waiting_since is None:
            self._waiting_since = started
        try:
            self._committer.commit_next()
        except ServerError:
            with self._changed:
                if self._outage_since is None:
                    self._outage_since = datetime.now(UTC)
            raise
        with self._changed:
            self._waiting_since = None
            self._outage_since = None
            self._changed.notify_all()

    def _hurries(self) -> bool:
        """Tell whether the next segment should follow at once."""
        remaining = self._committer.remaining
        return remaining >= MOST_RECORDS_PER_FLUSH or (self._draining > 0 and remaining > 0)

    def _pause(self, seconds: float) -> None:
        if not self._closing:
            self._wake.wait(max(0.0, seconds))


@dataclass(frozen=True)
class SyncResult:
    """What an upload afterwards has achieved; nothing is left to send."""

    sent: int
    log_size: int
    sealed: bool
    last_cosigned_at: datetime | None


def sync(
    folder: RunFolder,
    client: ServerClient,
    trust_root: TrustRoot,
    *,
    on_progress: Callable[[int, int], None] | None = None,
    jitter: random.Random = _SYSTEM_RANDOM,
    attempts: int = SYNC_ATTEMPTS,
) -> SyncResult:
    """Finish an interrupted upload. Needs the run folder and the server, nothing of the training.

    Args:
        folder: the run.
        client: the server, with the developer's token.
        trust_root: verified already.
        on_progress: called with (records sent so far, records to send) after each flush.
        jitter: spreads retries.
        attempts: failures in a row after which to give up.

    Raises:
        RunLockedError: the run is still going on.
        LogDamagedError: the files contradict what the auditor has cosigned.
        ServerError: the server is away, or refuses; calling again continues.
        CosignatureError: an answer is not the auditor's.
    """
    with (
        folder.lock(),
        Spool.open(folder.spool_path) as spool,
        Committer.open(folder, spool, client, trust_root) as committer,
    ):
        total = committer.remaining
        while committer.remaining:
            _commit_with_retries(committer, jitter, attempts)
            if on_progress is not None:
                on_progress(total - committer.remaining, total)
        last = committer.last
        return SyncResult(
            sent=total,
            log_size=0 if last is None else last.size,
            sealed=len(spool) > 0 and is_seal(spool.read(len(spool) - 1, 1)[0]),
            last_cosigned_at=None if last is None else last.cosigned_at,
        )


def retry_delay(failures: int, jitter: random.Random) -> float:
    """Seconds to wait after this many failures in a row: exponential, capped, and spread."""
    longest = min(LONGEST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2.0 ** min(failures - 1, 30))
    return jitter.uniform(longest / 2, longest)


def _commit_with_retries(committer: Committer, jitter: random.Random, attempts: int) -> None:
    for failures in range(1, attempts + 1):
        try:
            committer.commit_next()
        except ServerError as error:
            if not error.temporary or failures == attempts:
                raise
            time.sleep(retry_delay(failures, jitter))
        else:
            return
