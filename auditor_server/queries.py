"""Membership queries: an image goes through M+, and a signed verdict comes out."""

import secrets
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from auditkit.data.images import decode_image
from auditkit.data.manifest import sample_digest
from auditkit.evidence import dsse, statements
from auditkit.mint.calibration import check_reachable, control_false_discoveries, p_values
from auditkit.mint.enhanced import EnhancedAuditedModel
from auditkit.mint.evaluation import membership_scores
from auditkit.mint.models import CUSTOM_PREFIX
from auditkit.mint.scores import read_scores
from auditor_server.context import Auditor
from auditor_server.documents import parse
from auditor_server.errors import CustomModelError
from auditor_server.orders import find_order, read_order
from auditor_server.store import BlobStore, SessionRow, SubmissionRow, VerdictRow
from auditor_server.submissions import find_submission
from auditor_server.verification import verify_submission
from schemas import AssuranceLevel, MembershipVerdict, ModelDescription

VERDICT_ID_RANDOM_BYTES = 8
# The model is rebuilt only for its structure; its weights come from the file.
ANY_SEED = 0


@dataclass(frozen=True)
class LoadedModel:
    """M+ in evaluation mode, its description, and the scores of C that it is calibrated with."""

    model: EnhancedAuditedModel
    description: ModelDescription
    calibration_scores: NDArray[np.float32]

    def scores(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Return T's score of each image, (n,); `images` are of shape (H, W, C).

        One at a time: in a batch, rounding would make a verdict depend on the images beside it.
        """
        normalisation = self.description.normalisation
        return np.concatenate(
            [membership_scores(self.model, image[np.newaxis], normalisation) for image in images]
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
        model = EnhancedAuditedModel.build(
            (description.model, description.taps, description.mint), ANY_SEED
        )
        model.load_weights(self._blobs.read(submission.weights_digest))
        model.eval()
        scores = read_scores(self._blobs.read(submission.scores_digest))
        return LoadedModel(model, description, scores["calibration"].scores)


@dataclass(frozen=True)
class QueryImage:
    """An image file as it was sent."""

    name: str
    data: bytes


@dataclass(frozen=True)
class QueryAnswer:
    """Signed verdicts in the order of the images, and adjusted p-values, which are not signed."""

    verdicts: tuple[dsse.Envelope, ...]
    adjusted_p_values: tuple[float, ...]


def query(
    auditor: Auditor,
    models: ModelCache,
    session: SessionRow,
    images: Sequence[QueryImage],
    false_positive_rate: float | None,
) -> QueryAnswer:
    """Score images, and sign and store one verdict for each.

    Every verdict stands for itself: its outcome is `member` if its own p-value is at most the
    false-positive rate. Whoever asks about many images at once must expect that share of false
    alarms among strangers; the adjusted p-values (Benjamini-Hochberg, over the images of this
    call) control the expected share of false ones among those called members instead.

    Args:
        auditor: the server.
        models: loaded models.
        session: with a submitted model.
        images: at least one.
        false_positive_rate: None: the order's own.

    Raises:
        SessionNotSubmittedError: there is no model yet.
        CustomModelError: the server can't run this model.
        CalibrationTooSmallError: C is too small for the rate.
        UndecodableImageError, ImageSizeError: an image that the model can't take.

    """
    submission = find_submission(auditor, session)
    order = read_order(find_order(auditor, session.order_id))
    rate = order.false_positive_rate if false_positive_rate is None else false_positive_rate
    loaded = models.get(submission)
    calibration = loaded.calibration_scores
    check_reachable(len(calibration), rate)
    shape = loaded.description.model
    pixels = [
        decode_image(image.data, shape.height, shape.width, shape.channels, name=image.name)
        for image in images
    ]
    scores = loaded.scores(pixels)
    p = p_values(scores, calibration)
    level = submission.level
    if level is None:  # the server was stopped between storing the model and verifying it
        level = verify_submission(auditor, session).level
    now = auditor.now()
    verdicts = [
        MembershipVerdict(
            verdict_id=f"{session.id}-{secrets.token_hex(VERDICT_ID_RANDOM_BYTES)}",
            session_id=session.id,
            weights_digest=submission.weights_digest,
            scores_digest=submission.scores_digest,
            sample_digest=sample_digest(image).hex(),
            score=float(score),
            p_value=float(p_value),
            calibration_size=len(calibration),
            false_positive_rate=rate,
            outcome="member" if p_value <= rate else "not_shown",
            level=AssuranceLevel(level),
            issued_at=now,
        )
        for image, score, p_value in zip(pixels, scores, p, strict=True)
    ]
    envelopes = tuple(_sign(auditor, verdict) for verdict in verdicts)
    auditor.store.add_verdicts(
        [
            VerdictRow(
                verdict_id=verdict.verdict_id,
                session_id=session.id,
                envelope=envelope.to_bytes(),
                issued_at=now,
            )
            for verdict, envelope in zip(verdicts, envelopes, strict=True)
        ]
    )
    return QueryAnswer(envelopes, tuple(float(value) for value in control_false_discoveries(p)))


def _sign(auditor: Auditor, verdict: MembershipVerdict) -> dsse.Envelope:
    subjects = statements.subject("verdict", verdict.verdict_id, verdict)
    payload = statements.make(statements.VERDICT_PREDICATE, verdict, subjects)
    return dsse.sign(payload, [auditor.verdict_key])
