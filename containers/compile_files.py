"""Compiles Python files in the image's own interpreter; run as a script, standard library only.

Input: for each file its path on disk and its path in the image, each ended by a zero character.
Output: a line for each file that has been dealt with. A file that is no valid Python is left as it
is: packages ship templates and samples for other versions, which nothing imports.

Each file is compiled by a process of its own, forked from this one before it has compiled anything.
What `marshal` writes depends on how often an object is used in the whole process (its FLAG_REF), so
a process that has compiled other files before may write other bytes.
"""

import os
import sys
from py_compile import PycInvalidationMode, PyCompileError, compile  # noqa: A004

WORKERS = min(4, len(os.sched_getaffinity(0)))


def compile_file(source: str, path_in_image: str) -> int:
    """Write the bytecode of a file beside it; return the exit code for the process that did."""
    try:
        compile(
            source,
            dfile=path_in_image,
            doraise=True,
            # Valid whatever the times of the files are, and it never serves an edited source.
            invalidation_mode=PycInvalidationMode.CHECKED_HASH,
        )
    except PyCompileError:
        return 0
    except OSError as error:
        sys.stderr.write(f"{path_in_image}: {error}\n")
        return 1
    return 0


def wait_for_one() -> bool:
    """Wait until a child is done, say so, and return whether all went well with it."""
    _, status = os.wait()
    os.write(sys.stdout.fileno(), b"\n")
    return status == 0


def main() -> int:
    """Compile what standard input lists; return the exit code."""
    running, is_good = 0, True
    paths = sys.stdin.read().split("\0")[:-1]
    for source, path_in_image in zip(paths[::2], paths[1::2], strict=True):
        if running == WORKERS:
            is_good &= wait_for_one()
            running -= 1
        if os.fork() == 0:
            code = 1
            try:
                code = compile_file(source, path_in_image)
            finally:
                sys.stderr.flush()
                os._exit(code)
        running += 1
    for _ in range(running):
        is_good &= wait_for_one()
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
