"""Everything that crosses a wire or is signed. Imports nothing else of auditkit."""

from schemas.container import (
    ContainerDescription,
    ContainerMount,
    ContainerRun,
    ImageSignature,
    InsideView,
)
from schemas.evaluation import CohortMetrics, CohortName, FlaggedRate, RateEstimate
from schemas.image import ImageIdentity
from schemas.order import AuditOrder, ExposurePolicy, OutagePolicy, SplitFractions, WeightRange
from schemas.records import (
    AnyRecord,
    CalibrationRecord,
    ContinuationRecord,
    EvaluationRecord,
    GrantRecord,
    ReceiptRecord,
    Record,
    ResumeRecord,
    SealRecord,
    StateRecord,
    StepRecord,
    parse_record,
)
from schemas.session import (
    AppendReceipt,
    AppendRequest,
    Attestation,
    ContinuationRequest,
    Environment,
    SampleCommitment,
    SessionContinuation,
    SessionGrant,
    SessionRequest,
    SplitSizes,
)
from schemas.submission import ModelDescription, Normalisation
from schemas.training import (
    MintConfig,
    ModelConfig,
    OptimiserConfig,
    TapConfig,
    TrainingConfig,
)
from schemas.trust import Role, RoleName, TrustRoot
from schemas.verdict import MembershipVerdict
from schemas.verification import AssuranceLevel, Finding, VerificationReport

__all__ = [
    "AnyRecord",
    "AppendReceipt",
    "AppendRequest",
    "AssuranceLevel",
    "Attestation",
    "AuditOrder",
    "CalibrationRecord",
    "CohortMetrics",
    "CohortName",
    "ContainerDescription",
    "ContainerMount",
    "ContainerRun",
    "ContinuationRecord",
    "ContinuationRequest",
    "Environment",
    "EvaluationRecord",
    "ExposurePolicy",
    "Finding",
    "FlaggedRate",
    "GrantRecord",
    "ImageIdentity",
    "ImageSignature",
    "InsideView",
    "MembershipVerdict",
    "MintConfig",
    "ModelConfig",
    "ModelDescription",
    "Normalisation",
    "OptimiserConfig",
    "OutagePolicy",
    "RateEstimate",
    "ReceiptRecord",
    "Record",
    "ResumeRecord",
    "Role",
    "RoleName",
    "SampleCommitment",
    "SealRecord",
    "SessionContinuation",
    "SessionGrant",
    "SessionRequest",
    "SplitFractions",
    "SplitSizes",
    "StateRecord",
    "StepRecord",
    "TapConfig",
    "TrainingConfig",
    "TrustRoot",
    "VerificationReport",
    "WeightRange",
    "parse_record",
]
