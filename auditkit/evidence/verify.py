"""The pure verifier: an evidence bundle and a trust root in, findings out.

No network, no database, no clock, no torch. The server, the command line and a third party who
holds nothing but a bundle and the trust root run this same code.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors

from auditkit.evidence import dsse, merkle, notes, statements, trust
from auditkit.evidence.bundle import Bundle
from auditkit.evidence.canonical import sha256_hex
from auditkit.evidence.derivation import LEAF_BYTES, initialisation_seed
from auditkit.evidence.errors import EvidenceError
from auditkit.evidence.keys import PublicKey
from auditkit.evidence.log_checks import (
    CalibrationCheck,
    CheckpointRootCheck,
    CompleteLogCheck,
    ExposureCheck,
    LogCheck,
    LogIncompleteError,
    MintTrainingCheck,
    NumbersCheck,
    ReceiptCheck,
    RunIdentityCheck,
    ScheduleCheck,
    StatesCheck,
    TimesCheck,
)
from auditkit.evidence.policy import check_order_in_force, check_request, split_sizes
from schemas import (
    AnyRecord,
    AssuranceLevel,
    AuditOrder,
    Finding,
    MembershipVerdict,
    ModelDescription,
    SealRecord,
    SessionGrant,
    SessionRequest,
    TrustRoot,
    VerificationReport,
    parse_record,
)

COSIGNER_SUFFIX = "/cosigner"  # name of the auditor's cosignature key: `<origin><suffix>`

InitialWeights = Callable[[SessionRequest, int], str]
"""Rebuilds M+ from a request and a seed, and returns the SHA-256 of its weights file."""


class DocumentError(EvidenceError):
    """Order, request or grant cannot be read at all."""


class GrantMismatchError(EvidenceError):
    """The grant answers another request, or another order."""


class SessionKeyError(EvidenceError):
    """The session key is not the certified one, or was revoked, or its time was over."""


class SampleCommitmentError(EvidenceError):
    """The manifest leaves do not hash to the committed root."""


class RecordFormatError(LogIncompleteError):
    """A line of the log is not a valid record."""


class InitialWeightsError(EvidenceError):
    """Training did not start from the weights that the nonce prescribes."""


class SealedWeightsError(EvidenceError):
    """The submitted model is not the sealed one."""


class CalibrationScoresError(EvidenceError):
    """The submitted scores are not the committed ones."""


class VerdictError(EvidenceError):
    """A verdict is not bound to this model and calibration, or does not follow from them."""


@dataclass(frozen=True)
class Skipped:
    """A check that could not be done, and why."""

    reason: str


@dataclass(frozen=True)
class Warned:
    """A check that passed with something the reader must know."""

    detail: str


Result = str | Skipped | Warned


@dataclass(frozen=True)
class _Documents:
    order: AuditOrder
    order_envelope: dsse.Envelope
    request: SessionRequest
    grant: SessionGrant
    grant_envelope: dsse.Envelope


def log_line_reader(line: bytes, index: int) -> AnyRecord:
    """Parse one line of a log.

    Raises:
        RecordFormatError: the line is no valid record.
    """
    try:
        return parse_record(line)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        raise RecordFormatError(
            f"record {index} is not valid: {problem['msg']} at {problem['loc']}; the log was "
            "damaged or written by another program"
        ) from error


def _open_documents(bundle: Bundle) -> _Documents:
    try:
        order_envelope = dsse.Envelope.from_bytes(bundle.order)
        grant_envelope = dsse.Envelope.from_bytes(bundle.grant)
        return _Documents(
            order=statements.parse(order_envelope.payload, statements.ORDER_PREDICATE, AuditOrder),
            order_envelope=order_envelope,
            request=SessionRequest.from_bytes(bundle.request),
            grant=statements.parse(
                grant_envelope.payload, statements.GRANT_PREDICATE, SessionGrant
            ),
            grant_envelope=grant_envelope,
        )
    except (EvidenceError, ValidationError) as error:
        raise DocumentError(f"order, request or grant cannot be read: {error}") from error


class _Verification:
    """One verification under way; collects findings in order."""

    def __init__(self, bundle: Bundle, trust_root: TrustRoot, now: datetime) -> None:
        self.bundle = bundle
        self.trust_root = trust_root
        self.now = now
        self.findings: list[Finding] = []

    def check(self, name: str, claim: str, function: Callable[[], Result]) -> bool:
        """Run one check and note its finding. True unless it failed or could not be done."""
        try:
            result = function()
        except EvidenceError as error:
            self._note(name, claim, "failed", str(error), type(error).__name__)
            return False
        match result:
            case Skipped(reason):
                self._note(name, claim, "not_checked", reason)
                return False
            case Warned(detail):
                self._note(name, claim, "warning", detail)
            case detail:
                self._note(name, claim, "passed", detail)
        return True

    def _note(
        self, name: str, claim: str, outcome: str, detail: str, error: str | None = None
    ) -> None:
        self.findings.append(
            Finding.model_validate(
                {
                    "check": name,
                    "claim": claim,
                    "outcome": outcome,
                    "detail": detail,
                    "error": error,
                }
            )
        )

    # -- documents ------------------------------------------------------------------------------

    def check_documents(self, documents: _Documents) -> None:
        order, request, grant = documents.order, documents.request, documents.grant

        def order_signed() -> Result:
            trust.verify_statement(
                self.trust_root,
                "order",
                documents.order_envelope,
                statements.ORDER_PREDICATE,
                AuditOrder,
            )
            return f"order {order.order_id}, signed by {self.trust_root.auditor}"

        def order_in_force() -> Result:
            check_order_in_force(order, grant.valid_from)
            return f"until {order.expires_at:%Y-%m-%d}, granted {grant.valid_from:%Y-%m-%d}"

        def within_policy() -> Result:
            check_request(order, request, grant.valid_from)
            if split_sizes(order.split, request.pool.size) != grant.split:
                raise GrantMismatchError(
                    f"the grant splits the pool into {grant.split}, the order's fractions give "
                    f"{split_sizes(order.split, request.pool.size)}"
                )
            return f"{request.config.model.architecture}, taps {request.config.taps.setup}"

        def grant_signed() -> Result:
            trust.verify_statement(
                self.trust_root,
                "session",
                documents.grant_envelope,
                statements.GRANT_PREDICATE,
                SessionGrant,
            )
            return f"session {grant.session_id}, signed by {self.trust_root.auditor}"

        def grant_matches() -> Result:
            order_digest = sha256_hex(documents.order_envelope.payload)
            for what, expected, found in (
                ("request", sha256_hex(self.bundle.request), grant.request_digest),
                ("order", order_digest, grant.order_digest),
                ("order named by the request", order_digest, request.order_digest),
            ):
                if expected != found:
                    raise GrantMismatchError(
                        f"digest of the {what}: the grant is for {found}, this one is {expected}"
                    )
            return f"request {grant.request_digest[:16]}…"

        def session_key() -> Result:
            if request.session_key != grant.session_key:
                raise SessionKeyError("the grant certifies another key than was requested")
            if grant.session_key in self.trust_root.revoked_session_keys:
                raise SessionKeyError("the auditor has revoked this session key")
            limit = grant.valid_from + timedelta(hours=order.most_session_hours)
            if not grant.valid_from < grant.valid_until <= limit:
                raise SessionKeyError(
                    f"the certificate runs until {grant.valid_until}, the order allows "
                    f"{order.most_session_hours:g} hours"
                )
            PublicKey.from_hex(grant.session_key)
            return f"key {grant.session_key[:16]}…, valid until {grant.valid_until:%Y-%m-%d %H:%M}"

        def samples_committed() -> Result:
            for what, leaves, commitment in (
                ("pool", self.bundle.pool_leaves, request.pool),
                ("test set", self.bundle.test_leaves, request.test),
            ):
                table = [
                    leaves[start : start + LEAF_BYTES]
                    for start in range(0, len(leaves), LEAF_BYTES)
                ]
                if len(leaves) != commitment.size * LEAF_BYTES:
                    raise SampleCommitmentError(
                        f"the manifest of the {what} has {len(table)} leaves, committed were "
                        f"{commitment.size}"
                    )
                if merkle.root(table).hex() != commitment.root:
                    raise SampleCommitmentError(
                        f"the manifest of the {what} does not hash to the root {commitment.root} "
                        "that was fixed before the nonce"
                    )
            return f"{request.pool.size} pool samples and {request.test.size} test samples"

        def image() -> Result:
            if request.image_digest is None:
                return Skipped("the training did not run in a container, as the order allows")
            return Skipped("the image digest was not recomputed from the image itself")

        self.check("order-signed", "The auditor signed the order", order_signed)
        self.check("order-in-force", "The order was in force at the grant", order_in_force)
        self.check("request-within-policy", "The request fits every rule of the order", within_policy)
        self.check("grant-signed", "The auditor signed the session's grant", grant_signed)
        self.check("grant-matches", "The grant answers this request and this order", grant_matches)
        self.check("session-key", "The session key is certified and not revoked", session_key)
        self.check(
            "samples-committed", "The samples were fixed before the nonce existed", samples_committed
        )
        self.check("image-verified", "The training ran in an allowed container image", image)

    # -- checkpoints ----------------------------------------------------------------------------

    def check_checkpoints(self, documents: _Documents) -> tuple[list[notes.Checkpoint], list[int]]:
        """Check the notes' signatures; return what can be read of them, and cosignature times."""
        grant = documents.grant
        checkpoints: list[notes.Checkpoint] = []
        cosigned_at: list[int] = []

        def signed() -> Result:
            key = notes.VerifierKey.ed25519(grant.origin, PublicKey.from_hex(grant.session_key))
            for note in self.bundle.checkpoints:
                notes.verify(note, [key])
            if not self.bundle.checkpoints:
                raise LogIncompleteError("the log has no checkpoint at all")
            return f"{len(self.bundle.checkpoints)} checkpoints, signed by the session key"

        def cosigned() -> Result:
            name = self.trust_root.origin + COSIGNER_SUFFIX
            keys = [
                notes.VerifierKey.cosignature(name, key)
                for key in trust.role_keys(self.trust_root, "cosigner").values()
            ]
            for note in self.bundle.checkpoints:
                verified = notes.verify(note, keys).signatures
                cosigned_at.append(min(s.timestamp for s in verified if s.timestamp is not None))
            if not cosigned_at:
                raise LogIncompleteError("the log has no checkpoint at all")
            first, last = (datetime.fromtimestamp(t, UTC) for t in (cosigned_at[0], cosigned_at[-1]))
            return f"from {first:%Y-%m-%d %H:%M:%S} to {last:%Y-%m-%d %H:%M:%S} UTC"

        def readable() -> None:
            for note in self.bundle.checkpoints:
                checkpoints.append(notes.parse_checkpoint(notes.parse(note).text))

        self.check("checkpoints-signed", "The session key signed every checkpoint", signed)
        self.check("checkpoints-cosigned", "The auditor cosigned every checkpoint", cosigned)
        try:
            readable()
        except EvidenceError:
            return [], []  # the two checks above have said so
        return checkpoints, cosigned_at

    # -- log ------------------------------------------------------------------------------------

    def check_log(
        self,
        documents: _Documents,
        checkpoints: list[notes.Checkpoint],
        cosigned_at: list[int],
    ) -> tuple[SealRecord | None, str | None]:
        """Read the log once through all its checks; return the seal and the initial weights."""
        request, grant = documents.request, documents.grant
        states = StatesCheck(request)
        times = TimesCheck(documents.order, grant, [c.size for c in checkpoints], cosigned_at)
        checks: list[LogCheck] = [
            CompleteLogCheck(),
            CheckpointRootCheck(checkpoints, grant.origin),
            ReceiptCheck(checkpoints, self.bundle.checkpoints),
            RunIdentityCheck(request, sha256_hex(documents.grant_envelope.payload)),
            times,
            states,
            MintTrainingCheck(request, _steps_per_epoch(request, grant)),
            NumbersCheck(),
            CalibrationCheck(grant),
        ]
        leaves = self.bundle.pool_leaves
        if grant.split.pool * LEAF_BYTES == len(leaves):
            checks.append(ScheduleCheck(request, grant, leaves))
            checks.append(ExposureCheck(documents.order, request, grant))
        failures: dict[str, EvidenceError] = {}
        unreadable: EvidenceError | None = None
        seal: SealRecord | None = None
        for index, line in enumerate(self.bundle.records):
            try:
                record = log_line_reader(line, index)
            except RecordFormatError as error:
                unreadable = error
                break
            if isinstance(record, SealRecord):
                seal = record
            for check in checks:
                if check.name not in failures:
                    try:
                        check.observe(line, record)
                    except EvidenceError as error:
                        failures[check.name] = error
        for check in checks:
            self._finish(check, failures.get(check.name), unreadable, late=times.late)
        return seal, states.initial_weights

    def _finish(
        self,
        check: LogCheck,
        failure: EvidenceError | None,
        unreadable: EvidenceError | None,
        *,
        late: int,
    ) -> None:
        def result() -> Result:
            if failure is not None:
                raise failure
            if unreadable is not None:
                if isinstance(check, CompleteLogCheck):
                    raise unreadable
                return Skipped("the log cannot be read to its end")
            detail = check.finish()
            return Warned(detail) if isinstance(check, TimesCheck) and late else detail

        self.check(check.name, check.claim, result)

    # -- model, scores, verdicts ----------------------------------------------------------------

    def check_initial_weights(
        self, documents: _Documents, declared: str | None, rebuild: InitialWeights | None
    ) -> None:
        def initial() -> Result:
            if declared is None:
                raise InitialWeightsError("the log commits to no initial state")
            if rebuild is None:
                return Skipped("the initial weights were not rebuilt in this verification")
            if documents.request.config.model.architecture.startswith("custom:"):
                return Skipped("the architecture is the developer's own code; replay it to check")
            found = rebuild(
                documents.request, initialisation_seed(bytes.fromhex(documents.grant.nonce))
            )
            if found != declared:
                raise InitialWeightsError(
                    f"training started from weights {declared}, the nonce gives {found}"
                )
            return f"weights {declared[:16]}… rebuilt from the nonce"

        self.check("initial-weights", "Training started from the nonce's own weights", initial)

    def check_submission(self, documents: _Documents, seal: SealRecord | None) -> None:
        bundle = self.bundle

        def weights() -> Result:
            if seal is None:
                return Skipped("the log has no seal")
            if bundle.weights is None or bundle.description is None:
                return Skipped("no model was submitted; run `auditkit submit`")
            for what, data, expected in (
                ("weights", bundle.weights, seal.weights_digest),
                ("description", bundle.description, seal.description_digest),
            ):
                if sha256_hex(data) != expected:
                    raise SealedWeightsError(
                        f"the submitted {what} hash to {sha256_hex(data)}, sealed was {expected}"
                    )
            description = _parse_description(bundle.description)
            config = documents.request.config
            if (
                description.session_id,
                description.weights_digest,
                description.model,
                description.taps,
                description.mint,
            ) != (
                documents.grant.session_id,
                seal.weights_digest,
                config.model,
                config.taps,
                config.mint,
            ):
                raise SealedWeightsError(
                    "the model's description is of another session, model or configuration"
                )
            return f"weights {seal.weights_digest[:16]}…, {description.parameters} parameters"

        def scores() -> Result:
            if seal is None:
                return Skipped("the log has no seal")
            if bundle.scores is None:
                return Skipped("no scores were submitted; run `auditkit submit`")
            if sha256_hex(bundle.scores) != seal.scores_digest:
                raise CalibrationScoresError(
                    f"the submitted scores hash to {sha256_hex(bundle.scores)}, sealed were "
                    f"{seal.scores_digest}"
                )
            found = len(_calibration_scores(bundle.scores))
            if found != documents.grant.split.calibration:
                raise CalibrationScoresError(
                    f"{found} calibration scores, the grant's C has "
                    f"{documents.grant.split.calibration}"
                )
            return f"{found} scores of C as committed"

        self.check("sealed-weights", "The submitted model is the one that was sealed", weights)
        self.check("calibration-scores", "The submitted scores are the committed ones", scores)

    def check_verdicts(
        self, documents: _Documents, seal: SealRecord | None, sealed_at: int | None
    ) -> None:
        def verdicts() -> Result:
            if not self.bundle.verdicts:
                return Skipped("nothing has been queried yet")
            if seal is None or sealed_at is None or self.bundle.scores is None:
                raise VerdictError("there are verdicts, and no sealed model they could be about")
            calibration = _calibration_scores(self.bundle.scores)
            for data in self.bundle.verdicts:
                envelope = dsse.Envelope.from_bytes(data)
                verdict = trust.verify_statement(
                    self.trust_root,
                    "verdict",
                    envelope,
                    statements.VERDICT_PREDICATE,
                    MembershipVerdict,
                )
                _check_verdict(verdict, documents.grant, seal, sealed_at, calibration)
            return f"{len(self.bundle.verdicts)} signed verdicts"

        self.check(
            "verdicts", "Every verdict follows from this model and its calibration", verdicts
        )

    def note_replay(self) -> None:
        self.check(
            "replay",
            "Random segments of the training were executed again with the same result",
            lambda: Skipped("no replay was performed: a forged training is not excluded"),
        )


