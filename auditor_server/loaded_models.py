"""Submitted models, ready to be asked."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from auditkit.mint.errors import NonFiniteScoreError
from auditkit.mint.scores import read_scores
from auditor_server.contained_models import ContainedModels
from auditor_server.documents import parse, read_grant
from auditor_server.store import BlobStore, SessionRow, SubmissionRow
from schemas import ModelDescription, SessionRequest
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

        Raises:
            NonFiniteScoreError: the model says what is no number.

        """
        outputs = self.engine.outputs(self.description, self.digests, images)
        if not np.isfinite(outputs).all():
            raise NonFiniteScoreError(
                f"expected numbers from the model of session {self.description.session_id}, found "
                "others (infinite, or none); its weights or its code are broken, and it has no "
                "answer"
            )
        return outputs


class ModelCache:
    """What the server itself needs of the models that were queried last."""

    def __init__(self, blobs: BlobStore, engine: Engine, contained: ContainedModels) -> None:
        """Read from `blobs`; have models run by `engine`, and developers' own code contained."""
        self._blobs = blobs
        self._engine = engine
        self._contained = contained
        self._loaded: OrderedDict[tuple[str, str, str], LoadedModel] = OrderedDict()
        self._lock = Lock()

    def get(self, session: SessionRow, submission: SubmissionRow) -> LoadedModel:
        """Return the submitted model of a session.

        Raises:
            CustomModelError: its architecture is the developer's own code, and its image is not
                here.

        """
        key = (
            submission.weights_digest,
            submission.description_digest,
            submission.scores_digest,
        )
        with self._lock:
            loaded = self._loaded.pop(key, None) or self._load(session, submission)
            self._loaded[key] = loaded
            if len(self._loaded) > MOST_KEPT:
                self._loaded.popitem(last=False)
        return loaded

    def stop(self) -> None:
        """End what runs in containers."""
        self._contained.stop()

    def _load(self, session: SessionRow, submission: SubmissionRow) -> LoadedModel:
        description = parse(ModelDescription, self._blobs.read(submission.description_digest))
        engine = self._engine_for(session, description)
        scores = read_scores(self._blobs.read(submission.scores_digest))
        digests = (submission.weights_digest, submission.description_digest)
        return LoadedModel(engine, digests, description, scores["calibration"].scores)

    def _engine_for(self, session: SessionRow, description: ModelDescription) -> Engine:
        """Choose what runs a model, by whose code it is made of."""
        if not description.model.architecture.startswith(CUSTOM_PREFIX):
            return self._engine
        grant, _ = read_grant(session.grant)
        return self._contained.model(parse(SessionRequest, session.request), grant)
