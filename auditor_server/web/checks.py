"""Findings with what a reader needs beside them: where the evidence is, and what to do."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from auditor_server.store import SessionRow
from auditor_server.web.texts import catalogue, text
from schemas import Finding

Place = Literal["order", "session", "records", "registry", "models", "bundle"]

PLACES: dict[str, Place] = {
    "documents": "session",
    "trust-root": "registry",
    "order-signed": "order",
    "order-in-force": "order",
    "request-within-policy": "order",
    "grant-signed": "session",
    "grant-matches": "session",
    "session-key": "session",
    "image-verified": "session",
    "checkpoints-witnessed": "order",
    "error-rates": "models",
    "registered": "registry",
    "log-complete": "records",
    "receipt-interlock": "records",
    "run-identity": "records",
    "continuations-logged": "records",
    "mint-trained": "records",
    "numbers-possible": "records",
    "times-possible": "records",
    "states": "records",
    "mint-custody": "records",
    "calibration-committed": "records",
    "schedule": "records",
    "equal-exposure": "records",
    "initial-weights": "records",
}
"""Where the pages show what a check is about; whatever is not named is in the bundle alone."""


@dataclass(frozen=True)
class Explained:
    """One finding, where its evidence is, and what its reader should do; None: nothing."""

    finding: Finding
    evidence: str
    evidence_name: str
    advice: str | None


def explained(session: SessionRow, findings: Sequence[Finding]) -> list[Explained]:
    """Return the findings in their order, each with its explanation."""
    addresses: dict[Place, str] = {
        "order": f"/orders/{session.order_id}",
        "session": f"/sessions/{session.id}",
        "records": f"/sessions/{session.id}/records",
        "registry": "/registry",
        "models": "/models",
        "bundle": f"/sessions/{session.id}/bundle",
    }
    return [
        Explained(
            finding,
            addresses[place],
            text("evidence", place),
            None if finding.outcome == "passed" else _advice(finding),
        )
        for finding in findings
        for place in (PLACES.get(finding.check, "bundle"),)
    ]


def _advice(finding: Finding) -> str:
    """Return what to do: for the check if there is something special, or for its outcome."""
    special: dict[str, str] = catalogue()["advice"].get(finding.check, {})
    return special.get(finding.outcome) or text("advice_for_any", finding.outcome)
