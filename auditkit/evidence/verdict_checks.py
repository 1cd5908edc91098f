"""Checks of what was asked after training: verdicts, and what they show about the sealed scores."""

import math
from collections.abc import Iterator
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors

from auditkit.evidence import statements
from auditkit.evidence.derivation import Split, derive_split
from auditkit.evidence.document_checks import Documents, open_envelope
from auditkit.evidence.errors import EvidenceError
from auditkit.evidence.findings import Result, Skipped
from auditkit.evidence.membership_codes import own_code_p_value
from auditkit.evidence.model_checks import NOT_SEALED, NOT_SUBMITTED, read_calibration
from schemas import AssuranceLevel, MembershipVerdict, SealRecord

CLOCK_GRAIN_SECONDS = 1  # cosignature times are whole seconds
BOUND_TOLERANCE = 1e-9  # relative; exponential functions differ in the last bits
CARRIED_TOLERANCE = 0.05  # of z; the same model on two machines differs by far less


class VerdictError(EvidenceError):
    """A verdict is not bound to this model and calibration, or does not follow from them."""


class CarriedCodesError(EvidenceError):
    """The model says another code score of an opened sample than the developer has sealed."""


def verdicts(
    documents: Documents, seal: SealRecord | None, sealed_at: int | None, level: AssuranceLevel
) -> Result:
    """Every verdict is signed, about this model, issued after the seal, and follows from it.

    `level` is what the evidence reaches without the verdicts.
    """
    bundle = documents.bundle
    if not bundle.verdicts:
        return Skipped("there are no verdicts here")
    if seal is None or bundle.scores is None:
        raise VerdictError("there are verdicts, and no sealed model that they could be about")
    if sealed_at is None:
        return Skipped("no cosignature tells when the model was sealed")
    basis = _Basis(documents, read_calibration(bundle.scores))
    for data in bundle.verdicts:
        envelope = open_envelope(data)
        verdict = documents.history.verify_statement(
            "verdict",
            envelope,
            statements.VERDICT_PREDICATE,
            MembershipVerdict,
            dated=lambda verdict: verdict.issued_at,
            known_by=documents.registered_by(envelope),
        )
        _check_binding(verdict, documents, seal, sealed_at)
        _check_evidence(verdict, basis)
        check_outcome(verdict)
        # At L0 a failed check says more than this could.
        if verdict.level > level > AssuranceLevel.L0:
            raise VerdictError(
                f"verdict {verdict.verdict_id} claims assurance level {verdict.level.name}, the "
                f"evidence here reaches {level.name}"
            )
    return f"{len(bundle.verdicts)} signed verdicts"


def codes_carried(documents: Documents, seal: SealRecord | None) -> Result:
    """What the auditor measured on opened members is what the developer has sealed about them.

    The auditor has M+ and no images of the pool, so sealed scores can be compared only where a
    sample was opened for a query. Who seals invented scores does not know which ones will be.
    """
    if documents.request.config.mint.evidence != "codes":
        return "no codes are used"
    scores = documents.bundle.scores
    if seal is None:
        return Skipped(NOT_SEALED)
    if scores is None:
        return Skipped(NOT_SUBMITTED)
    split = _split(documents)
    places = {
        int(index): (cohort, place)
        for cohort, indices in (("told", split.told), ("told_only", split.told_only))
        for place, index in enumerate(indices)
    }
    opened = [
        verdict
        for verdict in _readable_verdicts(documents)
        if verdict.evidence == "declared" and verdict.code_index in places
    ]
    if not opened:
        return Skipped("no member was opened for a query yet")
    try:
        sealed = load_safetensors(scores)
        for verdict in opened:
            cohort, place = places[verdict.code_index or 0]
            _check_carried(verdict, float(sealed[f"own/{cohort}"][place]))
    except (SafetensorError, KeyError, IndexError, ValueError, TypeError) as error:
        raise CarriedCodesError(f"the sealed code scores cannot be read: {error}") from error
    return f"{len(opened)} opened members have the code scores that were sealed"


class _Basis:
    """What the p-values of a session's verdicts may rest on."""

    def __init__(self, documents: Documents, calibration: NDArray[np.float32]) -> None:
        self.calibration = calibration
        self.codes = documents.request.config.mint.evidence == "codes"
        self.pool_size = documents.grant.split.pool
        self._documents = documents

    @cached_property
    def coded(self) -> frozenset[int]:
        """Pool indices of the samples whose codes T was told."""
        split = _split(self._documents)
        return frozenset(np.concatenate([split.told, split.told_only]).tolist())


def _split(documents: Documents) -> Split:
    return derive_split(bytes.fromhex(documents.grant.nonce), documents.grant.split)


