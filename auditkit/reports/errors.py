"""What can be wrong with the material of a report."""


class ReportError(Exception):
    """Base of all errors of this package."""


class UnreadableBundleError(ReportError):
    """A document without which there is nothing to report on (order, request, grant) is broken."""


class ScoresFileError(ReportError):
    """The scores file is too large, truncated, or not what the protocol describes."""
