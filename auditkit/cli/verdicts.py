"""`verify-verdict`: single verdicts, or all of an inquiry, checked without the server."""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from auditkit.cli.errors import UsageError
from auditkit.cli.evidence import EXIT_NOT_VERIFIED, read_trust_root
from auditkit.cli.output import console, print_error, print_json, quoted, visible

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from auditkit.evidence.single_verdicts import Calibrations
    from schemas import MembershipVerdict

DEFAULT_DISCOVERY_RATE = 0.05


def verify_verdict(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE…", help="Signed verdicts, or an inquiry with its verdicts."),
    ],
    trust_root: Annotated[
        Path, typer.Option("--trust-root", help="The auditor's trust root, received out of band.")
    ],
    bundles: Annotated[
        list[Path] | None,
        typer.Option(
            "--bundle",
            help="Evidence bundle of a model: the p-values are then computed again from its "
            "sealed scores, and so is the test of all pictures together. Once for each model.",
        ),
    ] = None,
    false_discovery_rate: Annotated[
        float,
        typer.Option("--fdr", min=0.0, max=1.0, help="Of the discoveries among several."),
    ] = DEFAULT_DISCOVERY_RATE,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
) -> None:
    """Check signed verdicts, offline: the signature, and that the answer follows from its numbers.

    Of several verdicts about one model, the adjusted p-values are computed again. Exit code 0 when
    every verdict holds, 1 when one does not.

        auditkit verify-verdict 20260302-….dsse.json --trust-root trust-root.json
    """
    from auditkit.evidence.errors import EvidenceError
    from auditkit.evidence.single_verdicts import check_verdict

    history, calibrations = read_trust_root(trust_root), _calibrations(bundles or [])
    history.check_current(datetime.now(UTC))
    held: list[MembershipVerdict] = []
    faults: list[str] = []
    for name, envelope in _envelopes(files):
        try:
            held.append(check_verdict(envelope, history, calibrations))
        except EvidenceError as error:
            faults.append(f"{name}: {error}")
    batches = _batches(held, calibrations, false_discovery_rate)
    if as_json:
        print_json({"verified": not faults, "faults": faults, "models": batches})
    else:
        _print(held, batches, false_discovery_rate)
        for fault in faults:
            print_error(fault)
    if faults:
        sys.exit(EXIT_NOT_VERIFIED)


def _envelopes(files: list[Path]) -> list[tuple[str, bytes]]:
    """Return the envelopes in files of either kind, each with a name for messages."""
    from auditkit.evidence import canonical

    found = []
    for path in files:
        try:
            data = path.read_bytes()
            content = json.loads(data)
        except OSError as error:
            raise UsageError(f"cannot read {path}: {error.strerror}") from error
        except ValueError as error:
            raise UsageError(f"{path} is no JSON, and so no verdict ({error})") from error
        several = content.get("verdicts") if isinstance(content, dict) else None
        if isinstance(several, list):
            found += [
                (f"{visible(path.name)}, verdict {number}", canonical.to_bytes(envelope))
                for number, envelope in enumerate(several, start=1)
            ]
        else:
            found.append((visible(path.name), data))
    return found


def _calibrations(bundles: list[Path]) -> "dict[str, NDArray[np.floating]]":
    from auditkit.evidence.bundle import open_bundle
    from auditkit.evidence.canonical import sha256_hex
    from auditkit.evidence.model_checks import read_calibration

    found = {}
    for bundle in bundles:
        try:
            with bundle.open("rb") as file:
                scores = open_bundle(file).scores
        except OSError as error:
            raise UsageError(f"cannot read the bundle {bundle}: {error.strerror}") from error
        if scores is None:
            raise UsageError(f"the bundle {bundle} holds no sealed scores; give one that does")
        found[sha256_hex(scores)] = read_calibration(scores)
    return found


def _batches(
    verdicts: "list[MembershipVerdict]",
    calibrations: "Calibrations",
    false_discovery_rate: float,
) -> list[dict[str, Any]]:
    from auditkit.mint.batches import items_of, judge
    from auditkit.reports.answers import short_answer

    unused = set(calibrations) - {verdict.scores_digest for verdict in verdicts}
    if unused:
        raise UsageError("a bundle is of none of the models that these verdicts are about")
    batches = []
    for session_id in dict.fromkeys(verdict.session_id for verdict in verdicts):
        own = [verdict for verdict in verdicts if verdict.session_id == session_id]
        scores = calibrations.get(own[0].scores_digest)
        batch = judge(items_of(own), scores, own[0].false_positive_rate)
        batches.append(
            {
                "session_id": session_id,
                "verdicts": [
                    {
                        **verdict.as_json(),
                        "answer": short_answer(verdict),
                        "adjusted_p_value": p,
                        "discovery": is_discovery,
                    }
                    for verdict, p, is_discovery in zip(
                        own,
                        batch.adjusted_p_values,
                        batch.discoveries(false_discovery_rate),
                        strict=True,
                    )
                ],
                "sets": [
                    {
                        "evidence": found.evidence,
                        "samples": found.samples,
                        "outcome": found.outcome,
                        "p_value": found.p_value,
                        "false_positive_rate": found.false_positive_rate,
                    }
                    for found in batch.sets
                ],
            }
        )
    return batches


def _print(
    verdicts: "list[MembershipVerdict]", batches: list[dict[str, Any]], false_discovery_rate: float
) -> None:
    from auditkit.reports import answers

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("verdict", "answer", "p-value", "rate", "adjusted", "discovery"):
        table.add_column(heading, overflow="fold")
    for batch in batches:
        for found in batch["verdicts"]:
            table.add_row(
                quoted(found["verdict_id"]),
                found["answer"],
                f"{found['p_value']:.4g}",
                f"{found['false_positive_rate']:g}",
                f"{found['adjusted_p_value']:.4g}",
                "yes" if found["discovery"] else "no",
            )
    console.print(table)
    for batch in batches:
        for found in batch["sets"]:
            shown = answers.shown_set(**found)
            console.print(f"{shown.headline}: p = {found['p_value']:.4g}", markup=False)
    if len(verdicts) == 1:
        told = answers.answer(verdicts[0])
        console.print(f"\n{told.headline}.\n{told.sentence}", markup=False)
    if verdicts:
        console.print(
            f"\nSigned by the auditor, and following from their numbers: {len(verdicts)}. "
            f"Discoveries are at a false-discovery rate of {false_discovery_rate:g}.",
            markup=False,
        )
