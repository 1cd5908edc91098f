"""Long studies in parts: each part in a process of its own, its result kept as a file.

A process of its own makes the peak memory that a part reports its own. A kept result is bound to
what it was measured with by a digest, so that changed settings never meet old results.
"""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import ParamSpec, Protocol, Self, TypeVar

from pydantic import ValidationError

from auditkit.evidence import canonical
from auditkit.studies.errors import CellFileError, PartKilledError
from schemas.base import Schema

Arguments = ParamSpec("Arguments")

DIGEST_CHARACTERS = 12  # in file names; the whole digest is in the file


class _Bound(Protocol):
    @property
    def digest(self) -> str: ...

    @classmethod
    def from_bytes(cls, data: bytes | str) -> Self: ...


Result = TypeVar("Result", bound=_Bound)


def run_apart(
    title: str,
    part: Callable[Arguments, None],
    *args: Arguments.args,
    **kwargs: Arguments.kwargs,
) -> None:
    """Run one part in a new process, and wait for it. What it raises is raised here.

    Raises:
        PartKilledError: the process was killed.
    """
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(1, mp_context=context) as process:
            process.submit(part, *args, **kwargs).result()
    except BrokenProcessPool as error:
        raise PartKilledError(
            f"the process of {title} was killed, most likely for want of memory; finished parts "
            "are kept: free some memory or use fewer samples, and run the same command again"
        ) from error


def file_name(title: str, digest: str, suffix: str = "json") -> str:
    """Return what the file of a part's result is called."""
    return f"{title}_{digest[:DIGEST_CHARACTERS]}.{suffix}"


def keep(path: Path, result: Schema) -> None:
    """Write a result, whole or not at all."""
    partial = path.with_suffix(".partial")
    partial.write_bytes(canonical.to_bytes(result))
    partial.replace(path)


def read_kept(path: Path, model: type[Result], digest: str) -> Result:
    """Read a kept result.

    Raises:
        CellFileError: it is damaged, or belongs to other settings.
    """
    try:
        result = model.from_bytes(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise CellFileError(damaged(path, error)) from error
    if result.digest != digest:
        raise CellFileError(f"{path} belongs to other settings; remove it")
    return result


def damaged(path: Path, error: Exception) -> str:
    """Return what to say about a file that cannot be read as a result."""
    return (
        f"{path} is not a result of this study ({type(error).__name__}); remove it, and the part "
        "is run again"
    )
