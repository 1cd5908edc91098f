"""Answering a question inside the closed container, with the developer's own code.

A model that the auditor's server cannot build itself is asked in the image that trained it. The
developer's loop builds it, as in a replay; no step is done, and no code of any member is known.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from auditkit.mint.evaluation import ask
from containers.query_task import PICTURES, TASK, WEIGHTS, QueryTask, answer_line
from developer_agent.environment import make_deterministic
from developer_agent.granted import GrantedTraining
from developer_agent.replayed_loop import PackageSamples, ReplaySupervision, execute
from developer_agent.segment_package import OpenedSamples
from developer_agent.training_loop import load_loop

# One, as the server runs the models that it can build: sums depend on the number.
QUERY_THREADS = 1


class QueryReplay(ReplaySupervision):
    """Asks the model with the submitted weights about pictures."""

    def __init__(
        self,
        session: GrantedTraining,
        samples: PackageSamples,
        weights: bytes,
        pictures: NDArray[np.uint8],
    ) -> None:
        """Prepare to ask.

        Args:
            session: of the training.
            samples: none; they tell how pixels are scaled.
            weights: the submitted weights file of M+.
            pictures: (N, H, W, C).
        """
        super().__init__(session, samples, codes=None)
        self._weights = weights
        self._pictures = pictures
        self.outputs: NDArray[np.float32] = np.empty(0, dtype=np.float32)
        """(N,) logits of T, or (N, length) of codes."""

    def _teach(self) -> None:
        """Nothing is trained, so T needs no codes: they never leave the auditor for a question."""

    def _begin(self) -> None:
        self._training.model.load_weights(self._weights)

    def _end(self) -> None:
        # One at a time: in a batch rounding would make an answer depend on the others.
        self.outputs = np.concatenate(
            [
                ask(self._training.model, picture[np.newaxis], self.normalisation).outputs
                for picture in self._pictures
            ]
        )


def answer_query(source: Path, code_folder: Path) -> str:
    """Answer the question that lies in a folder; return the line to print.

    Args:
        source: the folder.
        code_folder: where the developer's own source files lie.

    Raises:
        AgentError, MintError: see the messages.
    """
    task = QueryTask.from_bytes((source / TASK).read_bytes())
    make_deterministic(QUERY_THREADS)
    session = _whole(task)
    model = session.config.model
    pictures = np.frombuffer((source / PICTURES).read_bytes(), dtype=np.uint8)
    replay = QueryReplay(
        session,
        PackageSamples(OpenedSamples.none(), task.normalisation),
        (source / WEIGHTS).read_bytes(),
        pictures.reshape(-1, model.height, model.width, model.channels).copy(),
    )
    execute(load_loop(code_folder / task.loop), session, replay)
    return answer_line(replay.outputs.shape, replay.outputs.astype("<f4").tobytes())


def _whole(task: QueryTask) -> GrantedTraining:
    """Return the training as if the developer had held T: the submitted weights are whole."""
    config = task.request.config
    held_here = config.mint.model_copy(update={"custody": "developer"})
    config = config.model_copy(update={"mint": held_here})
    request = task.request.model_copy(update={"config": config})
    return GrantedTraining(request=request, grant=task.grant)
