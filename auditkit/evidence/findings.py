"""How checks report: a text when they hold, a typed error when they do not."""

from collections.abc import Callable
from dataclasses import dataclass

from auditkit.evidence.errors import EvidenceError
from schemas import Finding


@dataclass(frozen=True)
class Skipped:
    """A check that could not be done, and why."""

    reason: str


@dataclass(frozen=True)
class Warned:
    """A check that holds, with something the reader must know."""

    detail: str


Result = str | Skipped | Warned
"""What a check returns: what was found, for people. It raises its typed error when it fails."""


def run_check(name: str, claim: str, check: Callable[[], Result]) -> Finding:
    """Run one check and turn its result, or its typed error, into a finding."""
    try:
        result = check()
    except EvidenceError as error:
        return Finding(
            check=name,
            claim=claim,
            outcome="failed",
            detail=str(error),
            error=type(error).__name__,
        )
    match result:
        case Skipped(reason):
            return Finding(check=name, claim=claim, outcome="not_checked", detail=reason)
        case Warned(detail):
            return Finding(check=name, claim=claim, outcome="warning", detail=detail)
    return Finding(check=name, claim=claim, outcome="passed", detail=result)
