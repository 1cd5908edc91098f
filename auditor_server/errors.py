"""Every rule that the server enforces itself, as one typed error with its HTTP status."""

from http import HTTPStatus
from typing import ClassVar


class ServerError(Exception):
    """Base of the server's own errors; the message is shown to the caller."""

    status: ClassVar[HTTPStatus] = HTTPStatus.UNPROCESSABLE_ENTITY


class HomeError(ServerError):
    """The auditor's home folder can't be used."""

    status = HTTPStatus.INTERNAL_SERVER_ERROR


class HomeExistsError(HomeError):
    """There is a home already; its keys must never be overwritten."""


class HomeNotFoundError(HomeError):
    """No complete home lies at this path."""


class KeyFileError(HomeError):
    """A private key's file is missing, does not open, or would be overwritten."""


class LateVersionError(HomeError):
    """A version of the trust root would have taken over already before it is put in its place."""


class DatabaseUrlError(HomeError):
    """The database's URL names no database that the server can use."""


class DatabaseNotFoundError(HomeError):
    """The home has no database of its own, and none was named."""


class DatabaseInUseError(HomeError):
    """The database holds another auditor's documents already."""


class DatabaseNotDurableError(HomeError):
    """The database is set up to lose what it has committed."""


class DatabaseSchemaError(HomeError):
    """The database's tables are not those that this version of the server knows."""


class BackupError(HomeError):
    """There is no whole backup to restore, or no place for one."""


class BlobStoreUrlError(HomeError):
    """The URL names no place for blobs that the server can use."""


class UnavailableError(ServerError):
    """Something that the server needs is away; the same request is good later."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    retry_after_seconds: ClassVar[int] = 5


class DatabaseUnavailableError(UnavailableError):
    """The database does not answer. What was not answered may be stored or not; send it again."""


class DatabaseFullError(UnavailableError):
    """There is no room for the database on its disk. What was accepted before is kept."""


class NotReadyError(UnavailableError):
    """The server can't do its work now."""


class BlobStoreUnavailableError(UnavailableError):
    """The place where submitted files are kept can't be reached or used now."""


class BlobMissingError(ServerError):
    """A file that was submitted is not where it was stored."""

    status = HTTPStatus.INTERNAL_SERVER_ERROR


class BlobDamagedError(ServerError):
    """A stored file is not the one that was submitted."""

    status = HTTPStatus.INTERNAL_SERVER_ERROR


class TrustRootNotFoundError(ServerError):
    """The auditor's trust root has no such version."""

    status = HTTPStatus.NOT_FOUND


class PortInUseError(ServerError):
    """The address can't be bound: another program listens there, or it is not ours."""

    status = HTTPStatus.INTERNAL_SERVER_ERROR


class WorkerFailedError(ServerError):
    """A process of the server could not start."""

    status = HTTPStatus.INTERNAL_SERVER_ERROR


class NotAuthenticatedError(ServerError):
    """No bearer token, or one that this server never issued."""

    status = HTTPStatus.UNAUTHORIZED


class TokenExpiredError(NotAuthenticatedError):
    """The token's time is over."""


class TokenRevokedError(NotAuthenticatedError):
    """The auditor has taken the token back."""


class SignInError(NotAuthenticatedError):
    """No user of this name and password may sign in; which of them is wrong is not told."""


class NotSignedInError(NotAuthenticatedError):
    """There is no sign-in behind this cookie, or it has ended."""


class NotAllowedError(ServerError):
    """The token is good, its role may not do this."""

    status = HTTPStatus.FORBIDDEN


class OutOfScopeError(NotAllowedError):
    """The token is good for one session, and this concerns more."""


class HeldQueryError(NotAllowedError):
    """The auditor holds this session's MINT Model, and no other organisation gets its scores."""


class CsrfError(NotAllowedError):
    """A form was sent that this server has not given to this sign-in."""


class RateLimitError(ServerError):
    """More was asked for in a short time than one token or person may."""

    status = HTTPStatus.TOO_MANY_REQUESTS

    def __init__(self, message: str, retry_after_seconds: int) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class SignInThrottledError(RateLimitError):
    """Too many passwords were tried for one name."""


class PurposeMissingError(ServerError):
    """A membership query does not say what it is for, and is personal data itself."""


class OrganisationNotFoundError(ServerError):
    """No organisation has this identifier."""

    status = HTTPStatus.NOT_FOUND


class OrganisationExistsError(ServerError):
    """Another organisation has this identifier or this name already."""

    status = HTTPStatus.CONFLICT


class RoleOrganisationError(ServerError):
    """This organisation can't have anybody in this role."""


class TokenNotFoundError(ServerError):
    """No token has this name."""

    status = HTTPStatus.NOT_FOUND


