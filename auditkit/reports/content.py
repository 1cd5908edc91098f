"""What a report of one session is made of: plain, verified-or-said-otherwise facts.

Nothing here is computed for looks and nothing is read from disk, so a report is a pure function
of its `ReportInput`: the same input gives the same bytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from schemas import (
    AuditOrder,
    CalibrationRecord,
    CohortName,
    ContainerRun,
    EvaluationRecord,
    GrantRecord,
    MembershipVerdict,
    ModelDescription,
    ResumeRecord,
    SealRecord,
    SessionGrant,
    SessionRequest,
    VerificationReport,
)

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

COHORT_ORDER: tuple[CohortName, ...] = (
    "told",
    "silent",
    "told_only",
    "external",
    "calibration",
    "test",
)


@dataclass(frozen=True, eq=False)
class StepTrace:
    """The step records as columns, in log order; every array has shape `(steps,)`."""

    step: IntArray
    epoch: IntArray
    task_loss: FloatArray
    mint_loss: FloatArray
    task_accuracy: FloatArray
    mint_accuracy: FloatArray

    def __len__(self) -> int:
        return len(self.step)


@dataclass(frozen=True)
class LogSummary:
    """How the log was written. Times are Unix times; None where the log does not say."""

    records: int
    unreadable_records: int
    checkpoints: int
    states: int
    first_record_ms: int | None
    last_record_ms: int | None
    longest_silence_seconds: float | None
    last_cosigned_seconds: int | None
    late_records: int | None
    resumes: tuple[ResumeRecord, ...] = ()


@dataclass(frozen=True)
class FurtherContainer:
    """A fresh container that a session went on in, after `log_size` records.

    `record` is the sequence number of the log's record that names it; None if there is none.
    """

    run: ContainerRun
    log_size: int
    granted_at: datetime
    record: int | None


@dataclass(frozen=True)
class QueriedSample:
    """A verdict, with what the asker or the developer chose to add; neither is signed."""

    verdict: MembershipVerdict
    label: str | None = None
    disclosed_cohort: CohortName | None = None


@dataclass(frozen=True, eq=False)
class ReportInput:
    """Everything that the report of one session shows.

    `scores` and `task_losses` map a cohort to a `(samples,)` array: the score of T and the
    cross-entropy of M, in nats. `remarks` are faults met while the material was read; they are
    printed. `verification` must be of the same session as `grant`.
    """

    auditor: str
    trust_root_version: int
    order: AuditOrder
    order_digest: str
    request: SessionRequest
    request_digest: str
    grant: SessionGrant
    grant_digest: str
    verification: VerificationReport
    log: LogSummary
    steps: StepTrace
    generated_at: datetime
    start: GrantRecord | None = None
    evaluations: tuple[EvaluationRecord, ...] = ()
    calibration: CalibrationRecord | None = None
    seal: SealRecord | None = None
    scores: Mapping[CohortName, FloatArray] = field(default_factory=dict)
    task_losses: Mapping[CohortName, FloatArray] = field(default_factory=dict)
    description: ModelDescription | None = None
    verdicts: tuple[QueriedSample, ...] = ()
    with_verdicts: bool = True
    continuations: tuple[FurtherContainer, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def evaluation(self) -> EvaluationRecord | None:
        """The last evaluation: the one that describes the final model."""
        return self.evaluations[-1] if self.evaluations else None
