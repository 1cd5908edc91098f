"""What the auditor allows: the order that a session must fit."""

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, model_validator

from schemas.base import Count, FiniteFloat, Fraction, Name, Rate, Schema, Sha256
from schemas.training import (
    AugmentationName,
    CustodyName,
    EvidenceName,
    HeadName,
    TapSetup,
    TaskLossName,
)

ImageKey = Annotated[str, Field(max_length=10_000, description="public key in PEM")]
OutagePolicy = Literal["continue-late", "pause", "stop"]
WitnessKey = Annotated[
    str,
    Field(
        pattern=r"^[^+\s]+\+[0-9a-f]{8}\+[A-Za-z0-9+/]+=*$",
        max_length=2_000,
        description="C2SP verifier key of type 0x04, as `auditkit witness show` prints it",
    ),
]
# A checkpoint has room for 100 signatures, two of them the session's and the auditor's.
MOST_WITNESSES = 32


class SplitFractions(Schema):
    """Shares of the pool; what is left over is D told to T.

    `silent` samples train M and are hidden from T; `told_only` samples are told to T as members
    and never train M. They are the controls that show what T really measures.
    """

    external: Fraction = Field(description="E: non-members shown to T")
    calibration: Fraction = Field(description="C: shown to nobody")
    silent: Fraction = 0.0
    told_only: Fraction = 0.0

    @model_validator(mode="after")
    def _leaves_members(self) -> "SplitFractions":
        if self.external + self.calibration + self.silent + self.told_only >= 1.0:
            raise ValueError("the fractions must add up to less than 1; the rest is D")
        return self


class WeightRange(Schema):
    """Closed range that a loss weight must lie in."""

    least: FiniteFloat = Field(ge=0.0)
    most: FiniteFloat = Field(ge=0.0)


class ExposurePolicy(Schema):
    """How often samples may be shown (Factors Impacting Membership Inference, section 4)."""

    most_epochs: Annotated[int, Field(ge=1)] = 200
    largest_spread: Count = Field(
        default=0, description="allowed difference between the most and the least shown sample of D"
    )


class WitnessPolicy(Schema):
    """Independent parties who must have seen the same log: N of M (C2SP tlog-witness)."""

    keys: tuple[WitnessKey, ...] = Field(
        min_length=1, max_length=MOST_WITNESSES, description="M witnesses, one key each"
    )
    threshold: Annotated[int, Field(ge=1)] = Field(
        description="N: more than half of M, or two different logs could both have enough"
    )

    @model_validator(mode="after")
    def _threshold_can_be_met(self) -> "WitnessPolicy":
        if self.threshold > len(self.keys):
            raise ValueError("the threshold is larger than the number of witnesses")
        return self


class AuditOrder(Schema):
    """The auditor's order: who may train what, how, until when. Signed by the `order` role."""

    schema_version: Literal[1] = 1
    order_id: Name
    auditor: str = Field(min_length=1, max_length=200)
    developer: str = Field(min_length=1, max_length=200)
    purpose: str = Field(min_length=1, max_length=2000)
    issued_at: AwareDatetime
    expires_at: AwareDatetime
    split: SplitFractions
    least_calibration_samples: Count = 99
    architectures: tuple[str, ...] = Field(default=(), description="empty: any")
    tap_setups: tuple[TapSetup, ...] = ("entry", "middle", "output", "named")
    heads: tuple[HeadName, ...] = ("convolutional", "fully_connected", "strided")
    evidence_kinds: tuple[EvidenceName, ...] = Field(
        default=("membership", "codes"), description="what T may learn"
    )
    custodies: tuple[CustodyName, ...] = Field(
        default=("developer", "auditor"), description="who may hold T during the training"
    )
    least_code_length: Annotated[int, Field(ge=1)] = Field(
        default=128, description="shortest code; no provable p-value is below exp(-length / 2)"
    )
    augmentations: tuple[AugmentationName, ...] = ("none", "flip_shift", "shift")
    task_losses: tuple[TaskLossName, ...] = ("softmax", "arcface", "cosface", "adaface")
    task_weight: WeightRange = WeightRange(least=1.0, most=1.0)
    mint_weight: WeightRange = WeightRange(least=0.1, most=10.0)
    most_dropout: Fraction = 0.5
    most_model_dropout: Fraction = Field(
        default=1.0, description="of every dropout and drop-path rate in the arguments of M"
    )
    exposure: ExposurePolicy = ExposurePolicy()
    most_state_interval_steps: Annotated[int, Field(ge=1)] = 1000
    images: tuple[Sha256, ...] = Field(default=(), description="allowed container images")
    image_keys: tuple[ImageKey, ...] = Field(
        default=(),
        description="keys whose signature also allows an image (cosign: ECDSA P-256, Ed25519)",
    )
    allow_without_container: bool = Field(
        default=False, description="accept runs outside a container, at a lower assurance level"
    )
    code_digests: tuple[Sha256, ...] = Field(default=(), description="empty: any")
    outage_policy: OutagePolicy = "continue-late"
    late_after_seconds: FiniteFloat = Field(default=60.0, gt=0.0)
    most_session_hours: FiniteFloat = Field(default=72.0, gt=0.0)
    most_sessions: Annotated[int, Field(ge=1)] = Field(
        default=20, description="sessions granted; each has a nonce, and none is to be chosen"
    )
    false_positive_rate: Rate = Field(default=0.01, description="default rate of verdicts")
    witnesses: WitnessPolicy | None = Field(
        default=None, description="who must have cosigned the final checkpoint; None: nobody"
    )

    @model_validator(mode="after")
    def _ends_after_it_begins(self) -> "AuditOrder":
        if self.expires_at <= self.issued_at:
            raise ValueError("expires_at must lie after issued_at")
        return self
