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
from auditkit.evidence.bundle import MAX_VERDICTS
from auditkit.evidence.membership_codes import own_code_p_value
from auditkit.mint.batches import items_of, judge
from auditkit.mint.calibration import check_reachable, p_values
from auditkit.mint.codes import blind_scores, own_scores
from auditor_server.codes import CodeBook, open_code_book
from auditor_server.context import Auditor
from auditor_server.documents import parse
from auditor_server.errors import OpeningSessionError, TooManyVerdictsError
from auditor_server.loaded_models import LoadedModel, ModelCache
from auditor_server.orders import find_order, read_order
from auditor_server.store import SessionRow, SubmissionRow, VerdictRow
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

    envelopes: tuple[dsse.Envelope, ...]
    adjusted_p_values: tuple[float, ...]
    verdicts: tuple[MembershipVerdict, ...]
    """What the envelopes hold."""


@dataclass(frozen=True)
class Picture:
    """The pixels of an image as the model takes them, and what opens them, if anything does."""

    pixels: Pixels
    digest: str
    opening: SampleOpening | None = None


@dataclass(frozen=True)
class Question:
    """What is to be asked of one model, ready to be answered."""

    session: SessionRow
    submission: SubmissionRow
    loaded: LoadedModel
    false_positive_rate: float
    pictures: tuple[Picture, ...]

    @property
    def codes(self) -> bool:
        """Whether T was taught codes."""
        return self.loaded.description.mint.evidence == "codes"


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
    """Score images, and sign and store one verdict for each; see `ask` and `answer`."""
    question = ask(
        auditor,
        models,
        session,
        [(image.name, image.data) for image in images],
        false_positive_rate,
    )
    return answer(auditor, open_samples(question, [image.opening for image in images]))


def ask(
    auditor: Auditor,
    models: ModelCache,
    session: SessionRow,
    files: Sequence[tuple[str, bytes]],
    false_positive_rate: float | None,
    *,
    resize: bool = False,
) -> Question:
    """Decode what is asked about, and answer nothing yet.

    Args:
        auditor: the server.
        models: loaded models.
        session: with a submitted model.
        files: images, each a name and its bytes; at least one.
        false_positive_rate: None: the order's own.
        resize: take images of another size, too.

    Raises:
        SessionNotSubmittedError: there is no model yet.
        WeightsDroppedError: there is none any more.
        SessionRevokedError: the session is void.
        TooManyVerdictsError: more than an evidence bundle can hold.
        CustomModelError: the server can't run this model.
        UndecodableImageError, ImageSizeError: an image that the model can't take.
        InferenceError, and its kinds: an image is too much for the server's limits.

    """
    submission = find_model(auditor, session)
    _check_room(session, auditor.store.count_verdicts(session.id), len(files))
    order = read_order(find_order(auditor, session.order_id))
    loaded = models.get(session, submission)
    shape = loaded.description.model
    decoded = auditor.inference.decode(
        files, shape.height, shape.width, shape.channels, resize=resize
    )
    return Question(
        session=session,
        submission=submission,
        loaded=loaded,
        false_positive_rate=(
            order.false_positive_rate if false_positive_rate is None else false_positive_rate
        ),
        pictures=tuple(Picture(pixels, sample_digest(pixels).hex()) for pixels in decoded),
    )


def open_samples(question: Question, openings: Sequence[SampleOpening | None]) -> Question:
    """Return the question with what opens its images as samples of the pool, one or none for each.

    Raises:
        OpeningSessionError, OpeningError: an opening is of another session, or does not hold.

    """
    for picture, opening in zip(question.pictures, openings, strict=True):
        if opening is not None:
            check_opening(question.session, opening, picture.pixels)
    opened = zip(question.pictures, openings, strict=True)
    return replace(
        question,
        pictures=tuple(replace(picture, opening=opening) for picture, opening in opened),
    )


