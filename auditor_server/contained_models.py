"""Asking models that are made of developers' own code, in the image that trained them alone.

The server runs no such code itself: a fresh container of the verified image answers, locked down as
a training is, and further. It has no network, one folder that it may read (the question), none that
it may write to, one core, and the memory and time of any other model. One at a time runs in all of
a server's processes.
"""

import io
import logging
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum, auto
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from auditkit.evidence import canonical, containment
from auditkit.evidence.containment import ContainmentError
from auditor_server.errors import (
    CustomModelError,
    InferenceBusyError,
    InferenceCrashedError,
    InferenceMemoryError,
    InferenceTimeoutError,
)
from auditor_server.process_locks import LockTimeoutError, alone_within
from auditor_server.settings import ServerSettings
from auditor_server.store import BlobStore
from auditor_server.training_images import TrainingImages
from containers.container import Container
from containers.engine import Engine
from containers.engine_errors import EngineError
from containers.errors import ContainerError
from containers.filesystem import FileState
from containers.identity import InspectedImage
from containers.lockdown import Lockdown
from containers.package import packaged
from containers.query_task import QueryTask, lay_out, read_answer
from containers.running import (
    MOST_PROCESSES,
    bring_in,
    inspect_with_files,
    make_readable,
    removed_at_the_end,
    user_inside,
)
from schemas import ModelDescription, SessionGrant, SessionRequest

_LOG = logging.getLogger(__name__)

QUERY_LABEL = "dev.auditkit.query"
LOCK = "contained-query"
# Pictures are never to be stored: where the system has room in memory, they lie there.
MEMORY_FOLDER = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it
CORES = 1.0
# 256 pictures with the longest codes take a third of it, in base64.
MOST_PRINTED_BYTES = 16 * 2**20
MOST_LAST_WORDS = 4_000  # of the developer's code, in the server's log

_Verified = tuple[InspectedImage, Mapping[str, FileState]]


@dataclass(frozen=True)
class ContainedModel:
    """A submitted model behind its image; an `Engine` of `auditor_server.loaded_models`."""

    models: "ContainedModels"
    request: SessionRequest
    grant: SessionGrant

    def task(self, image: InspectedImage, description: ModelDescription) -> QueryTask:
        """Return what a container of the image is to do.

        Raises:
            CustomModelError: see `outputs`.

        """
        loop = packaged(image.config).loop
        if loop is None:
            raise CustomModelError(
                f"the image of session {description.session_id} does not say which file is the "
                "training loop; have the developer train in an image that `auditkit package` of "
                "this version or a later one has made"
            )
        return QueryTask(
            request=self.request,
            grant=self.grant,
            normalisation=description.normalisation,
            loop=loop,
        )

    def outputs(
        self,
        description: ModelDescription,
        digests: tuple[str, str],
        images: Sequence[NDArray[np.uint8]],
    ) -> NDArray[np.float32]:
        """Return what T says of each image, (n,) logits or (n, length) of codes.

        Raises:
            CustomModelError: the image says nothing about a training loop.
            InferenceError, and its kinds: it is too much for the limits, or the engine or the
                developer's code has failed.
            BlobMissingError, BlobDamagedError, BlobStoreUnavailableError: there is no such model.

        """
        mint = self.request.config.mint
        length = (mint.code_length,) if mint.evidence == "codes" else ()
        shape = (len(images), *length)
        data = self.models.ask(self, description, digests[0], images, shape)
        return np.frombuffer(data, dtype="<f4").astype(np.float32).reshape(shape)


