"""Another program that does a step of the build, and its last words where it fails."""

import subprocess
from collections.abc import Mapping, Sequence

from containers.errors import ContainerError

LAST_LINES = 15


def run_to_end(
    command: Sequence[str],
    environment: Mapping[str, str],
    *,
    error: type[ContainerError],
    failure: str,
    advice: str,
) -> None:
    """Run a program without input until it ends.

    Args:
        command: the program and its arguments.
        environment: all of its environment variables.
        error: what to raise when it fails.
        failure: what has then failed, as the error's message begins.
        advice: what the user can do about it.

    Raises:
        OSError: the program cannot be started.
        ContainerError: `error`, with the last lines that the program wrote.
    """
    done = subprocess.run(  # noqa: S603 - a program that the caller has found itself
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        lines = "\n  ".join(done.stdout.strip().splitlines()[-LAST_LINES:])
        raise error(
            f"{failure} (exit code {done.returncode}); {advice}. Its last words:\n  {lines}"
        )
