"""The signed answer to a membership query."""

from typing import Literal

from pydantic import AwareDatetime, Field

from schemas.base import Count, FiniteFloat, Name, Rate, Schema, Sha256
from schemas.verification import AssuranceLevel

EvidenceKind = Literal["declared", "calibrated", "undeclared"]
Outcome = Literal["member", "not_shown"]


class MembershipVerdict(Schema):
    """Was this sample told to T as a member, at an exact false-positive rate?

    `not_shown` does not say that the sample is a stranger: a silent member looks like one.
    """

    schema_version: Literal[1] = 1
    verdict_id: Name
    session_id: Name
    weights_digest: Sha256
    scores_digest: Sha256 = Field(description="the calibration that the p-value rests on")
    sample_digest: Sha256 = Field(description="auditkit.data.manifest.sample_digest of the pixels")
    evidence: EvidenceKind = Field(
        default="calibrated",
        description="declared: the sample's own code, a provable bound. Calibrated: a score "
        "against C, exact for samples like the pool's",
    )
    score: FiniteFloat
    code_index: Count | None = Field(
        default=None,
        description="pool index of the sample whose code the score is of. Declared: the sample "
        "itself, which was opened. Calibrated: the member that it resembles most. None: no codes",
    )
    p_value: float = Field(gt=0.0, le=1.0)
    calibration_size: Count = Field(
        description="samples that the p-value rests on; none when it is declared"
    )
    false_positive_rate: Rate
    outcome: Outcome
    level: AssuranceLevel = Field(description="of the session's evidence at submission")
    issued_at: AwareDatetime
