"""Leaves of a session's log. One record is one line of RFC 8785 JSON."""

from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, TypeAdapter, model_serializer

from schemas.base import Count, FiniteFloat, Fraction, Milliseconds, Schema, Sha256
from schemas.evaluation import CohortMetrics
from schemas.session import Environment

ExecutionMode = Literal["process", "container"]


def _known(fields: dict[str, Any], *optional: str) -> dict[str, Any]:
    """Leave out optional fields that are not known.

    Logs written before these fields existed keep their one form, and keep verifying.
    """
    for name in optional:
        if fields.get(name) is None:
            fields.pop(name, None)
    return fields


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
    activations: Sha256 | None = Field(
        default=None,
        description="SHA-256 of the activations sent to T; absent where the developer held T",
    )
    gradient: Sha256 | None = Field(
        default=None, description="SHA-256 of the gradients that T's holder sent back; likewise"
    )

    @model_serializer(mode="wrap")
    def _without_exchanges(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _known(serialise(self), "activations", "gradient")


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
    moved: Annotated[FiniteFloat, Field(ge=0.0)] | None = Field(
        default=None,
        description="L2 distance of all parameters of M+ from the state before; absent, not null, "
        "in the initial state",
    )
    mint_state_digest: Sha256 | None = Field(
        default=None,
        description="SHA-256 of T's state where the auditor holds it, as the server has said; "
        "state and weights above are then M's alone",
    )
    mint_weights_digest: Sha256 | None = Field(
        default=None, description="SHA-256 of T's safetensors weights; likewise"
    )

    @model_serializer(mode="wrap")
    def _without_unknown(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _known(serialise(self), "moved", "mint_state_digest", "mint_weights_digest")


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
    audited_weights_digest: Sha256 | None = Field(
        default=None,
        description="SHA-256 of the safetensors weights of M alone; absent where the developer "
        "held T",
    )
    mint_weights_digest: Sha256 | None = Field(default=None, description="of T alone; likewise")

    @model_serializer(mode="wrap")
    def _without_parts(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _known(serialise(self), "audited_weights_digest", "mint_weights_digest")


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
