"""What a verification found: one finding per named check."""

from enum import IntEnum
from typing import Literal

from pydantic import AwareDatetime, Field

from schemas.base import Name, Schema

FindingOutcome = Literal["passed", "warning", "failed", "not_checked"]


class AssuranceLevel(IntEnum):
    """How far the evidence reaches. Computed from findings, never chosen."""

    L0 = 0
    L1 = 1
    L2 = 2
    L3 = 3
    L4 = 4

    @property
    def meaning(self) -> str:
        """One line for people."""
        return {
            0: "self-declared: the evidence does not hold together",
            1: "complete, signed and cosigned log",
            2: "complete log, and closed containers of an allowed image, "
            "as engine and agent report",
            3: "complete log, verified image, and replay passed",
            4: "as L3, on hardware held by someone other than the developer, or attested",
        }[self.value]


class Finding(Schema):
    """Outcome of one check: what was claimed, and what was found."""

    check: Name
    claim: str
    outcome: FindingOutcome
    detail: str
    error: str | None = Field(default=None, description="name of the typed error, when it failed")


class VerificationReport(Schema):
    """All findings of one session and the assurance level that follows from them."""

    schema_version: Literal[1] = 1
    session_id: str
    verified_at: AwareDatetime
    findings: tuple[Finding, ...]
    level: AssuranceLevel

    @property
    def passed(self) -> bool:
        """True when no check failed."""
        return all(finding.outcome != "failed" for finding in self.findings)
