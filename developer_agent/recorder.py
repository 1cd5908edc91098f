"""What happens in a training run, written down as it happens.

A record goes to the spool in the order in which things happened. Its final sequence number, and
with it its canonical bytes, come later, when the committer places it in the session's log between
the receipts. So nothing here waits for the network, and a receipt never has to be squeezed into
a backlog that an outage has left.
"""

import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from pydantic import ValidationError

from developer_agent.errors import LogSealedError, NonFiniteRecordError, RecordError
from developer_agent.spool import Spool
from schemas import AnyRecord, Record, SealRecord, parse_record

Clock = Callable[[], int]


def unix_milliseconds() -> int:
    """Return the wall clock in milliseconds since 1970-01-01 UTC."""
    return time.time_ns() // 1_000_000


class Recorder:
    """Appends records to a spool; any thread may call it."""

    def __init__(self, spool: Spool, clock: Clock = unix_milliseconds) -> None:
        """Continue a spool, which may be empty."""
        self._spool = spool
        self._clock = clock
        self._lock = threading.Lock()
        self._sealed = False
        self._last_ms = 0
        if len(spool):
            last = parse_record(spool.read(len(spool) - 1, 1)[0])
            self._sealed = isinstance(last, SealRecord)
            self._last_ms = last.time_ms

    @property
    def sealed(self) -> bool:
        """True once the seal is recorded; nothing may follow it."""
        return self._sealed

    def record(self, kind: type[Record], /, **fields: Any) -> int:  # noqa: ANN401 - the schema checks them
        """Record what happened, for example `record(StateRecord, step=0, state_digest=...)`.

        `sequence` and `time_ms` are filled in. Times never run backwards, even if the clock is set
        back meanwhile.

        Returns:
            The position in the spool, counted from 0. The sequence number in the session's log is
            larger by the number of receipts before it.

        Raises:
            NonFiniteRecordError: a number is NaN or infinite.
            RecordError: a field is missing, unknown or out of range.
            LogSealedError: the seal is recorded already.
            SpoolWriteError: the disk is full.
        """
        with self._lock:
            if self._sealed:
                raise LogSealedError(
                    f"a {kind.__name__} was to be recorded after the seal; a sealed run is over, "
                    "start a new session to train further"
                )
            fields["sequence"] = len(self._spool)
            fields["time_ms"] = max(self._last_ms, self._clock())
            try:
                record = kind.model_validate(fields)
            except ValidationError as error:
                raise _typed(kind, fields, error) from error
            position = self._spool.append(record.model_dump_json().encode())
            self._last_ms = record.time_ms
            self._sealed = kind is SealRecord
            return position


def read_records(spool: Spool) -> Iterator[AnyRecord]:
    """Iterate over what a run has recorded so far, in order; a resuming run asks this."""
    return map(parse_record, spool.lines())


def is_seal(line: bytes) -> bool:
    """Tell whether a recorded line is the seal."""
    return bool(json.loads(line)["kind"] == "seal")


def is_receipt(line: bytes) -> bool:
    """Tell whether a line of the log is a receipt."""
    return bool(json.loads(line)["kind"] == "receipt")


def _typed(kind: type[Record], fields: dict[str, Any], error: ValidationError) -> RecordError:
    """Say which of the record's rules is broken."""
    bad = [
        ".".join(str(part) for part in item["loc"])
        for item in error.errors(include_url=False)
        if isinstance(item["input"], float) and not math.isfinite(item["input"])
    ]
    if bad:
        step = f" at step {fields['step']}" if "step" in fields else ""
        return NonFiniteRecordError(
            f"{', '.join(bad)} of a {kind.__name__}{step} is NaN or infinite: the training has "
            "diverged; lower the learning rate or the MINT weight and start a new session"
        )
    return RecordError(f"not a valid {kind.__name__}: {error}")
