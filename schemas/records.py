"""Leaves of a session's log. One record is one line of RFC 8785 JSON."""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from schemas.base import Count, FiniteFloat, Fraction, Milliseconds, Schema, Sha256
from schemas.evaluation import CohortMetrics
from schemas.session import Environment

ExecutionMode = Literal["process", "container"]


class Record(Schema):
    """Common to all records. `sequence` equals the leaf's index in the tree."""

    schema_version: Literal[1] = 1
    sequence: Count
    time_ms: Milliseconds = Field(description="the agent's clock")


class GrantRecord(Record):
    """First record: ties the log to its grant and says where the training runs."""

    kind: Literal["grant"] = "grant"
    grant_digest: Sha256 = Field(description="SHA-256 of the grant's DSSE payload")
    code_digest: Sha256
    image_digest: Sha256 | None
    mode: ExecutionMode
    environment: Environment


class StepRecord(Record):
    """One optimisation step."""

    kind: Literal["step"] = "step"
    step: Annotated[int, Field(ge=1)]
    epoch: Count
    batch: Sha256 = Field(description="digest over the leaves of the samples, in batch order")
    task_loss: FiniteFloat
    mint_loss: FiniteFloat
    objective: FiniteFloat = Field(description="value of Eq. 1 without its L2 term")
    task_accuracy: Fraction
    mint_accuracy: Fraction
    learning_rate: FiniteFloat
    task_weight: FiniteFloat
    mint_weight: FiniteFloat


class ReceiptRecord(Record):
    """Commits to the auditor's cosignature, which nobody can predict (receipt interlock)."""

    kind: Literal["receipt"] = "receipt"
    checkpoint_size: Count
    checkpoint_digest: Sha256 = Field(description="SHA-256 of the cosigned note")


class StateRecord(Record):
    """A full training state was saved; step 0 is the initial state."""

    kind: Literal["state"] = "state"
    step: Count
    state_digest: Sha256 = Field(description="SHA-256 of the state file")
    weights_digest: Sha256 = Field(description="SHA-256 of the safetensors weights of M+")


class ResumeRecord(Record):
    """The agent started again from a saved state; later steps were lost and are done anew."""

    kind: Literal["resume"] = "resume"
    step: Count
    state_digest: Sha256
    discarded_steps: Count
    environment: Environment


class ContinuationRecord(Record):
    """The agent goes on in a fresh container, under a new session key."""

    kind: Literal["continuation"] = "continuation"
    continuation_digest: Sha256 = Field(description="SHA-256 of the continuation's DSSE payload")


class EvaluationRecord(Record):
    """Metrics of T and M at the end of an epoch, per cohort."""

    kind: Literal["evaluation"] = "evaluation"
    step: Count
    epoch: Count
    cohorts: tuple[CohortMetrics, ...]


class CalibrationRecord(Record):
    """Commits to the scores of C (and of the other cohorts) before the first query."""

    kind: Literal["calibration"] = "calibration"
    scores_digest: Sha256 = Field(description="SHA-256 of scores.safetensors")
    calibration_size: Count


class SealRecord(Record):
    """Last record: after it nothing may follow."""

    kind: Literal["seal"] = "seal"
    step: Count
    weights_digest: Sha256
    description_digest: Sha256
    scores_digest: Sha256


AnyRecord = Annotated[
    GrantRecord
    | StepRecord
    | ReceiptRecord
    | StateRecord
    | ResumeRecord
    | ContinuationRecord
    | EvaluationRecord
    | CalibrationRecord
    | SealRecord,
    Field(discriminator="kind"),
]
RECORD_ADAPTER: TypeAdapter[AnyRecord] = TypeAdapter(AnyRecord)


def parse_record(line: bytes | str) -> AnyRecord:
    """Parse one record.

    Raises:
        pydantic.ValidationError: not JSON, unknown kind or field, NaN, or a value out of range.
    """
    return RECORD_ADAPTER.validate_json(line)
