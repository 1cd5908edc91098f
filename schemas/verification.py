"""What a verification found: one finding per named check."""

from enum import IntEnum
from typing import Literal

from pydantic import AwareDatetime, Field

from schemas.base import Count, Name, Schema, Sha256
from schemas.replay import DetectionProbability

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
            4: "as L3, and the hardware attested to this very run",
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
    detection: DetectionProbability | None = Field(
        default=None, description="of the replay; None: no replay holds"
    )

    @property
    def assurance(self) -> str:
        """The level in words, and what a replay could have missed, if the level rests on one."""
        level = f"{self.level.name}: {self.level.meaning}"
        if self.level < AssuranceLevel.L3 or self.detection is None:
            return level
        return f"{level}. {self.detection.summary}"

    @property
    def passed(self) -> bool:
        """True when no check failed."""
        return all(finding.outcome != "failed" for finding in self.findings)


class CheckOutcome(Schema):
    """Outcome of one check, without what was found."""

    check: Name
    outcome: FindingOutcome


class VerificationSummary(Schema):
    """What the auditor found when it verified a submission, signed and registered at once.

    Signed by the `verdict` role as an in-toto statement. It fixes what the auditor said on that
    day; whoever has the bundle can run the checks again.
    """

    schema_version: Literal[1] = 1
    session_id: Name
    verified_at: AwareDatetime
    level: AssuranceLevel
    outcomes: tuple[CheckOutcome, ...]
    log_size: Count = Field(description="records of the sealed log")
    log_root: Sha256 = Field(description="its Merkle root")
    weights_digest: Sha256
    description_digest: Sha256
    scores_digest: Sha256