class ContainedModels:
    """All models of developers' own code, asked one after the other."""

    def __init__(self, home: Path, settings: ServerSettings, blobs: BlobStore) -> None:
        """Start nothing yet."""
        self._home = home
        self._settings = settings
        self._blobs = blobs
        self._images = TrainingImages(home)
        self._verified: dict[str, _Verified] = {}
        self._running: _Ending | None = None

    def model(self, request: SessionRequest, grant: SessionGrant) -> ContainedModel:
        """Return a submitted model, ready to be asked.

        Raises:
            CustomModelError: there is no image that it could be asked in.

        """
        self._image_digest(request)
        return ContainedModel(self, request, grant)

    def stop(self) -> None:
        """End what runs; whoever waits for it is told."""
        running = self._running
        if running is not None:
            running.end(_Reason.STOPPING)

    def ask(
        self,
        model: ContainedModel,
        description: ModelDescription,
        weights_digest: str,
        images: Sequence[NDArray[np.uint8]],
        shape: tuple[int, ...],
    ) -> bytes:
        """Run a model once, in a fresh container; see `ContainedModel.outputs`."""
        what = f"asking the {description.model.architecture} of session {description.session_id}"
        pictures = b"".join(image.tobytes() for image in images)
        digest = self._image_digest(model.request)  # it may have been deleted since
        try:
            with alone_within(self._home, LOCK, self._settings.most_waiting_seconds):
                image, files = self._verified.get(digest) or self._inspect(digest)
                task = canonical.to_bytes(model.task(image, description))
                # Whoever still waits for the lock holds no weights.
                weights = self._blobs.read(weights_digest)
                with _question(task, weights, pictures) as folder, Engine.connect() as engine:
                    container = self._create(engine, image, folder)
                    with removed_at_the_end(container):
                        if digest not in self._verified:
                            container.check_files(files)
                            self._verified[digest] = (image, {})  # checked, and needed no more
                        return read_answer(self._run(container, image, what), shape)
        except LockTimeoutError as error:
            raise InferenceBusyError(f"{what}: {error}; ask again later") from error
        except (ContainerError, ContainmentError) as error:
            _LOG.exception("%r failed", what)
            raise InferenceCrashedError(f"{what}: {error}") from error

    def _image_digest(self, request: SessionRequest) -> str:
        """Return which image trained, if it is here."""
        architecture, digest = request.config.model.architecture, request.image_digest
        if digest is None:
            raise CustomModelError(
                f"{architecture} is the developer's own module and was trained outside any image; "
                "the server runs such code in the image that trained it, and nowhere else"
            )
        if not self._images.has(digest):
            raise CustomModelError(
                f"{architecture} is the developer's own module, which runs in the image that "
                f"trained it alone; get image {digest} from the developer and take it in with "
                "`auditkit server add-image ARCHIVE`"
            )
        return digest

    def _inspect(self, digest: str) -> _Verified:
        image, files = inspect_with_files(self._images.path(digest))
        if image.identity.config_digest != digest:
            raise InferenceCrashedError(
                f"expected image {digest} under its own name, found "
                f"{image.identity.config_digest}; take it in again with `auditkit server add-image`"
            )
        return image, files

    def _create(self, engine: Engine, image: InspectedImage, folder: Path) -> Container:
        # Nobody else asks meanwhile, so whatever is there was left by a process that was killed.
        labels = {QUERY_LABEL: sha256(bytes(self._home.resolve())).hexdigest()}
        for leftover in engine.containers(labels):
            leftover.remove()
        lockdown = Lockdown(
            relay_folder=folder,
            output=None,
            pool=None,
            test=None,
            user=user_inside(rootless=engine.facts().rootless),
            memory_bytes=self._settings.most_model_memory_bytes,
            cpus=CORES,
            most_processes=MOST_PROCESSES,
            labels=labels,
        )
        archive = self._images.path(image.identity.config_digest)
        return engine.create(bring_in(engine, archive, image), lockdown)

    def _run(self, container: Container, image: InspectedImage, what: str) -> bytes:
        ending = _Ending(container)
        printed = _Printed(MOST_PRINTED_BYTES, ending)
        said = _LastWords(MOST_LAST_WORDS)
        seconds = self._settings.most_model_seconds
        timer = threading.Timer(seconds, ending.end, [_Reason.TIME])
        timer.daemon = True
        self._running = ending
        try:
            container.start()
            containment.check_query_description(
                image.identity, image.config.decode(), container.describe()
            )
            timer.start()
            container.forward_output(printed, said)
            code = container.wait()
        finally:
            timer.cancel()
            self._running = None
        match ending.reason:
            case _Reason.TIME:
                raise InferenceTimeoutError(
                    f"{what}: not done within {seconds:g} s; send fewer images in one call, or "
                    "have the auditor raise the limit"
                )
            case _Reason.PRINTED:
                raise InferenceCrashedError(
                    f"{what}: the developer's code printed more than {MOST_PRINTED_BYTES} bytes, "
                    "and was ended"
                )
            case _Reason.STOPPING:
                raise InferenceBusyError("the server is stopping; ask again when it is back")
        if container.out_of_memory:
            raise InferenceMemoryError(
                f"{what}: needs more memory than the server's settings allow; have the auditor "
                "raise the limit"
            )
        if code:
            _LOG.error("%r ended with exit code %d: %r", what, code, said.text)
            raise InferenceCrashedError(
                f"{what}: the developer's code ended with exit code {code}; the server's log has "
                "its last words"
            )
        return printed.getvalue()


@contextmanager
def _question(task: bytes, weights: bytes, pictures: bytes) -> Iterator[Path]:
    """Lend a folder with a question in it, which only its container and we can enter."""
    size = len(task) + len(weights) + len(pictures)
    with TemporaryDirectory(prefix="auditkit-", dir=_memory_folder(size)) as private:
        folder = Path(private) / "question"
        folder.mkdir()
        lay_out(folder, task, weights, pictures)
        make_readable(folder)
        yield folder


def _memory_folder(size: int) -> Path | None:
    """Return a folder in memory with room for so many bytes; None: there is none."""
    if not MEMORY_FOLDER.is_dir():
        return None
    # In a container of usual settings it has 64 MiB. What is free may be taken by others.
    return MEMORY_FOLDER if shutil.disk_usage(MEMORY_FOLDER).free > 2 * size else None


class _Reason(Enum):
    """Why a container was ended before it was done."""

    TIME = auto()
    PRINTED = auto()
    STOPPING = auto()


class _Ending:
    """Ends a container early, for the first reason that comes."""

    def __init__(self, container: Container) -> None:
        self.reason: _Reason | None = None
        self._container = container
        self._lock = threading.Lock()

    def end(self, reason: _Reason) -> None:
        with self._lock:
            if self.reason is not None:
                return
            self.reason = reason
        # In a thread of its own: an engine whose output nobody reads meanwhile ends nothing.
        threading.Thread(target=self._kill, daemon=True).start()

    def _kill(self) -> None:
        with suppress(EngineError):  # whoever reads its output is told as well
            self._container.kill()


class _Printed(io.BytesIO):
    """What a container prints, as far as an answer can be long; the rest is let go."""

    def __init__(self, most: int, ending: _Ending) -> None:
        super().__init__()
        self._most = most
        self._ending = ending

    def write(self, data: "bytes | bytearray | memoryview", /) -> int:  # type: ignore[override]
        if self.tell() + len(data) > self._most:
            self._ending.end(_Reason.PRINTED)
            return len(data)
        return super().write(data)


class _LastWords(io.BytesIO):
    """The end of what a container says beside its answer."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    @property
    def text(self) -> str:
        return self.getvalue().decode(errors="replace")

    def write(self, data: "bytes | bytearray | memoryview", /) -> int:  # type: ignore[override]
        kept = (self.getvalue() + bytes(data))[-self._most :]
        self.seek(0)
        self.truncate()
        super().write(kept)
        return len(data)
