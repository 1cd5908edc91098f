"""Which exceptions are answers to a user's mistake or bad luck, and how they are told."""

from pydantic import ValidationError

from auditkit.client_errors import ClientError
from auditkit.data.errors import DataError
from auditkit.evidence.errors import EvidenceError
from auditkit.mint.errors import MintError
from auditkit.reports.errors import ReportError
from auditkit.studies.errors import StudyError
from auditor_server.errors import ServerError
from containers.errors import ContainerError
from developer_agent.errors import AgentError
from schemas.settings import SettingsError


class UsageError(Exception):
    """A command was given something that it cannot use."""


EXPECTED_ERRORS = (
    AgentError,
    ClientError,
    ContainerError,
    DataError,
    EvidenceError,
    MintError,
    OSError,  # a path, a permission, a full disk: for the user to put right
    ReportError,
    ServerError,
    SettingsError,
    StudyError,
    UsageError,
    ValidationError,
)


def describe(error: BaseException) -> str:
    """Return what to print for an expected error."""
    if isinstance(error, ValidationError):
        return describe_validation(error)
    if isinstance(error, OSError) and error.strerror:
        what = f"cannot use {error.filename}: " if error.filename else ""
        return what + error.strerror
    return str(error)


def describe_validation(error: ValidationError) -> str:
    """Return one line per broken field of a document."""
    lines = [
        f"{'.'.join(str(part) for part in problem['loc']) or 'document'}: {problem['msg']}"
        for problem in error.errors(include_url=False)
    ]
    return f"{error.title} is not valid:\n  " + "\n  ".join(lines)
