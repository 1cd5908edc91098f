"""Calls that must be answered before a training can begin, through a server's short absence."""

import random
import time
from collections.abc import Callable

from developer_agent.errors import ServerError
from developer_agent.uplink import retry_delay

# Over about 20 seconds: a restart of the server or of a router.
ATTEMPTS = 8


def patiently(call: Callable[[], bytes]) -> bytes:
    """Make a call that may be repeated until it is answered; return the answer.

    Raises:
        ServerError: no answer to `ATTEMPTS` attempts, or a refusal with its reason.
    """
    jitter = random.SystemRandom()
    failures = 0
    while True:
        try:
            return call()
        except ServerError as error:
            failures += 1
            if not error.temporary or failures == ATTEMPTS:
                raise
        time.sleep(retry_delay(failures, jitter))
