"""How a log grows: curves, late records, last cosignature; read once and then followed.

Each log is passed through once per worker, however many look at it, and every further look reads
what has come since. What is kept of it does not grow with its length.
"""

import json
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import datetime
from threading import Lock

import numpy as np

from auditkit.reports.content import StepTrace
from auditor_server.store import SegmentRow, SessionRow, Store

MOST_LOGS = 64
"""Logs that a worker keeps in mind."""

MOST_POINTS = 1024
"""Points of a curve; beyond, every two become one."""

STEP_MARK = b'"kind":"step"'
COLUMNS = ("step", "epoch", "task_loss", "mint_loss", "task_accuracy", "mint_accuracy")


@dataclass(frozen=True)
class LiveLog:
    """One session's log at one moment.

    Attributes:
        size: records read.
        late: records that the auditor received later than the order calls late.
        cosigned_at: time of the last cosignature.
        trace: the training so far; each entry is the mean of `each` steps.
        each: see `trace`.
    """

    size: int
    late: int
    cosigned_at: datetime | None
    trace: StepTrace
    each: int


class LiveLogs:
    """The logs that this worker was asked about."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._followed: OrderedDict[str, _Followed] = OrderedDict()
        self._lock = Lock()

    def read(self, session: SessionRow, late_after_seconds: float) -> LiveLog:
        """Return a session's log as far as the session's row says that it goes."""
        with self._lock:
            followed = self._followed.setdefault(session.id, _Followed(late_after_seconds))
            self._followed.move_to_end(session.id)
            if len(self._followed) > MOST_LOGS:
                self._followed.popitem(last=False)
        with followed.lock:
            for segment in self._store.stream_segments(
                session.id, session.size, first=followed.size
            ):
                followed.take(segment)
            return LiveLog(
                size=followed.size,
                late=followed.late,
                cosigned_at=self._store.last_cosigned_at(session.id),
                trace=followed.curve.trace(),
                each=followed.curve.each,
            )


@dataclass
class _Curve:
    """Means of `each` steps; `rest` are those that do not make up one yet."""

    each: int = 1
    points: list[list[float]] = field(default_factory=list)
    rest: list[list[float]] = field(default_factory=list)

    def add(self, values: list[float]) -> None:
        self._forget_from(values[0])
        self.rest.append(values)
        if len(self.rest) == self.each:
            self.points.append(_mean(self.rest))
            self.rest = []
        if len(self.points) > MOST_POINTS:
            pairs = len(self.points) // 2
            self.rest = self.points[2 * pairs :] * self.each + self.rest
            self.points = [_mean(self.points[2 * pair : 2 * pair + 2]) for pair in range(pairs)]
            self.each *= 2

    def _forget_from(self, step: float) -> None:
        """Drop steps that were lost with a crash; they follow once more."""
        while self.rest and self.rest[-1][0] >= step:
            self.rest.pop()
        while not self.rest and self.points and self.points[-1][0] >= step:
            self.points.pop()

    def trace(self) -> StepTrace:
        rows = [*self.points, _mean(self.rest)] if self.rest else self.points
        table = np.asarray(rows, dtype=np.float64).reshape(-1, len(COLUMNS))
        return StepTrace(
            np.rint(table[:, 0]).astype(np.int64),
            table[:, 1].astype(np.int64),
            *(table[:, column] for column in range(2, len(COLUMNS))),
        )


@dataclass
class _Followed:
    """What is kept of one log."""

    late_after_seconds: float
    size: int = 0
    late: int = 0
    curve: _Curve = field(default_factory=_Curve)
    lock: Lock = field(default_factory=Lock)

    def take(self, segment: SegmentRow) -> None:
        received = int((segment.cosigned_at or segment.received_at).timestamp())
        for line in segment.records.splitlines():
            record = json.loads(line)  # its schema was checked when it came
            self.late += received - record["time_ms"] / 1000 > self.late_after_seconds
            if STEP_MARK in line:
                self.curve.add([record[column] for column in COLUMNS])
        self.size = segment.end


def _mean(rows: list[list[float]]) -> list[float]:
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]
