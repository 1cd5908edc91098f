"""Rebuilding submitted models and asking them; the only part of the server that loads torch.

A verdict is computed as it always was: one image at a time, since in a batch rounding would make it
depend on the images beside it, and with one thread.
"""

from collections import OrderedDict

import numpy as np
import torch
from torch.nn import functional

from auditkit.mint.enhanced import EnhancedAuditedModel
from auditkit.mint.errors import MintError
from auditkit.mint.evaluation import ask
from auditkit.mint.initial import initial_weights_digest
from auditor_server.inference.limits import WorkerSettings
from auditor_server.inference.messages import AskModel, Done, RebuildInitialWeights, Work
from auditor_server.store.blobs import BlobFolder
from schemas import ModelDescription, Normalisation, SessionRequest

# The model is rebuilt only for its structure; its weights come from the file.
ANY_SEED = 0

# Two threads of one small model on a busy machine wait for each other far longer than one takes
# alone, and sums depend on their number.
MODEL_THREADS = 1

_ModelName = tuple[str, str]


class ModelWork:
    """The work of a worker that runs models; those that were asked last stay loaded."""

    refusals = MintError

    def __init__(self, settings: WorkerSettings) -> None:
        torch.set_num_threads(MODEL_THREADS)
        _look_at_processor()
        self._blobs = BlobFolder(settings.blobs)
        self._most = settings.models
        self._loaded: OrderedDict[_ModelName, tuple[EnhancedAuditedModel, Normalisation]] = (
            OrderedDict()
        )

    def do(self, work: Work, payload: bytes) -> tuple[Done, bytes]:
        """Ask a submitted model about one image, or rebuild the initial weights of a request.

        Raises:
            MintError: the model can't be built, or its weights do not fit.
            TypeError: other work than that.

        """
        match work:
            case AskModel():
                return self._ask(work, payload)
            case RebuildInitialWeights():
                request = SessionRequest.from_bytes(payload)
                return Done(), initial_weights_digest(request, int(work.seed)).encode()
            case _:
                raise TypeError(f"a worker that runs models was asked to {work.kind}")

    def _ask(self, work: AskModel, payload: bytes) -> tuple[Done, bytes]:
        model, normalisation = self._model(work.weights_digest, work.description_digest)
        # A copy, which torch may hold. And a new axis, not another shape: with the stride that
        # `reshape` gives a batch of one, torch takes another convolution, with other last bits.
        pixels = np.frombuffer(payload, dtype=np.uint8).reshape(work.shape.as_tuple).copy()
        outputs = ask(model, pixels[np.newaxis], normalisation).outputs
        return Done(shape=outputs.shape), outputs.tobytes()

    def _model(
        self, weights_digest: str, description_digest: str
    ) -> tuple[EnhancedAuditedModel, Normalisation]:
        name = (weights_digest, description_digest)
        loaded = self._loaded.pop(name, None)
        if loaded is None:
            # Before the next one is loaded: there may be no room for one more than the most.
            while len(self._loaded) >= self._most:
                self._loaded.popitem(last=False)
            loaded = self._load(weights_digest, description_digest)
        self._loaded[name] = loaded
        return loaded

    def _load(
        self, weights_digest: str, description_digest: str
    ) -> tuple[EnhancedAuditedModel, Normalisation]:
        description = ModelDescription.from_bytes(self._blobs.read(description_digest))
        parts = (description.model, description.taps, description.mint)
        model = EnhancedAuditedModel.build(parts, ANY_SEED)
        model.load_weights(self._blobs.read(weights_digest))
        model.eval()
        return model, description.normalisation


def _look_at_processor() -> None:
    """Have torch and the libraries below it choose their instructions, which they do once.

    Later, when the description of the processor may be out of reach, they would choose others,
    and the last bits of a score would be others too.
    """
    torch.backends.cpu.get_cpu_capability()
    functional.conv2d(torch.zeros(1, 3, 8, 8), torch.zeros(4, 3, 3, 3)).exp()
