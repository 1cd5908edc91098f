"""Membership queries: an image goes through M+, and a signed verdict comes out.

Three ways to an answer, kept apart (`docs/protocol.md`, section 10). Without codes, T's logit is
ranked among those of C. With codes, an image that comes with its opening is asked for its *own*
code, whose p-value is provable. Any other image is asked *blind*: all members' codes are compared,
the best one names the member, and its score is ranked among the blind scores of C.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from auditkit.data.images import Pixels
from auditkit.data.manifest import Opening, sample_digest, verify_opening
from auditkit.evidence import dsse, statements
from auditkit.evidence.membership_codes import own_code_p_value
from auditkit.mint.calibration import check_reachable, control_false_discoveries, p_values
from auditkit.mint.codes import blind_scores, own_scores
from auditor_server.codes import CodeBook, open_code_book
from auditor_server.context import Auditor
from auditor_server.documents import parse
from auditor_server.errors import OpeningSessionError
from auditor_server.loaded_models import LoadedModel, ModelCache
from auditor_server.orders import find_order, read_order
from auditor_server.store import SessionRow, VerdictRow
from auditor_server.submissions import find_model
from auditor_server.verification import verify_submission
from schemas import AssuranceLevel, MembershipVerdict, SampleOpening, SessionRequest
from schemas.verdict import EvidenceKind

VERDICT_ID_RANDOM_BYTES = 8


@dataclass(frozen=True)
class QueryImage:
    """An image file as it was sent, and what opens it as a sample of the pool, if anything does."""

    name: str
    data: bytes
    opening: SampleOpening | None = None


@dataclass(frozen=True)
class QueryAnswer:
    """Signed verdicts in the order of the images, and adjusted p-values, which are not signed."""

    verdicts: tuple[dsse.Envelope, ...]
    adjusted_p_values: tuple[float, ...]


@dataclass(frozen=True)
class _Basis:
    """What one verdict rests on."""

    evidence: EvidenceKind
    score: float
    p_value: float
    calibration_size: int
    code_index: int | None = None


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
        WeightsDroppedError: there is none any more.
        CustomModelError: the server can't run this model.
        CalibrationTooSmallError: C is too small for the rate of an image that is not opened.
        UndecodableImageError, ImageSizeError: an image that the model can't take.
        InferenceError, and its kinds: an image or the model is too much for the server's limits.
        CodesNotUsedError: an image is opened, and the session has no codes.
        OpeningSessionError, OpeningError: an opening is of another session, or does not hold.

    """
    submission = find_model(auditor, session)
    order = read_order(find_order(auditor, session.order_id))
    rate = order.false_positive_rate if false_positive_rate is None else false_positive_rate
    loaded = models.get(submission)
    if any(image.opening is None for image in images):
        check_reachable(len(loaded.calibration_scores), rate)
    shape = loaded.description.model
    files = [(image.name, image.data) for image in images]
    pixels = auditor.inference.decode(files, shape.height, shape.width, shape.channels)
    for image, decoded in zip(images, pixels, strict=True):
        if image.opening is not None:
            _check_opening(session, image.opening, decoded)
    bases = _bases(auditor, session, loaded, images, loaded.outputs(pixels))
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
            sample_digest=sample_digest(decoded).hex(),
            evidence=basis.evidence,
            score=basis.score,
            code_index=basis.code_index,
            p_value=basis.p_value,
            calibration_size=basis.calibration_size,
            false_positive_rate=rate,
            outcome="member" if basis.p_value <= rate else "not_shown",
            level=AssuranceLevel(level),
            issued_at=now,
        )
        for decoded, basis in zip(pixels, bases, strict=True)
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
    for verdict in verdicts:
        auditor.metrics.verdicts.labels(verdict.outcome).inc()
    adjusted = control_false_discoveries([basis.p_value for basis in bases])
    return QueryAnswer(envelopes, tuple(float(value) for value in adjusted))


def _bases(
    auditor: Auditor,
    session: SessionRow,
    loaded: LoadedModel,
    images: Sequence[QueryImage],
    outputs: NDArray[np.float32],
) -> list[_Basis]:
    opened = any(image.opening is not None for image in images)
    if loaded.description.mint.evidence != "codes" and not opened:
        return _calibrated(outputs, loaded.calibration_scores)
    book = open_code_book(auditor, session)
    return [
        _blind(output, book, loaded.calibration_scores)
        if image.opening is None
        else _own(output, book, image.opening.index)
        for image, output in zip(images, outputs, strict=True)
    ]


def _calibrated(scores: NDArray[np.float32], calibration: NDArray[np.float32]) -> list[_Basis]:
    return [
        _Basis("calibrated", float(score), float(p_value), len(calibration))
        for score, p_value in zip(scores, p_values(scores, calibration), strict=True)
    ]


def _blind(output: NDArray[np.float32], book: CodeBook, calibration: NDArray[np.float32]) -> _Basis:
    best = blind_scores(output[np.newaxis], book.members)
    (basis,) = _calibrated(best.scores, calibration)
    return replace(basis, code_index=int(book.indices[best.members[0]]))


def _own(output: NDArray[np.float32], book: CodeBook, index: int) -> _Basis:
    score = float(own_scores(output[np.newaxis], book.own(index))[0])
    return _Basis("declared", score, own_code_p_value(score), 0, code_index=index)


def _check_opening(session: SessionRow, opening: SampleOpening, image: Pixels) -> None:
    if opening.session_id != session.id:
        raise OpeningSessionError(
            f"expected an opening of a sample of session {session.id}, found one of "
            f"{opening.session_id}; ask the developer for the right one"
        )
    verify_opening(
        Opening(
            index=opening.index,
            key=bytes.fromhex(opening.key),
            label=opening.label,
            proof=tuple(bytes.fromhex(node) for node in opening.proof),
        ),
        image,
        parse(SessionRequest, session.request).pool,
    )


def _sign(auditor: Auditor, verdict: MembershipVerdict) -> dsse.Envelope:
    subjects = statements.subject("verdict", verdict.verdict_id, verdict)
    payload = statements.make(statements.VERDICT_PREDICATE, verdict, subjects)
    return dsse.sign(payload, [auditor.signing_key("verdict", verdict.issued_at)])
