"""What both ways to ask models about pictures declare: single queries and inquiries."""

from typing import Final

from auditkit.data.errors import DataError
from auditkit.evidence.errors import EvidenceError
from auditkit.mint.errors import MintError
from auditor_server.access import questions
from auditor_server.errors import (
    CodesNotUsedError,
    CustomModelError,
    HeldQueryError,
    InferenceBusyError,
    InferenceCrashedError,
    InferenceMemoryError,
    InferenceTimeoutError,
    InvalidDocumentError,
    MissingPartError,
    OpeningSessionError,
    PurposeMissingError,
    SessionNotSubmittedError,
    SessionRevokedError,
    TooManyVerdictsError,
    WeightsDroppedError,
)

NO_ANSWER: Final[tuple[type[Exception], ...]] = (
    HeldQueryError,
    SessionNotSubmittedError,
    SessionRevokedError,
    WeightsDroppedError,
    CodesNotUsedError,
    TooManyVerdictsError,
    PurposeMissingError,
    InvalidDocumentError,
    MissingPartError,
    OpeningSessionError,
    CustomModelError,
    EvidenceError,
    MintError,
    DataError,
    InferenceMemoryError,
    InferenceTimeoutError,
    InferenceCrashedError,
    InferenceBusyError,
)
"""Why a model may give no answer."""

PURPOSE_SCHEMA: Final = {
    "type": "string",
    "maxLength": questions.MOST_PURPOSE_CHARACTERS,
    "description": "what is asked for; only an auditor may leave it out",
}