class UserNotFoundError(ServerError):
    """No user has this name."""

    status = HTTPStatus.NOT_FOUND


class UserExistsError(ServerError):
    """Another user has this name already."""

    status = HTTPStatus.CONFLICT


class PasswordTooShortError(ServerError):
    """A password that can be guessed."""


class AccessNameError(ServerError):
    """A name that can't be told apart, typed or printed everywhere."""


class BodyTooLargeError(ServerError):
    """The request body is larger than the endpoint accepts."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE


class InvalidDocumentError(ServerError):
    """A document breaks its schema."""


class InvalidParameterError(ServerError):
    """A parameter of the request is missing or invalid."""


class UnstorableValueError(ServerError):
    """A name or number that no database can hold, so nothing has it."""


class MissingPartError(ServerError):
    """A multipart form lacks a file."""


class OrderNotFoundError(ServerError):
    """No order has this name."""

    status = HTTPStatus.NOT_FOUND


class OrderExistsError(ServerError):
    """Another order has this name already."""

    status = HTTPStatus.CONFLICT


class WitnessNotConfiguredError(ServerError):
    """The order demands witnesses that this server does not ask."""


class SessionNotFoundError(ServerError):
    """No session has this name, or it belongs to someone else."""

    status = HTTPStatus.NOT_FOUND


class OrderMismatchError(ServerError):
    """The request was made for another order than the one it names."""


class LeavesError(ServerError):
    """Leaves that do not add up to the commitment in the request."""


class SessionKeyReusedError(ServerError):
    """A session key serves one session only."""

    status = HTTPStatus.CONFLICT


class KeyNotInForceError(ServerError):
    """A key of the session that does not sign this part of its log: another container's."""

    status = HTTPStatus.FORBIDDEN


class SessionExpiredError(ServerError):
    """The session's key is out of date or revoked; nothing more is accepted under it."""

    status = HTTPStatus.FORBIDDEN


class SessionSealedError(ServerError):
    """The log ended with its seal record; nothing may follow."""

    status = HTTPStatus.CONFLICT


class SessionNotSealedError(ServerError):
    """The log has no seal record yet, so there is nothing that a model could be compared with."""

    status = HTTPStatus.CONFLICT


class SessionNotSubmittedError(ServerError):
    """There is no submitted model yet."""

    status = HTTPStatus.CONFLICT


class SessionRevokedError(ServerError):
    """The auditor has revoked a key of this session, so its log and its model prove nothing."""

    status = HTTPStatus.GONE


class WeightsDroppedError(ServerError):
    """The weights of this model were kept as long as the auditor keeps any, and no longer."""

    status = HTTPStatus.GONE


class ContinuationError(ServerError):
    """The session can't go on in this container."""


class ContinuationMismatchError(ContinuationError):
    """The request was made for another session, or for another grant."""


class NotInContainerError(ContinuationError):
    """A session that does not run in a container keeps its key, and needs no continuation."""


class ContinuationImageError(ContinuationError):
    """The fresh container runs another image than the session was granted for."""


class ContinuationEnvironmentError(ContinuationError):
    """The fresh container's machine or software differs from what the session was granted for."""


class TooManyContinuationsError(ContinuationError):
    """The session has had as many containers as its evidence bundle can hold."""

    status = HTTPStatus.CONFLICT


class CodesNotUsedError(ServerError):
    """The session trains without membership codes, so there are none to hand out."""

    status = HTTPStatus.CONFLICT


class CodesRequestMismatchError(ServerError):
    """The request for codes was signed for another session."""


class CodesRequestKeyError(ServerError):
    """No key of this session has signed the request for codes."""

    status = HTTPStatus.FORBIDDEN


class CodesHeldError(ServerError):
    """The codes of this session stay with the auditor, as the MINT Model that learns them does."""

    status = HTTPStatus.FORBIDDEN


class CustodyNotUsedError(ServerError):
    """The developer holds the MINT Model of this session, so there is nothing to exchange."""

    status = HTTPStatus.CONFLICT


class ExchangeKeyError(ServerError):
    """No key of this session has signed the exchange."""

    status = HTTPStatus.FORBIDDEN


class ExchangeSessionError(ServerError):
    """The exchange was signed for another session."""


class ExchangeRepeatedError(ServerError):
    """An exchange that took place already was asked for with other content."""

    status = HTTPStatus.CONFLICT


class ExchangeOrderError(ServerError):
    """The exchange is not the one that follows in this training."""

    status = HTTPStatus.CONFLICT


class HeldStateLostError(ServerError):
    """The MINT Model that is held here does not stand, and cannot be put, where it must."""

    status = HTTPStatus.CONFLICT


class TapShapesError(ServerError):
    """The activations have other shapes than the audited model gives."""


class HeldExchangesError(ServerError):
    """The log names other exchanges with the auditor's MINT Model than took place."""


