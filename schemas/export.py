"""JSON Schema of every public document, for readers who do not run Python.

    python -m schemas.export

writes `schemas/json/`. The files say what shape a document has; what its numbers must satisfy
together is in `docs/protocol.md`.
"""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import TypeAdapter

from schemas import (
    AnyRecord,
    AppendReceipt,
    AppendRequest,
    AuditOrder,
    CalibrationRecord,
    CodesRequest,
    ConsistencyProof,
    ContinuationRecord,
    ContinuationRequest,
    DrawRequest,
    EvaluationRecord,
    Finding,
    GrantRecord,
    ImageIdentity,
    InclusionProof,
    MembershipVerdict,
    MintEvaluation,
    MintExchangeRequest,
    MintFinal,
    MintScoresAnswer,
    MintStanding,
    MintStepAnswer,
    ModelDescription,
    ReceiptRecord,
    RegistryEntries,
    RegistryEntry,
    RegistryExcerpt,
    ReplayDraw,
    ReplayResult,
    ResumeRecord,
    SampleOpening,
    SealRecord,
    SessionContinuation,
    SessionGrant,
    SessionRequest,
    StateRecord,
    StepRecord,
    SubmissionDigests,
    TapShapes,
    TrainingConfig,
    TrustRoot,
    VerificationReport,
    VerificationSummary,
)
from schemas.base import Schema
from schemas.wire import (
    DrawPage,
    Health,
    OrderAdded,
    OrderSummary,
    Problem,
    QueryAnswer,
    SessionOpening,
    SessionStatus,
    SignedDocument,
    TrailEntry,
    TrailPage,
)

DIALECT = "https://json-schema.org/draft/2020-12/schema"
IDENTIFIER = "https://auditkit.dev/schemas/{name}/v1.json"
FOLDER = Path(__file__).parent / "json"

DOCUMENTS: tuple[type[Schema], ...] = (
    AppendReceipt,
    AppendRequest,
    AuditOrder,
    CalibrationRecord,
    CodesRequest,
    ConsistencyProof,
    ContinuationRecord,
    ContinuationRequest,
    DrawPage,
    DrawRequest,
    EvaluationRecord,
    Finding,
    GrantRecord,
    Health,
    ImageIdentity,
    InclusionProof,
    MembershipVerdict,
    MintEvaluation,
    MintExchangeRequest,
    MintFinal,
    MintScoresAnswer,
    MintStanding,
    MintStepAnswer,
    ModelDescription,
    OrderAdded,
    OrderSummary,
    Problem,
    QueryAnswer,
    ReceiptRecord,
    RegistryEntries,
    RegistryEntry,
    RegistryExcerpt,
    ReplayDraw,
    ReplayResult,
    ResumeRecord,
    SampleOpening,
    SealRecord,
    SessionContinuation,
    SessionGrant,
    SessionOpening,
    SessionRequest,
    SessionStatus,
    SignedDocument,
    StateRecord,
    StepRecord,
    SubmissionDigests,
    TapShapes,
    TrailEntry,
    TrailPage,
    TrainingConfig,
    TrustRoot,
    VerificationReport,
    VerificationSummary,
)

ADAPTERS = MappingProxyType(
    {model.__name__: TypeAdapter[Any](model) for model in DOCUMENTS}
    | {"AnyRecord": TypeAdapter[Any](AnyRecord)}
)
"""Every public document by name; `AnyRecord` is the union of all kinds of record."""


def json_schema(name: str) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of one public document.

    Raises:
        KeyError: there is no public document of that name.
    """
    schema = ADAPTERS[name].json_schema(ref_template="#/$defs/{model}")
    return {"title": name, **schema, "$schema": DIALECT, "$id": IDENTIFIER.format(name=name)}


def to_text(schema: dict[str, Any]) -> str:
    """Return the schema as it is stored: sorted keys, two spaces, a final newline."""
    return json.dumps(schema, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def export(folder: Path = FOLDER, names: Iterable[str] = ADAPTERS) -> list[Path]:
    """Write one file per document, and return their paths.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in names:
        path = folder / f"{name}.json"
        path.write_text(to_text(json_schema(name)), encoding="utf-8", newline="\n")
        paths.append(path)
    return paths


if __name__ == "__main__":
    sys.stdout.write(f"wrote {len(export())} schemas to {FOLDER}\n")