def _readable_verdicts(documents: Documents) -> Iterator[MembershipVerdict]:
    """Yield the verdicts that can be read; `verdicts` says which ones hold."""
    for data in documents.bundle.verdicts:
        try:
            payload = open_envelope(data).payload
            yield statements.parse(payload, statements.VERDICT_PREDICATE, MembershipVerdict)
        except EvidenceError:
            continue


def _check_binding(
    verdict: MembershipVerdict, documents: Documents, seal: SealRecord, sealed_at: int
) -> None:
    bound = (verdict.session_id, verdict.weights_digest, verdict.scores_digest)
    if bound != (documents.grant.session_id, seal.weights_digest, seal.scores_digest):
        raise VerdictError(
            f"verdict {verdict.verdict_id} is about another session, model or calibration"
        )
    if verdict.issued_at.timestamp() < sealed_at - CLOCK_GRAIN_SECONDS:
        raise VerdictError(f"verdict {verdict.verdict_id} was issued before the model was sealed")


def _check_evidence(verdict: MembershipVerdict, basis: _Basis) -> None:
    match verdict.evidence:
        case "declared":
            _check_declared(verdict, basis)
        case "calibrated":
            _check_calibrated(verdict, basis)
        case other:
            raise VerdictError(
                f"verdict {verdict.verdict_id} rests on {other!r} evidence, which no answer about "
                "a single sample can"
            )


def _check_declared(verdict: MembershipVerdict, basis: _Basis) -> None:
    if not basis.codes or verdict.code_index is None or verdict.code_index >= basis.pool_size:
        raise VerdictError(
            f"verdict {verdict.verdict_id} rests on a sample's own code, and there is no such "
            "sample, or the session has no codes"
        )
    check_bound(verdict)


def check_bound(verdict: MembershipVerdict) -> None:
    """Check that a declared p-value is the bound that its code score gives.

    Raises:
        VerdictError: it is not.
    """
    expected = own_code_p_value(verdict.score)
    if verdict.calibration_size or not math.isclose(
        verdict.p_value, expected, rel_tol=BOUND_TOLERANCE
    ):
        raise VerdictError(
            f"verdict {verdict.verdict_id} says p = {verdict.p_value:g} from "
            f"{verdict.calibration_size} samples, its code score {verdict.score:g} bounds it at "
            f"{expected:g} without any"
        )


def _check_calibrated(verdict: MembershipVerdict, basis: _Basis) -> None:
    if verdict.code_index is None if basis.codes else verdict.code_index is not None:
        raise VerdictError(
            f"verdict {verdict.verdict_id} names "
            f"{'no code' if basis.codes else 'a code'} that its score is of; the session trains "
            f"{'with' if basis.codes else 'without'} codes"
        )
    if verdict.code_index is not None and verdict.code_index not in basis.coded:
        raise VerdictError(
            f"verdict {verdict.verdict_id} names sample {verdict.code_index}, whose code T was "
            "never told"
        )
    check_rank(verdict, basis.calibration)


def check_rank(verdict: MembershipVerdict, calibration: NDArray[np.floating]) -> None:
    """Check that a calibrated p-value is the rank of its score; ties count against the sample.

    Raises:
        VerdictError: it is not.
    """
    rank = 1 + int((calibration >= np.float32(verdict.score)).sum())
    p_value = rank / (len(calibration) + 1)
    if verdict.calibration_size != len(calibration) or verdict.p_value != p_value:
        raise VerdictError(
            f"verdict {verdict.verdict_id} says p = {verdict.p_value:g}, the committed scores "
            f"give {p_value:g}"
        )
    if verdict.false_positive_rate < 1 / (len(calibration) + 1):
        raise VerdictError(
            f"verdict {verdict.verdict_id} was asked for at rate {verdict.false_positive_rate:g}, "
            f"which {len(calibration)} calibration samples can't reach: it says 'not shown' of "
            "every sample there is"
        )


def check_outcome(verdict: MembershipVerdict) -> None:
    """Check that the outcome follows from p-value and rate.

    Raises:
        VerdictError: it does not.
    """
    outcome = "member" if verdict.p_value <= verdict.false_positive_rate else "not_shown"
    if verdict.outcome != outcome:
        raise VerdictError(
            f"verdict {verdict.verdict_id} says {verdict.outcome!r}; p = {verdict.p_value:g} at "
            f"rate {verdict.false_positive_rate:g} gives {outcome!r}"
        )


def _check_carried(verdict: MembershipVerdict, sealed: float) -> None:
    if not math.isclose(verdict.score, sealed, rel_tol=0.0, abs_tol=CARRIED_TOLERANCE):
        raise CarriedCodesError(
            f"the model gives sample {verdict.code_index} the code score {verdict.score:g} "
            f"(verdict {verdict.verdict_id}), the developer has sealed {sealed:g}; the sealed "
            "scores are not of this model and these samples"
        )