class HeldPartError(ServerError):
    """A file was submitted that only the auditor has: T's weights, or the scores."""


class VerdictNotFoundError(ServerError):
    """No verdict of this name about this session may be seen."""

    status = HTTPStatus.NOT_FOUND


class TooManyVerdictsError(ServerError):
    """The session would have more verdicts than its evidence bundle can hold."""

    status = HTTPStatus.CONFLICT


class InquiryNotFoundError(ServerError):
    """No inquiry of this name may be seen, or it is so old that it was forgotten."""

    status = HTTPStatus.NOT_FOUND


class OpeningsNumberError(ServerError):
    """A query opens some of its images and not others."""


class OpeningSessionError(ServerError):
    """The opening is of a sample of another session."""


class CodeSecretLostError(ServerError):
    """The stored secret is not the one that the grant commits to; no code may come from it."""

    status = HTTPStatus.INTERNAL_SERVER_ERROR


class ForkError(ServerError):
    """Two different histories of one log."""

    status = HTTPStatus.CONFLICT


class GapError(ServerError):
    """Records between the stored log and this flush are missing."""

    status = HTTPStatus.CONFLICT


class EmptyFlushError(ServerError):
    """A flush without records."""


class TooManyRecordsError(ServerError):
    """More records in one flush than the server accepts."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE


class ForeignOriginError(ServerError):
    """The checkpoint belongs to another session or another server."""


class CheckpointSizeError(ServerError):
    """The checkpoint does not cover exactly the records up to the end of the flush."""


class CheckpointRootError(ServerError):
    """The checkpoint's root is not the root of the records."""


class InvalidRecordError(ServerError):
    """A record that is not one line of valid record JSON."""


class RecordSequenceError(ServerError):
    """A record's sequence number is not its index in the log."""


class GrantRecordError(ServerError):
    """The log must begin with the grant record of its own grant, and hold no other."""


class ContinuationRecordError(ServerError):
    """A log that was continued must say so at once, once, and name the continuation in force."""


class RecordTimeError(ServerError):
    """A record's time lies before its session or in the future."""


class WeightsError(ServerError):
    """The weights file can't be accepted."""


class NotSafetensorsError(WeightsError):
    """The file is no safetensors file."""


class TruncatedWeightsError(WeightsError):
    """The file ends before its tensors do."""


class MalformedHeaderError(WeightsError):
    """The header of the safetensors file contradicts itself or the file."""


class WeightsMismatchError(WeightsError):
    """These are not the weights that the log was sealed with."""


class DescriptionMismatchError(ServerError):
    """The description is not the one that the log was sealed with."""


class ScoresMismatchError(ServerError):
    """These are not the scores that the log was sealed with."""


class CalibrationScoresError(ServerError):
    """The scores file does not hold one score for each calibration sample of the grant."""


class RegistryDamagedError(HomeError):
    """The stored registry contradicts a head of it that was signed; nothing more may be signed."""


class RegistryKeyMissingError(ServerError):
    """The auditor's home has no key for the registry, so no head of it can be signed."""

    status = HTTPStatus.SERVICE_UNAVAILABLE


class RegistryRangeError(ServerError):
    """An index or a size that the registry does not have."""


class RegistryEntryNotFoundError(ServerError):
    """The registry has no such entry."""

    status = HTTPStatus.NOT_FOUND


class ReplayKeyMissingError(ServerError):
    """The auditor's home has no key for replays, so neither draws nor results can be signed."""

    status = HTTPStatus.SERVICE_UNAVAILABLE


class TooManyDrawsError(ServerError):
    """The session has had as many draws as its evidence bundle can hold."""

    status = HTTPStatus.CONFLICT


class DrawNotFoundError(ServerError):
    """The result is of a draw that the session does not have."""

    status = HTTPStatus.NOT_FOUND


class DrawAnsweredError(ServerError):
    """The draw has another result already; results stay for good."""

    status = HTTPStatus.CONFLICT


class CustomModelError(ServerError):
    """The model is the developer's own module, and the image that it could be run in is missing."""


class InferenceError(ServerError):
    """A process of the server's that opens what others sent has given no result."""

    status = HTTPStatus.SERVICE_UNAVAILABLE


class InferenceTimeoutError(InferenceError):
    """The work took longer than the server's settings allow, and was given up."""


class InferenceMemoryError(InferenceError):
    """The work needs more memory than the server's settings allow."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY


class InferenceCrashedError(InferenceError):
    """The process that did the work has ended before it was done."""


class InferenceBusyError(InferenceError):
    """Others are waiting already, or were served all the time."""


class InferenceFailedError(InferenceError):
    """The process that did the work met something that no rule foresees."""

    status = HTTPStatus.INTERNAL_SERVER_ERROR
