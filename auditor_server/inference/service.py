"""Everything that the server has done in other processes, so that it never does it itself."""

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from auditkit.data.errors import DataError
from auditkit.evidence.canonical import to_bytes
from auditkit.evidence.model_checks import RebuildingError
from auditkit.mint.errors import MintError
from auditor_server.errors import InferenceBusyError, InferenceError, InferenceFailedError
from auditor_server.inference.limits import WorkerKind, WorkerSettings
from auditor_server.inference.messages import (
    AskModel,
    DecodeImage,
    ImageShape,
    RebuildInitialWeights,
)
from auditor_server.inference.pool import PoolLimits, WorkerPool
from auditor_server.metrics import Metrics
from auditor_server.settings import ServerSettings
from auditor_server.store.blobs import BlobStore
from schemas import ModelDescription, SessionRequest

FLOAT_BYTES = 4
DIGEST_CHARACTERS = 64

N = TypeVar("N", np.uint8, np.float32)


class Inference:
    """Two pools of processes: one opens uploaded images, one runs submitted models.

    They are apart because an image may come from anybody, and because a process that decodes is
    cheap to lose, while one that holds models takes seconds to replace. Nothing is started before
    it is needed.
    """

    def __init__(
        self, settings: ServerSettings, blobs: BlobStore, metrics: Metrics | None = None
    ) -> None:
        self._blobs = blobs
        metrics = metrics or Metrics()
        self._images = WorkerPool(
            WorkerSettings(
                kind=WorkerKind.IMAGES,
                memory_bytes=settings.most_decoding_memory_bytes,
                blobs=blobs.folder,
            ),
            PoolLimits(
                settings.decoding_workers,
                settings.most_decoding_seconds,
                settings.most_waiting,
                settings.most_waiting_seconds,
            ),
            _by_name(DataError),
            metrics,
        )
        self._models = WorkerPool(
            WorkerSettings(
                kind=WorkerKind.MODELS,
                memory_bytes=settings.most_model_memory_bytes,
                models=settings.models_in_memory,
                blobs=blobs.folder,
            ),
            PoolLimits(
                settings.model_workers,
                settings.most_model_seconds,
                settings.most_waiting,
                settings.most_waiting_seconds,
            ),
            _by_name(MintError),
            metrics,
        )

    def decode(
        self,
        files: Sequence[tuple[str, bytes]],
        height: int,
        width: int,
        channels: int,
        *,
        resize: bool = False,
    ) -> list[NDArray[np.uint8]]:
        """Decode image files, each a name and its bytes, to pixels (H, W, C).

        Args:
            files: images.
            height: in pixels.
            width: in pixels.
            channels: one is grey, three are RGB.
            resize: take images of another size, too, and resize them as pools are resized.

        Raises:
            UndecodableImageError, and its kinds; ImageSizeError: see `decode_image`.
            InferenceError, and its kinds: the files are too much for the limits, or worse.

        """
        shape = ImageShape(height=height, width=width, channels=channels)
        with self._images.lease() as lease:
            found = []
            for name, data in files:
                what = f"decoding {name}"
                work = DecodeImage(shape=shape, name=name, resize=resize)
                result = lease.do(work, data, shape.size, what)
                found.append(_array(result, np.uint8, shape.as_tuple, what))
        return found

    def outputs(
        self,
        description: ModelDescription,
        digests: tuple[str, str],
        images: Sequence[NDArray[np.uint8]],
    ) -> NDArray[np.float32]:
        """Return what T says of each image, (n,) logits or (n, length) of codes.

        Args:
            description: of the model.
            digests: of its stored weights and of its stored description.
            images: each of shape (H, W, C).

        Raises:
            MintError: the model can't be built, or its weights do not fit.
            InferenceError, and its kinds: it is too much for the limits, or worse.
            BlobMissingError, BlobDamagedError, BlobStoreUnavailableError: there is no such model.

        """
        weights_digest, description_digest = digests
        model, mint = description.model, description.mint
        work = AskModel(
            weights_digest=weights_digest,
            description_digest=description_digest,
            shape=ImageShape(height=model.height, width=model.width, channels=model.channels),
        )
        shape = (1, mint.code_length) if mint.evidence == "codes" else (1,)
        what = f"asking the {model.architecture} of session {description.session_id}"
        for digest in digests:
            self._blobs.fetch(digest)
        with self._models.lease() as lease:
            return np.concatenate(
                [
                    _array(
                        lease.do(work, image.tobytes(), FLOAT_BYTES * math.prod(shape), what),
                        np.float32,
                        shape,
                        what,
                    )
                    for image in images
                ]
            )

    def initial_weights_digest(self, request: SessionRequest, seed: int) -> str:
        """Return the SHA-256 of M+'s weights file before the first step, from the nonce's seed.

        Raises:
            UnbuildableModelError: there is no such model.
            RebuildingError: this server can't do it, which says nothing about the weights.
            InferenceBusyError: it was not even tried.

        """
        work = RebuildInitialWeights(seed=str(seed))
        what = f"rebuilding the initial weights of a {request.config.model.architecture}"
        try:
            with self._models.lease() as lease:
                _, digest = lease.do(work, to_bytes(request), DIGEST_CHARACTERS, what)
        except InferenceBusyError:
            raise
        except InferenceError as error:
            raise RebuildingError(str(error)) from error
        return digest.decode("ascii", errors="replace")

    def stop(self) -> None:
        """End all processes."""
        self._images.stop()
        self._models.stop()


def _array(
    result: tuple[tuple[int, ...], bytes], kind: type[N], shape: tuple[int, ...], what: str
) -> NDArray[N]:
    """Return the array that a worker has sent; a worker in other hands may send any."""
    found, data = result
    if found != shape or len(data) != math.prod(shape) * np.dtype(kind).itemsize:
        raise InferenceFailedError(
            f"{what}: expected an array {shape}, found {found} of {len(data)} bytes"
        )
    return np.frombuffer(data, dtype=kind).reshape(shape)


def _by_name(base: type[Exception]) -> dict[str, type[Exception]]:
    """Return an error and all its kinds by their names."""
    kinds = (kind for child in base.__subclasses__() for kind in _by_name(child).values())
    return {kind.__name__: kind for kind in (base, *kinds)}
