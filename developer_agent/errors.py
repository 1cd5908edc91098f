"""One error per rule that a supervised run can break, or per way in which its world can."""


class AgentError(Exception):
    """Base of everything that the agent raises."""


class DiskWriteError(AgentError):
    """A file of the run could not be written."""


class SpoolWriteError(DiskWriteError):
    """Lines could not be appended, usually because the disk is full."""

    def __init__(self, path: str, needed: int, reason: str) -> None:
        super().__init__(
            f"cannot append {needed} bytes to {path}: {reason}. What was recorded before and every "
            f"saved training state are safe. Make room for at least {needed} bytes (100 MB for "
            "comfort) and start the run again; it resumes from its last state"
        )
        self.needed = needed


class SpoolLineError(AgentError):
    """A line that would not be one line of the file."""


class SpoolRangeError(AgentError):
    """Lines were asked for that the file does not have."""


class RecordError(AgentError):
    """A record breaks its schema."""


class NonFiniteRecordError(RecordError):
    """A number to be recorded is NaN or infinite: the training has diverged."""


class LogSealedError(AgentError):
    """Something was to be recorded after the seal."""


class LogDamagedError(AgentError):
    """Files of the run contradict what the auditor has already cosigned."""


class RunLockedError(AgentError):
    """Another process works on this run."""


class RunFileMissingError(AgentError):
    """A file that this step needs is not in the run folder."""


class ServerError(AgentError):
    """The auditor's server did not do what it was asked."""

    @property
    def temporary(self) -> bool:
        """True when the same request may succeed later."""
        return False


class ServerUnreachableError(ServerError):
    """No answer came."""

    @property
    def temporary(self) -> bool:
        """Networks come back."""
        return True


class UnexpectedAnswerError(ServerError):
    """An answer came, and it is not one of the auditor's server: a proxy or a login page, say."""

    @property
    def temporary(self) -> bool:
        """Such intermediaries come and go."""
        return True


class ServerRefusedError(ServerError):
    """The server said no (RFC 9457 problem details).

    Attributes:
        status: HTTP status code.
        error_name: the typed error on the server, empty when it named none.
        detail: what the server said.
    """

    # RFC 9110, sections 15.5.9 and 15.6; RFC 6585, section 4; RFC 8470, section 5.2.
    _TEMPORARY = frozenset({408, 425, 429})

    def __init__(self, status: int, error_name: str, detail: str) -> None:
        name = f"{error_name}: " if error_name else ""
        super().__init__(f"the auditor's server refused (HTTP {status}): {name}{detail}")
        self.status = status
        self.error_name = error_name
        self.detail = detail

    @property
    def temporary(self) -> bool:
        """True for overload and for faults of the server's own; a verdict on the request stays."""
        return self.status >= 500 or self.status in self._TEMPORARY


class NotAuthorisedError(ServerRefusedError):
    """The token is missing, wrong, or not allowed to do this."""

    @property
    def temporary(self) -> bool:
        """A wrong token stays wrong."""
        return False


class CosignatureError(AgentError):
    """The answer to a checkpoint is not that checkpoint, cosigned by the auditor."""


class UplinkStoppedError(AgentError):
    """The log can no longer reach the auditor; the cause is chained."""


class ServerOutageError(AgentError):
    """The server has been silent for longer than the order allows, and the order says stop."""


class SessionKeyMismatchError(AgentError):
    """The session key in the run folder is not the one that the grant certifies."""


class SessionKeyGoneError(AgentError):
    """Records wait for a signature, and the session key is gone with its container."""


class ContinuationRefusedError(AgentError):
    """A continuation is not for this run's request, so nothing may be signed under it."""


class CommitterStoppedError(AgentError):
    """The upload was stopped from outside."""
