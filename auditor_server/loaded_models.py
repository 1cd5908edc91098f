"""Submitted models, ready to be asked."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from auditkit.mint.scores import read_scores
from auditor_server.documents import parse
from auditor_server.errors import CustomModelError
from auditor_server.store import BlobStore, SubmissionRow
from schemas import ModelDescription
from schemas.training import CUSTOM_PREFIX

# Descriptions and scores of C; the models themselves are kept by the processes that run them.
MOST_KEPT = 16


class Engine(Protocol):
    """What runs a model: never the server's own process."""

    def outputs(
        self,
        description: ModelDescription,
        digests: tuple[str, str],
        images: Sequence[NDArray[np.uint8]],
    ) -> NDArray[np.float32]:
        """Return what T says of each image, (n,) or (n, length); see `Inference.outputs`."""


@dataclass(frozen=True)
class LoadedModel:
    """M+ behind what runs it, its description, and the scores of C that it is calibrated with."""

    engine: Engine
    digests: tuple[str, str]
    """Of its stored weights and of its stored description."""
    description: ModelDescription
    calibration_scores: NDArray[np.float32]

    def outputs(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Return what T says of each image, (n,) logits or (n, length) of codes.

        Args:
            images: each of shape (H, W, C).
        """
        return self.engine.outputs(self.description, self.digests, images)


class ModelCache:
    """What the server itself needs of the models that were queried last."""

    def __init__(self, blobs: BlobStore, engine: Engine) -> None:
        """Read from `blobs`, and have models run by `engine`."""
        self._blobs = blobs
        self._engine = engine
        self._loaded: OrderedDict[tuple[str, str, str], LoadedModel] = OrderedDict()
        self._lock = Lock()

    def get(self, submission: SubmissionRow) -> LoadedModel:
        """Return the submitted model.

        Raises:
            CustomModelError: its architecture is the developer's own code.

        """
        key = (
            submission.weights_digest,
            submission.description_digest,
            submission.scores_digest,
        )
        with self._lock:
            loaded = self._loaded.pop(key, None) or self._load(submission)
            self._loaded[key] = loaded
            if len(self._loaded) > MOST_KEPT:
                self._loaded.popitem(last=False)
        return loaded

    def _load(self, submission: SubmissionRow) -> LoadedModel:
        description = parse(ModelDescription, self._blobs.read(submission.description_digest))
        engine = self._engine_for(description)
        scores = read_scores(self._blobs.read(submission.scores_digest))
        digests = (submission.weights_digest, submission.description_digest)
        return LoadedModel(engine, digests, description, scores["calibration"].scores)

    def _engine_for(self, description: ModelDescription) -> Engine:
        """Choose what runs a model, by whose code it is made of."""
        if description.model.architecture.startswith(CUSTOM_PREFIX):
            raise CustomModelError(
                f"{description.model.architecture} is the developer's own module; the server runs "
                "no code of others, query it with the command line in the developer's image"
            )
        return self._engine