def _steps_per_epoch(request: SessionRequest, grant: SessionGrant) -> int:
    return -(-(grant.split.told + grant.split.silent) // request.config.batch_size)


def _parse_description(data: bytes) -> ModelDescription:
    try:
        return ModelDescription.from_bytes(data)
    except ValidationError as error:
        raise SealedWeightsError(f"the model's description is not valid: {error}") from error


def _calibration_scores(scores: bytes) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    try:
        return load_safetensors(scores)["score/calibration"]
    except (SafetensorError, KeyError, ValueError) as error:
        raise CalibrationScoresError(f"the scores file cannot be read: {error}") from error


def _check_verdict(
    verdict: MembershipVerdict,
    grant: SessionGrant,
    seal: SealRecord,
    sealed_at: int,
    calibration: np.ndarray[tuple[int], np.dtype[np.float32]],
) -> None:
    bound = (verdict.session_id, verdict.weights_digest, verdict.scores_digest)
    if bound != (grant.session_id, seal.weights_digest, seal.scores_digest):
        raise VerdictError(
            f"verdict {verdict.verdict_id} is about another session, model or calibration"
        )
    if verdict.issued_at.timestamp() < sealed_at - 1:  # cosignature times are whole seconds
        raise VerdictError(f"verdict {verdict.verdict_id} was issued before the model was sealed")
    # Conformal p-value; ties count against the sample.
    rank = 1 + int((calibration >= np.float32(verdict.score)).sum())
    p_value = rank / (len(calibration) + 1)
    if verdict.calibration_size != len(calibration) or verdict.p_value != p_value:
        raise VerdictError(
            f"verdict {verdict.verdict_id} says p = {verdict.p_value:g}, the committed scores "
            f"give {p_value:g}"
        )
    outcome = "member" if p_value <= verdict.false_positive_rate else "not_shown"
    if verdict.outcome != outcome:
        raise VerdictError(
            f"verdict {verdict.verdict_id} says {verdict.outcome!r}; p = {p_value:g} at rate "
            f"{verdict.false_positive_rate:g} gives {outcome!r}"
        )


def assurance_level(findings: Sequence[Finding]) -> AssuranceLevel:
    """Return the level that the findings carry (design: computed, never chosen).

    L1 needs every check of documents, checkpoints, log, model and scores to hold. L2 adds the
    image, L3 the replay. L4 needs attested hardware, for which no check exists yet.
    """
    held = {f.check for f in findings if f.outcome in ("passed", "warning")}
    optional = {"image-verified", "verdicts", "replay", "initial-weights"}
    if any(f.outcome == "failed" for f in findings):
        return AssuranceLevel.L0
    if any(f.outcome == "not_checked" and f.check not in optional for f in findings):
        return AssuranceLevel.L0
    if "image-verified" not in held:
        return AssuranceLevel.L1
    if not {"replay", "initial-weights"} <= held:
        return AssuranceLevel.L2
    return AssuranceLevel.L3


def verify_bundle(
    bundle: Bundle,
    trust_root: TrustRoot,
    *,
    now: datetime,
    initial_weights: InitialWeights | None = None,
) -> VerificationReport:
    """Run every check on a bundle.

    Args:
        bundle: the evidence of one session.
        trust_root: already opened with `trust.open_trust_root`.
        now: time of verification, put into the report. Expiry is judged at the time of the grant.
        initial_weights: rebuilds the initial weights; None leaves that check undone.

    Returns:
        All findings, in the order of the story, and the assurance level. Never raises for bad
        evidence: that is what findings are for.
    """
    verification = _Verification(bundle, trust_root, now)
    documents: list[_Documents] = []

    def readable() -> Result:
        documents.append(_open_documents(bundle))
        return "order, request and grant"

    if not verification.check("documents", "Order, request and grant can be read", readable):
        return _report(verification, "unknown")
    opened = documents[0]
    verification.check_documents(opened)
    checkpoints, cosigned_at = verification.check_checkpoints(opened)
    seal, declared = verification.check_log(opened, checkpoints, cosigned_at)
    verification.check_initial_weights(opened, declared, initial_weights)
    verification.check_submission(opened, seal)
    verification.check_verdicts(opened, seal, cosigned_at[-1] if cosigned_at else None)
    verification.note_replay()
    return _report(verification, opened.grant.session_id)


def _report(verification: _Verification, session_id: str) -> VerificationReport:
    return VerificationReport(
        session_id=session_id,
        verified_at=verification.now,
        findings=tuple(verification.findings),
        level=assurance_level(verification.findings),
    )
