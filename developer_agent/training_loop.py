"""The developer's own training loop: a Python file with a function `train`.

    def train(run: SupervisedRun) -> Mapping[CohortName, CohortMetrics]:
        supervision = run.supervision
        supervision.enhance(MyModel())
        ...                                 # the loop of `developer_agent.supervision`
        return supervision.seal()

The file is imported with its own folder on the module path, as `python file.py` would.
"""

import importlib.util
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

from developer_agent.errors import AgentError
from developer_agent.loop_interface import RunInterface
from schemas import CohortMetrics, CohortName

TrainingLoop = Callable[[RunInterface], Mapping[CohortName, CohortMetrics]]

FUNCTION = "train"
# Not a name that the developer's own modules could have.
MODULE = "auditkit_training_loop"
MOST_FRAMES = 3  # of the developer's files, in the message about a failed import


class LoopFileMissingError(AgentError):
    """There is no such file."""


class LoopImportError(AgentError):
    """The file, or something that it imports, raised an error."""


class LoopFunctionMissingError(AgentError):
    """The file has no function `train`."""


class LoopUnsealedError(AgentError):
    """The loop came to its end without sealing the run."""


class LoopResultError(AgentError):
    """The loop returned something else than the final metrics."""


def load_loop(path: Path) -> TrainingLoop:
    """Import a training loop; its folder stays on the module path for what it imports later.

    The function returned calls the file's `train` and checks that it has sealed the run.

    Raises:
        LoopFileMissingError, LoopImportError, LoopFunctionMissingError: as they say.
    """
    path = path.resolve()
    if not path.is_file():
        raise LoopFileMissingError(
            f"there is no training loop {path}; correct code.loop in the configuration"
        )
    function = getattr(_import(path), FUNCTION, None)
    if not callable(function):
        raise LoopFunctionMissingError(
            f"{path} has no function `{FUNCTION}`; define `def {FUNCTION}(run): ...`, which "
            "trains under `run.supervision` and returns `run.supervision.seal()`"
        )

    def loop(run: RunInterface) -> Mapping[CohortName, CohortMetrics]:
        metrics = function(run)
        if not run.supervision.sealed:
            raise LoopUnsealedError(
                f"`{FUNCTION}` in {path} returned at step {run.supervision.step_done} and the run "
                f"is not sealed; end it with `return run.supervision.seal()`"
            )
        if not isinstance(metrics, Mapping):
            raise LoopResultError(
                f"`{FUNCTION}` in {path} returned {type(metrics).__name__}, expected what "
                "`run.supervision.seal()` returns. The run is sealed; `auditkit train --resume` "
                "submits it"
            )
        return metrics

    return loop


def _import(path: Path) -> ModuleType:
    folder = str(path.parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    spec = importlib.util.spec_from_file_location(MODULE, path)
    if spec is None or spec.loader is None:
        raise LoopImportError(f"{path} is no Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[MODULE] = module  # dataclasses and pickles of the file look it up there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[MODULE]
        raise LoopImportError(
            f"the training loop {path} cannot be imported:\n{_short(error, path.parent)}"
        ) from error
    return module


def _short(error: BaseException, folder: Path) -> str:
    """Return the error with the frames of the developer's own files, and no others."""
    details = traceback.TracebackException.from_exception(error)
    own = [frame for frame in details.stack if Path(frame.filename).is_relative_to(folder)]
    lines = traceback.StackSummary.from_list(own[-MOST_FRAMES:]).format()
    return "".join([*lines, *details.format_exception_only()]).rstrip()