def check_answerable(question: Question) -> None:
    """Check that there is an answer at the rate that was asked for.

    Raises:
        CalibrationTooSmallError: C is too small for the rate of an image that is not opened.

    """
    if any(picture.opening is None for picture in question.pictures):
        check_reachable(len(question.loaded.calibration_scores), question.false_positive_rate)


def answer(auditor: Auditor, question: Question) -> QueryAnswer:
    """Score the images of a question, and sign and store one verdict for each.

    Every verdict stands for itself: its outcome is `member` if its own p-value is at most the
    false-positive rate. Whoever asks about many images at once must expect that share of false
    alarms among strangers; the adjusted p-values (Benjamini-Hochberg, over the different samples of
    this call) control the expected share of false ones among those called members instead.

    Raises:
        CalibrationTooSmallError: see `check_answerable`.
        InferenceError, and its kinds: the model is too much for the server's limits.
        CodesNotUsedError: an image is opened, and the session has no codes.
        TooManyVerdictsError: others have asked meanwhile; see `ask`.

    """
    check_answerable(question)
    session, submission = question.session, question.submission
    bases = _bases(auditor, question)
    level = submission.level
    if level is None:  # the server was stopped between storing the model and verifying it
        level = verify_submission(auditor, session).level
    now = auditor.now()
    verdicts = tuple(
        MembershipVerdict(
            verdict_id=f"{session.id}-{secrets.token_hex(VERDICT_ID_RANDOM_BYTES)}",
            session_id=session.id,
            weights_digest=submission.weights_digest,
            scores_digest=submission.scores_digest,
            sample_digest=picture.digest,
            evidence=basis.evidence,
            score=basis.score,
            code_index=basis.code_index,
            p_value=basis.p_value,
            calibration_size=basis.calibration_size,
            false_positive_rate=question.false_positive_rate,
            outcome="member" if basis.p_value <= question.false_positive_rate else "not_shown",
            level=AssuranceLevel(level),
            issued_at=now,
        )
        for picture, basis in zip(question.pictures, bases, strict=True)
    )
    envelopes = tuple(_sign(auditor, verdict) for verdict in verdicts)

    def make(stored: int) -> list[VerdictRow]:
        _check_room(session, stored, len(verdicts))
        return [
            VerdictRow(
                verdict_id=verdict.verdict_id,
                session_id=session.id,
                envelope=envelope.to_bytes(),
                issued_at=now,
            )
            for verdict, envelope in zip(verdicts, envelopes, strict=True)
        ]

    auditor.store.add_verdicts(session.id, make)
    for verdict in verdicts:
        auditor.metrics.verdicts.labels(verdict.outcome).inc()
    together = judge(items_of(verdicts), None, question.false_positive_rate)
    return QueryAnswer(envelopes, together.adjusted_p_values, verdicts)


def _check_room(session: SessionRow, stored: int, asked: int) -> None:
    if stored + asked > MAX_VERDICTS:
        raise TooManyVerdictsError(
            f"expected at most {MAX_VERDICTS} verdicts about session {session.id}, as many as an "
            f"evidence bundle holds; found {stored}, and {asked} more asked for. Ask about at most "
            f"{max(MAX_VERDICTS - stored, 0)} more pictures, or open a new session"
        )


def _bases(auditor: Auditor, question: Question) -> list[_Basis]:
    loaded, pictures = question.loaded, question.pictures
    outputs = loaded.outputs([picture.pixels for picture in pictures])
    opened = any(picture.opening is not None for picture in pictures)
    if not question.codes and not opened:
        return _calibrated(outputs, loaded.calibration_scores)
    book = open_code_book(auditor, question.session)
    return [
        _blind(output, book, loaded.calibration_scores)
        if picture.opening is None
        else _own(output, book, picture.opening.index)
        for picture, output in zip(pictures, outputs, strict=True)
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


def check_opening(session: SessionRow, opening: SampleOpening, image: Pixels) -> None:
    """Check that pixels are the sample of the pool that an opening opens.

    Raises:
        OpeningSessionError, OpeningError: it is of another session, or does not hold.

    """
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
