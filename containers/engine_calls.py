"""Calls to the engine: whatever goes wrong becomes one typed error with a short message."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import requests
import urllib3
from docker.errors import APIError, DockerException, StreamParseError

from containers.engine_errors import EngineError, EngineLostError, GpuSupportError
from containers.lockdown import GPU_ADVICE

MOST_MESSAGE_CHARACTERS = 500
"""Engines put whole stack traces of their parts into one line."""

NOT_RUNNING = 409
"""HTTP status of a signal to a container that has ended."""


NO_DEVICE_DRIVER = "could not select device driver"
"""How Docker says that it finds nothing that could pass on a GPU."""

PIECE_BYTES = 2**20
"""Size of the pieces in which images go in and out."""

Progress = Callable[[int, int], None]
"""Is told how many bytes are done, and how many there are."""


def report_nothing(_done: int, _total: int) -> None:
    """Watch no progress."""


def counted(pieces: Iterable[bytes], total: int, on_progress: Progress) -> Iterator[bytes]:
    """Return the pieces unchanged, telling how much of about `total` bytes has passed."""
    done = 0
    for piece in pieces:
        yield piece
        done += len(piece)
        on_progress(done, max(done, total))


@contextmanager
def engine_call(what: str) -> Iterator[None]:
    """Turn what the SDK raises into errors that a user can act on.

    Args:
        what: what the engine was asked to do, after "to".

    Raises:
        EngineError: the engine refused.
        GpuSupportError: it refused because it cannot pass on GPUs.
        EngineLostError: it does not answer any more.
    """
    try:
        yield
    except APIError as error:
        reason = shortened(str(error.explanation or error))
        if NO_DEVICE_DRIVER in reason:
            raise GpuSupportError(
                f"the container engine cannot pass on GPUs ({reason}); {GPU_ADVICE}"
            ) from error
        raise EngineError(f"the container engine refused to {what}: {reason}") from error
    except (
        requests.RequestException,
        urllib3.exceptions.HTTPError,
        DockerException,
        StreamParseError,
        OSError,
    ) as error:
        raise EngineLostError(
            f"the container engine was asked to {what} and the connection broke off "
            f"({shortened(str(error))}); see that it runs, for instance with `docker info`, and "
            "try again"
        ) from error


def shortened(text: str) -> str:
    """Return a foreign text on one line of printable characters and bounded length."""
    line = " ".join("".join(one if one.isprintable() else " " for one in text).split())
    if len(line) <= MOST_MESSAGE_CHARACTERS:
        return line
    return line[: MOST_MESSAGE_CHARACTERS - 1] + "…"
