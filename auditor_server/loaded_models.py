"""Submitted models, rebuilt and ready to be asked."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from auditkit.mint.scores import read_scores
from auditor_server.documents import parse
from auditor_server.errors import CustomModelError
from auditor_server.store import BlobStore, SubmissionRow
from schemas import ModelDescription
from schemas.training import CUSTOM_PREFIX

if TYPE_CHECKING:
    from auditkit.mint.enhanced import EnhancedAuditedModel

# The model is rebuilt only for its structure; its weights come from the file.
ANY_SEED = 0

# Requests run in parallel already; two threads of one small model on a busy machine wait for each
# other far longer than one takes alone.
MODEL_THREADS = 1


@dataclass(frozen=True)
class LoadedModel:
    """M+ in evaluation mode, its description, and the scores of C that it is calibrated with."""

    model: "EnhancedAuditedModel"
    description: ModelDescription
    calibration_scores: NDArray[np.float32]

    def outputs(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Return what T says of each image, (n,) logits or (n, length) of codes.

        One at a time: in a batch, rounding would make a verdict depend on the images beside it.

        Args:
            images: each of shape (H, W, C).
        """
        from auditkit.mint.evaluation import ask

        normalisation = self.description.normalisation
        return np.concatenate(
            [ask(self.model, image[np.newaxis], normalisation).outputs for image in images]
        )


class ModelCache:
    """The models that were queried last, so that not every query loads its own."""

    def __init__(self, blobs: BlobStore, most: int) -> None:
        self._blobs = blobs
        self._most = most
        self._loaded: OrderedDict[tuple[str, str, str], LoadedModel] = OrderedDict()
        self._lock = Lock()

    def get(self, submission: SubmissionRow) -> LoadedModel:
        """Return the submitted model.

        Raises:
            CustomModelError: its architecture is the developer's own code.
            WeightsFileError, WeightsMismatchError: the weights do not fit the description.

        """
        key = (
            submission.weights_digest,
            submission.description_digest,
            submission.scores_digest,
        )
        with self._lock:
            loaded = self._loaded.pop(key, None) or self._load(submission)
            self._loaded[key] = loaded
            if len(self._loaded) > self._most:
                self._loaded.popitem(last=False)
        return loaded

    def _load(self, submission: SubmissionRow) -> LoadedModel:
        description = parse(ModelDescription, self._blobs.read(submission.description_digest))
        if description.model.architecture.startswith(CUSTOM_PREFIX):
            raise CustomModelError(
                f"{description.model.architecture} is the developer's own module; the server runs "
                "no code of others, query it with the command line in the developer's image"
            )
        # It takes torch to rebuild a model; a server that is not asked for one never loads it.
        import torch

        from auditkit.mint.enhanced import EnhancedAuditedModel

        torch.set_num_threads(MODEL_THREADS)
        model = EnhancedAuditedModel.build(
            (description.model, description.taps, description.mint), ANY_SEED
        )
        model.load_weights(self._blobs.read(submission.weights_digest))
        model.eval()
        scores = read_scores(self._blobs.read(submission.scores_digest))
        return LoadedModel(model, description, scores["calibration"].scores)
