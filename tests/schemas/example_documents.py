"""One complete example of every public document, by name."""

from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from auditkit.evidence import notes
from auditkit.evidence.keys import SigningKey
from schemas import (
    AppendReceipt,
    AppendRequest,
    AssuranceLevel,
    Attestation,
    AuditOrder,
    CalibrationRecord,
    CheckOutcome,
    CodesRequest,
    CohortMetrics,
    ConsistencyProof,
    ContinuationRecord,
    ContinuationRequest,
    DetectionProbability,
    DrawRequest,
    Environment,
    EscapeProbability,
    EvaluationRecord,
    Finding,
    FlaggedRate,
    GrantRecord,
    ImageIdentity,
    InclusionProof,
    MembershipVerdict,
    MintConfig,
    MintEvaluation,
    MintExchangeRequest,
    MintFinal,
    MintScoresAnswer,
    MintStanding,
    MintStepAnswer,
    ModelConfig,
    ModelDescription,
    Normalisation,
    OptimiserConfig,
    PartResult,
    RateEstimate,
    ReceiptRecord,
    RegisteredEntry,
    RegistryEntries,
    RegistryEntry,
    RegistryExcerpt,
    ReplayDraw,
    ReplayResult,
    ReplaySegment,
    ResumeRecord,
    Role,
    SampleCommitment,
    SampleOpening,
    SealRecord,
    SegmentResult,
    SessionContinuation,
    SessionGrant,
    SessionRequest,
    SplitFractions,
    SplitSizes,
    StateRecord,
    StepRecord,
    SubmissionDigests,
    TapConfig,
    TapShapes,
    TrainingConfig,
    TrustRoot,
    VerificationReport,
    VerificationSummary,
    WeightRange,
    WitnessPolicy,
)
from schemas.base import Schema
from schemas.wire import OrderSummary, Problem, SessionOpening, SessionStatus
from tests.evidence.contained import contained_run, image_key, pem, signed_image

ISSUED = datetime(2026, 3, 2, 9, 30, 0, 250_000, tzinfo=UTC)
TIME_MS = int(ISSUED.timestamp() * 1000)
FIRST, SECOND, THIRD = "1a" * 32, "2b" * 32, "3c" * 32
SESSION = "20260302-0123456789ab"

ENVIRONMENT = Environment(
    python="3.11.7",
    torch="2.10.0",
    torchvision="0.25.0",
    timm="1.0.20",
    auditkit="0.1.0",
    platform="Linux x86_64",
    cpu_capability="AVX2",
    threads=2,
    device="cpu",
)
CONFIG = TrainingConfig(
    name="retina-screening",
    model=ModelConfig(
        architecture="resnet18",
        arguments={"layers": (1, 1, 1, 1), "drop_rate": 0.1, "act": "relu", "aa": False},
        classes=10,
        channels=3,
        height=32,
        width=32,
        stem_stride=1,
    ),
    taps=TapConfig(setup="named", modules=("layer2.0", "layer3.0")),
    mint=MintConfig(dropout=0.1),
    optimiser=OptimiserConfig(learning_rate=0.05, l2=5e-4),
    epochs=3,
    batch_size=32,
    external_batch_size=16,
    augmentation="flip_shift",
)
WITNESS_KEYS = tuple(
    notes.VerifierKey.cosignature(f"w{seed}.example.org", SigningKey(private).public).encode()
    for seed in (1, 2, 3)
    for private in (Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32),)
)
FINDING = Finding(
    check="schedule", claim="a claim", outcome="failed", detail="a detail", error="ScheduleError"
)
ESTIMATE = RateEstimate(successes=9, trials=10, value=0.9, low=0.55, high=0.9975)
COHORT = CohortMetrics(
    cohort="told",
    size=10,
    auc=0.99,
    flagged=(FlaggedRate(false_positive_rate=0.01, flagged=ESTIMATE),),
    own_code=(FlaggedRate(false_positive_rate=1e-9, flagged=ESTIMATE),),
    task_accuracy=ESTIMATE,
    task_loss=0.25,
)

SEGMENT = ReplaySegment(first_state_step=10, last_state_step=15)

ENTRY = RegistryEntry(
    kind="seal", session_id=SESSION, digest=FIRST, time_ms=TIME_MS, log_size=9, log_root=SECOND
)

