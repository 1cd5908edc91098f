"""What can go wrong when a program asks the auditor's server."""

from schemas.wire import Problem

ERROR_TYPE_PREFIX = "urn:auditkit:error:"


class ClientError(Exception):
    """Base of all errors of `auditkit.client`."""


class AddressError(ClientError):
    """The server's address is none."""


class UnreachableError(ClientError):
    """No answer came, or it broke off."""


class UnexpectedAnswerError(ClientError):
    """An answer came, and it is not one of the auditor's server: a proxy or a login page, say."""


class RefusedError(ClientError):
    """The server said no (RFC 9457 problem details).

    Attributes:
        status: HTTP status code.
        problem: what the server said; None: nothing that is a problem document.
        retry_after_seconds: when to come again; None: the server did not say.
    """

    def __init__(
        self, status: int, problem: Problem | None, retry_after_seconds: float | None = None
    ) -> None:
        self.status = status
        self.problem = problem
        self.retry_after_seconds = retry_after_seconds
        name = f"{self.error_name}: " if self.error_name else ""
        super().__init__(f"the auditor's server refused (HTTP {status}): {name}{self.detail}")

    @property
    def error_name(self) -> str:
        """Name of the server's error, as the protocol lists them; empty: it named none."""
        found = "" if self.problem is None else self.problem.type
        return found.removeprefix(ERROR_TYPE_PREFIX) if found.startswith(ERROR_TYPE_PREFIX) else ""

    @property
    def detail(self) -> str:
        """What was expected, what was found, and what to do; empty: the server did not say."""
        return "" if self.problem is None else self.problem.detail


class NotAuthorisedError(RefusedError):
    """The token is missing, wrong or over (401), or may not do this (403)."""


class NotFoundError(RefusedError):
    """There is none of this name, or it is not for this token (404)."""


class ConflictError(RefusedError):
    """It contradicts what the server has, or comes too early or too late (409)."""


class InvalidRequestError(RefusedError):
    """What was sent is not what it must be (400, 413, 415, 422)."""


class TooManyRequestsError(RefusedError):
    """More was asked for than this token may (429)."""


class ServerFaultError(RefusedError):
    """The server failed, or can't answer now (5xx)."""


_BY_STATUS: dict[int, type[RefusedError]] = {
    400: InvalidRequestError,
    401: NotAuthorisedError,
    403: NotAuthorisedError,
    404: NotFoundError,
    409: ConflictError,
    413: InvalidRequestError,
    415: InvalidRequestError,
    422: InvalidRequestError,
    429: TooManyRequestsError,
}


def refused(
    status: int, problem: Problem | None, retry_after_seconds: float | None
) -> RefusedError:
    """Return the error for an answer."""
    kind = _BY_STATUS.get(status, ServerFaultError if status >= 500 else RefusedError)
    return kind(status, problem, retry_after_seconds)
