"""Taking in a finished model: only what the log was sealed with, and nothing that executes."""

import hashlib
import os
from collections.abc import Mapping
from typing import BinaryIO

from auditkit.mint.scores import CohortScores, read_scores
from auditor_server.context import Auditor
from auditor_server.documents import parse, read_grant
from auditor_server.errors import (
    BodyTooLargeError,
    CalibrationScoresError,
    DescriptionMismatchError,
    ScoresMismatchError,
    ServerError,
    SessionNotSealedError,
    SessionNotSubmittedError,
    SessionRevokedError,
    WeightsDroppedError,
    WeightsMismatchError,
)
from auditor_server.held_submissions import check_exchanges
from auditor_server.process_locks import RETENTION, together
from auditor_server.records import split_lines
from auditor_server.session_keys import SessionKeys
from auditor_server.store import SessionRow, SubmissionRow
from auditor_server.store.blobs import CHUNK_BYTES
from auditor_server.weights_file import read_header
from schemas import CohortName, ModelDescription, SealRecord, TrustRoot, parse_record


def submit(
    auditor: Auditor,
    session: SessionRow,
    *,
    weights: BinaryIO,
    description: BinaryIO,
    scores: BinaryIO,
) -> SubmissionRow:
    """Store the three files of a submission. The same submission again changes nothing.

    Raises:
        SessionNotSealedError: the log goes on.
        WeightsDroppedError: they were submitted before, and are not kept any more.
        BodyTooLargeError: a file is larger than the server accepts.
        WeightsError, and its kinds: not a sound safetensors file, or not the sealed weights.
        InvalidDocumentError, DescriptionMismatchError: not a description, or not the sealed one.
        ScoresFileError, CalibrationScoresError, ScoresMismatchError: not a scores file, or
            without the scores of C, or not the sealed one.

    """
    seal = read_seal(auditor, session)
    _check_kept(auditor.store.submission(session.id))
    limits = auditor.settings
    _check_size(weights, limits.most_weights_bytes, "weights")
    read_header(weights, _size(weights))
    _check_digest(weights, seal.weights_digest, "weights", WeightsMismatchError)
    _check_description(auditor, description, seal)
    _check_size(scores, limits.most_scores_bytes, "scores")
    _check_calibration(read_scores(scores.read()), session)
    _check_digest(scores, seal.scores_digest, "scores", ScoresMismatchError)
    with together(auditor.home.path, RETENTION):
        for file in (weights, description, scores):
            auditor.blobs.write(file)
        return _add(auditor, session, seal)


def submit_held(auditor: Auditor, session: SessionRow, description: BinaryIO) -> SubmissionRow:
    """Store the submission of a session whose T is held here, and with it M+ and the scores.

    Raises:
        SessionNotSealedError: the log goes on.
        BodyTooLargeError, InvalidDocumentError, DescriptionMismatchError: see `submit`.
        HeldExchangesError: the log does not name what took place here.
        CalibrationScoresError: the scores of C are missing.

    """
    seal = read_seal(auditor, session)
    _check_kept(auditor.store.submission(session.id))
    _check_description(auditor, description, seal)
    check_exchanges(auditor, session, seal)
    _check_calibration(read_scores(auditor.blobs.read(seal.scores_digest)), session)
    with together(auditor.home.path, RETENTION):
        auditor.blobs.write(description)
        return _add(auditor, session, seal)


def _add(auditor: Auditor, session: SessionRow, seal: SealRecord) -> SubmissionRow:
    return auditor.store.add_submission(
        SubmissionRow(
            session_id=session.id,
            weights_digest=seal.weights_digest,
            description_digest=seal.description_digest,
            scores_digest=seal.scores_digest,
            received_at=auditor.now(),
        )
    )


def read_seal(auditor: Auditor, session: SessionRow) -> SealRecord:
    """Return the record that ends a session's log.

    Raises:
        SessionNotSealedError: the log has not ended.

    """
    if session.state == "open":
        raise SessionNotSealedError(
            f"the log of session {session.id} has {session.size} records and no seal; finish the "
            "training and send the rest with `auditkit sync`"
        )
    last_line = split_lines(auditor.store.segments(session.id, session.size - 1))[-1]
    record = parse_record(last_line)
    if not isinstance(record, SealRecord):
        raise TypeError(f"session {session.id} is {session.state} and ends without a seal record")
    return record


def find_submission(auditor: Auditor, session: SessionRow) -> SubmissionRow:
    """Return what was submitted for a session.

    Raises:
        SessionNotSubmittedError: nothing yet.

    """
    submission = auditor.store.submission(session.id)
    if submission is None:
        raise SessionNotSubmittedError(
            f"no model was submitted for session {session.id}; run `auditkit submit`"
        )
    return submission


def find_model(auditor: Auditor, session: SessionRow) -> SubmissionRow:
    """Return what was submitted for a session, weights included, to be asked.

    Raises:
        SessionNotSubmittedError: nothing yet.
        SessionRevokedError: the auditor has revoked a key of the session.
        WeightsDroppedError: its weights are not kept any more.

    """
    submission = find_submission(auditor, session)
    _check_kept(submission)
    if is_void(auditor, session, auditor.trust_root()):
        raise SessionRevokedError(
            f"the auditor has revoked a key of session {session.id}: its log counts for nothing "
            "any more, and nothing is answered about its model"
        )
    return submission


def is_void(auditor: Auditor, session: SessionRow, root: TrustRoot) -> bool:
    """Say whether `root`, the one in force, revokes a key of a session."""
    if not root.revoked_session_keys:
        return False
    return SessionKeys.read(auditor.store, session, read_grant(session.grant)[0]).is_revoked(root)


def _check_kept(submission: SubmissionRow | None) -> None:
    if submission is not None and submission.weights_dropped_at is not None:
        raise WeightsDroppedError(
            f"the weights of session {submission.session_id} were dropped on "
            f"{submission.weights_dropped_at:%Y-%m-%d}; its log, its verdicts and the verification "
            "that was signed stay, nothing can be asked of the model any more"
        )


def _check_description(auditor: Auditor, description: BinaryIO, seal: SealRecord) -> None:
    _check_size(description, auditor.settings.most_description_bytes, "description")
    parse(ModelDescription, description.read())
    _check_digest(description, seal.description_digest, "description", DescriptionMismatchError)


def _check_calibration(scores: Mapping[CohortName, CohortScores], session: SessionRow) -> None:
    grant, _ = read_grant(session.grant)
    found = scores["calibration"].size if "calibration" in scores else 0
    if found != grant.split.calibration:
        raise CalibrationScoresError(
            f"expected the scores of {grant.split.calibration} calibration samples, found {found}; "
            "send the scores file of the sealed run"
        )


def _size(file: BinaryIO) -> int:
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    return size


def _check_size(file: BinaryIO, most_bytes: int, what: str) -> None:
    size = _size(file)
    if size > most_bytes:
        raise BodyTooLargeError(
            f"expected {what} of at most {most_bytes} bytes, found {size}; the auditor's settings "
            "name the limit"
        )


def _check_digest(file: BinaryIO, expected: str, what: str, mismatch: type[ServerError]) -> None:
    digest = hashlib.sha256()
    file.seek(0)
    while chunk := file.read(CHUNK_BYTES):
        digest.update(chunk)
    if digest.hexdigest() != expected:
        raise mismatch(
            f"the {what} hash to {digest.hexdigest()}, the log was sealed with {expected}; send "
            "the files of the sealed run"
        )