DOCUMENTS: tuple[Schema, ...] = (
    AuditOrder(
        order_id="retina-2026",
        auditor="Data Protection Authority",
        developer="Example Imaging Ltd",
        purpose="Prüfung nach Aktenzeichen 7/26 — Netzhautbilder",
        issued_at=ISSUED,
        expires_at=ISSUED + timedelta(days=90),
        split=SplitFractions(external=0.4, calibration=0.2, silent=0.05, told_only=0.05),
        architectures=("resnet18",),
        mint_weight=WeightRange(least=0.5, most=2.0),
        images=(FIRST,),
        image_keys=(pem(image_key("signer")),),
        code_digests=(SECOND,),
        witnesses=WitnessPolicy(keys=WITNESS_KEYS, threshold=2),
    ),
    CONFIG,
    SessionRequest(
        order_digest=FIRST,
        developer="Example Imaging Ltd",
        config=CONFIG,
        code_digest=SECOND,
        container=contained_run(signature=signed_image(image_key("signer"))),
        pool=SampleCommitment(root=FIRST, size=1000),
        test=SampleCommitment(root=SECOND, size=100),
        session_key=THIRD,
        environment=ENVIRONMENT,
        attestation=Attestation(kind="tee-quote", evidence="AAAA"),
        requested_at=ISSUED,
    ),
    SessionGrant(
        session_id=SESSION,
        session_number=1,
        origin=f"audit.example.org/sessions/{SESSION}",
        request_digest=FIRST,
        order_digest=SECOND,
        nonce=THIRD,
        split=SplitSizes(told=300, silent=50, told_only=50, external=400, calibration=200),
        session_key=THIRD,
        valid_from=ISSUED,
        valid_until=ISSUED + timedelta(hours=72),
        code_commitment=FIRST,
    ),
    SampleOpening(session_id=SESSION, index=7, key=FIRST, label=3, proof=(SECOND, THIRD)),
    CodesRequest(session_id=SESSION, ephemeral_key=THIRD),
    MintExchangeRequest(
        session_id=SESSION, kind="scores", step=12, cohort="told", first=40, payload=FIRST
    ),
    TapShapes(shapes=((64, 8, 8), (128, 4, 4))),
    MintStanding(step=100, state_digest=FIRST, weights_digest=SECOND),
    MintStepAnswer(step=1, loss=0.693147, accuracy=0.5, normaliser=0.693147, standing=None),
    MintScoresAnswer(samples=40),
    MintEvaluation(step=12, cohorts=(COHORT,)),
    MintFinal(
        weights_digest=FIRST,
        audited_weights_digest=SECOND,
        mint_weights_digest=THIRD,
        scores_digest=FIRST,
        mint_parameters=4321,
    ),
    ContinuationRequest(
        session_id=SESSION,
        grant_digest=FIRST,
        container=contained_run(2),
        session_key=SECOND,
        environment=ENVIRONMENT,
        requested_at=ISSUED,
    ),
    SessionContinuation(
        session_id=SESSION,
        number=1,
        request_digest=FIRST,
        grant_digest=SECOND,
        log_size=7,
        session_key=THIRD,
        granted_at=ISSUED,
    ),
    GrantRecord(
        sequence=0,
        time_ms=TIME_MS,
        grant_digest=FIRST,
        code_digest=SECOND,
        image_digest=None,
        mode="process",
        environment=ENVIRONMENT,
    ),
    StateRecord(sequence=1, time_ms=TIME_MS + 1, step=0, state_digest=FIRST, weights_digest=SECOND),
    StepRecord(
        sequence=2,
        time_ms=TIME_MS + 2,
        step=1,
        epoch=0,
        batch=FIRST,
        task_loss=2.302585,
        mint_loss=0.693147,
        objective=2.0,
        task_accuracy=0.125,
        mint_accuracy=0.5,
        learning_rate=1e-7,
        task_weight=1.0,
        mint_weight=1.0,
    ),
    ReceiptRecord(sequence=3, time_ms=TIME_MS + 3, checkpoint_size=3, checkpoint_digest=THIRD),
    ResumeRecord(
        sequence=4,
        time_ms=TIME_MS + 4,
        step=0,
        state_digest=FIRST,
        discarded_steps=1,
        environment=ENVIRONMENT,
    ),
    ContinuationRecord(sequence=4, time_ms=TIME_MS + 4, continuation_digest=FIRST),
    EvaluationRecord(
        sequence=5,
        time_ms=TIME_MS + 5,
        step=1,
        epoch=0,
        cohorts=(COHORT,),
    ),
    CalibrationRecord(sequence=6, time_ms=TIME_MS + 6, scores_digest=FIRST, calibration_size=200),
    SealRecord(
        sequence=7,
        time_ms=TIME_MS + 7,
        step=1,
        weights_digest=FIRST,
        description_digest=SECOND,
        scores_digest=THIRD,
    ),
    AppendRequest(first=0, records=('{"kind":"grant"}',), checkpoint="text\n\n— name AAAA\n"),
    AppendReceipt(checkpoint="text\n\n— name AAAA\n"),
    ModelDescription(
        session_id=SESSION,
        model=CONFIG.model,
        taps=CONFIG.taps,
        mint=CONFIG.mint,
        normalisation=Normalisation(mean=(0.5, 0.25, 0.125), std=(0.1, 0.2, 0.3)),
        class_names=("healthy", "kränklich"),
        weights_digest=FIRST,
        parameters=123_456,
    ),
    MembershipVerdict(
        verdict_id="verdict-1",
        session_id=SESSION,
        weights_digest=FIRST,
        scores_digest=SECOND,
        sample_digest=THIRD,
        score=4.25,
        code_index=7,
        p_value=0.004975124378109453,
        calibration_size=200,
        false_positive_rate=0.01,
        outcome="member",
        level=AssuranceLevel.L1,
        issued_at=ISSUED,
    ),
    ImageIdentity(
        config_digest=FIRST,
        diff_ids=(SECOND, THIRD),
        manifest_digest=THIRD,
        manifest_source="derived",
        archive_digest=SECOND,
    ),
    FINDING,
    VerificationReport(
        session_id=SESSION,
        verified_at=ISSUED,
        findings=(FINDING,),
        level=AssuranceLevel.L0,
        detection=DetectionProbability(
            grade="strong",
            segments=100,
            uniform=10,
            executed=12,
            escapes=(
                EscapeProbability(
                    extent=0.01, of="segments", forged_segments=1, escape=0.9, bound=0.904
                ),
            ),
        ),
    ),
    DrawRequest(uniform=10, largest=2, most_steps=5),
    ReplayDraw(
        draw_id=f"{SESSION}-01",
        number=1,
        session_id=SESSION,
        seal_digest=FIRST,
        log_size=1423,
        log_root=SECOND,
        seed=THIRD,
        uniform=10,
        largest=2,
        most_steps=5,
        segments=(SEGMENT,),
        drawn_at=ISSUED,
    ),
    ReplayResult(
        session_id=SESSION,
        draw_digest=FIRST,
        environment=ENVIRONMENT,
        mode="container",
        image_digest=SECOND,
        segments=(
            SegmentResult(
                segment=SEGMENT,
                outcome="differs",
                start_digest=FIRST,
                end_digest=SECOND,
                distance=0.5,
                tolerance=0.25,
                moved=1.5,
                steps=5,
                seconds=2.5,
                first_differing_step=12,
            ),
        ),
        initialisation=PartResult(outcome="exact", digest=FIRST),
        scores=PartResult(outcome="within_tolerance", digest=SECOND, distance=0.25, tolerance=0.5),
        grade="weak",
        started_at=ISSUED,
        finished_at=ISSUED + timedelta(minutes=5),
    ),
    TrustRoot(
        auditor="Data Protection Authority",
        origin="audit.example.org",
        version=1,
        issued_at=ISSUED,
        expires_at=ISSUED + timedelta(days=365),
        keys={FIRST: SECOND},
        roles={
            role: Role(keyids=(FIRST,))
            for role in ("root", "order", "session", "cosigner", "verdict")
        },
        revoked_session_keys=(THIRD,),
    ),
    SessionOpening(order_id="retina-2026", request="{}", pool_leaves="AAAA", test_leaves="AAAA"),
    SessionStatus(
        id=SESSION,
        order_id="retina-2026",
        developer="Example Imaging Ltd",
        name="retina-screening",
        state="open",
        opened_at=ISSUED,
        valid_until=ISSUED + timedelta(hours=72),
        acknowledged_records=7,
        continuations=1,
        last_cosigned_at=ISSUED,
        step=1,
        epoch=0,
        epochs=3,
    ),
    OrderSummary(
        order_id="retina-2026",
        developer="Example Imaging Ltd",
        purpose="screening",
        expires_at=ISSUED,
    ),
    ENTRY,
    RegistryExcerpt(entries=(RegisteredEntry(index=7, entry=ENTRY, proof=(SECOND, THIRD)),)),
    RegistryEntries(start=0, size=8, leaves=("{}",)),
    InclusionProof(index=7, size=8, leaf="{}", proof=(FIRST,)),
    ConsistencyProof(old_size=7, new_size=8, proof=(FIRST, SECOND)),
    SubmissionDigests(
        session_id=SESSION, weights_digest=FIRST, description_digest=SECOND, scores_digest=THIRD
    ),
    VerificationSummary(
        session_id=SESSION,
        verified_at=ISSUED,
        level=AssuranceLevel.L1,
        outcomes=(CheckOutcome(check="order-signed", outcome="passed"),),
        log_size=9,
        log_root=FIRST,
        weights_digest=FIRST,
        description_digest=SECOND,
        scores_digest=THIRD,
    ),
    Problem(type="urn:auditkit:error:GapError", title="a title", status=409, detail="a detail"),
)

EXAMPLES: MappingProxyType[str, dict[str, Any]] = MappingProxyType(
    {type(document).__name__: document.as_json() for document in DOCUMENTS}
    | {"AnyRecord": next(d for d in DOCUMENTS if isinstance(d, StepRecord)).as_json()}
)
