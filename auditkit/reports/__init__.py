"""The report of one session: findings, error rates and verdicts as a document for people."""

from auditkit.reports.assemble import report_input
from auditkit.reports.content import (
    FurtherContainer,
    LogSummary,
    QueriedSample,
    ReportInput,
    StepTrace,
)
from auditkit.reports.errors import ReportError, ScoresFileError, UnreadableBundleError
from auditkit.reports.html import render_html

__all__ = [
    "FurtherContainer",
    "LogSummary",
    "QueriedSample",
    "ReportError",
    "ReportInput",
    "ScoresFileError",
    "StepTrace",
    "UnreadableBundleError",
    "render_html",
    "report_input",
]
