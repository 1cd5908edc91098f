"""How often one token or person may ask: buckets of calls that fill up again (token buckets).

Each worker counts for itself: counting in the database would cost a commit for every call. So with
W workers one token gets up to W times as much.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

from auditor_server.errors import RateLimitError

# Buckets kept at most; beyond, those that are full again are forgotten.
MOST_BUCKETS = 10_000


@dataclass(frozen=True)
class Rate:
    """So many at once, and so many a second after that."""

    burst: int
    per_second: float


class RateLimiter:
    """One bucket for each principal."""

    def __init__(self, rate: Rate, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._lock = Lock()
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, principal: str) -> None:
        """Count one call.

        Raises:
            RateLimitError: it is one too many; it says when there will be room again.

        """
        with self._lock:
            now = self._clock()
            left, since = self._buckets.get(principal, (float(self._rate.burst), now))
            left = min(float(self._rate.burst), left + (now - since) * self._rate.per_second)
            allowed = left >= 1
            self._buckets[principal] = (left - 1 if allowed else left, now)
            if len(self._buckets) > MOST_BUCKETS:
                self._forget_full(now)
        if not allowed:
            wait = max(1, math.ceil((1 - left) / self._rate.per_second))
            raise RateLimitError(
                f"expected at most {self._rate.burst} calls of this kind at once and "
                f"{self._rate.per_second:g} a second after that; try again in {wait} seconds",
                wait,
            )

    def _forget_full(self, now: float) -> None:
        fill = self._rate.burst / self._rate.per_second
        self._buckets = {
            name: (left, since)
            for name, (left, since) in self._buckets.items()
            if now - since < fill
        }
