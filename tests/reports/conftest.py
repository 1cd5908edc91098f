"""A realistic session, built from the real schemas, that the tests of the report alter."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from scipy import stats

from auditkit.reports import FurtherContainer, LogSummary, QueriedSample, ReportInput, StepTrace
from schemas import (
    AssuranceLevel,
    AuditOrder,
    CalibrationRecord,
    CohortMetrics,
    Environment,
    EvaluationRecord,
    Finding,
    FlaggedRate,
    GrantRecord,
    MembershipVerdict,
    MintConfig,
    ModelConfig,
    ModelDescription,
    Normalisation,
    OptimiserConfig,
    RateEstimate,
    ResumeRecord,
    SampleCommitment,
    SealRecord,
    SessionGrant,
    SessionRequest,
    SplitFractions,
    SplitSizes,
    TrainingConfig,
    VerificationReport,
)
from tests.evidence.contained import IMAGE, contained_run

START = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
START_MS = int(START.timestamp() * 1000)
SIZES = {
    "told": 4000,
    "silent": 500,
    "told_only": 500,
    "external": 3000,
    "calibration": 2000,
    "test": 5000,
}
STEPS = 1280


def digest(letter: str) -> str:
    return letter * 64


def rate(successes: int, trials: int) -> RateEstimate:
    bounds = stats.binomtest(successes, trials).proportion_ci(0.95, method="exact")
    return RateEstimate(
        successes=successes,
        trials=trials,
        value=successes / trials,
        low=float(bounds.low),
        high=float(bounds.high),
    )


def environment() -> Environment:
    return Environment(
        python="3.11.7",
        torch="2.10.0",
        torchvision="0.25.0",
        timm="1.0.20",
        auditkit="0.1.0",
        platform="Linux-6.1-x86_64",
        cpu_capability="AVX2",
        threads=2,
        device="cpu",
    )


def training_config() -> TrainingConfig:
    return TrainingConfig(
        name="retina-screening",
        model=ModelConfig(
            architecture="resnet18", classes=10, channels=3, height=32, width=32, stem_pool=False
        ),
        mint=MintConfig(head="fully_connected", mint_weight=1.0),
        optimiser=OptimiserConfig(learning_rate=0.05, l2=5e-4),
        epochs=40,
        batch_size=128,
        external_batch_size=128,
        augmentation="flip_shift",
    )


def scores() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(5)
    centre = {"told": 4.4, "told_only": 4.1, "external": -2.4}
    return {
        cohort: generator.normal(centre.get(cohort, -2.0), 1.4, size)
        for cohort, size in SIZES.items()
    }


def losses() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(6)
    scale = {"told": 0.6, "silent": 0.6}
    return {
        cohort: generator.exponential(scale.get(cohort, 0.9), size)
        for cohort, size in SIZES.items()
    }


def evaluation(all_scores: dict[str, np.ndarray]) -> EvaluationRecord:
    cohorts = []
    for cohort, values in all_scores.items():
        flagged = []
        for nominal in (0.05, 0.01, 0.001):
            threshold = np.quantile(all_scores["calibration"], 1 - nominal)
            found = int((values > threshold).sum())
            flagged.append(
                FlaggedRate(false_positive_rate=nominal, flagged=rate(found, len(values)))
            )
        auc = float((values[:400, None] > all_scores["test"][None, :400]).mean())
        right = int(len(values) * (0.81 if cohort in ("told", "silent") else 0.69))
        cohorts.append(
            CohortMetrics(
                cohort=cohort,
                size=len(values),
                auc=None if cohort == "test" else auc,
                flagged=tuple(flagged),
                task_accuracy=rate(right, len(values)),
                task_loss=0.71,
            )
        )
    return EvaluationRecord(
        sequence=1420, time_ms=START_MS + 900_000, step=STEPS, epoch=39, cohorts=tuple(cohorts)
    )


def finding(
    check: str, claim: str, outcome: str = "passed", detail: str = "", error=None
) -> Finding:
    return Finding(check=check, claim=claim, outcome=outcome, detail=detail, error=error)


FINDINGS = (
    finding("documents", "Order, request and grant can be read", detail="all three"),
    finding("order-signed", "The auditor signed the order", detail="order ord-2026-014"),
    finding("request-within-policy", "The request fits every rule of the order", detail="resnet18"),
    finding("session-key", "The session key is certified and not revoked", detail="key 77ab…"),
    finding(
        "image-verified",
        "The training ran in locked-down containers of one allowed image",
        "not_checked",
        "the training did not run in a container, as the order allows",
    ),
    finding("checkpoints-cosigned", "The auditor cosigned every checkpoint", detail="812 of 812"),
    finding(
        "log-complete",
        "The log runs from the grant to the seal, and no record is missing",
        detail="1423 records, 1280 of them steps, resumed 1 times after a crash",
    ),
    finding(
        "times-possible",
        "Recorded times fit the auditor's clock, and cosignatures lie within the session",
        "warning",
        "37 records reached the auditor more than 60 s after they were written: the interlock "
        "does not bound when those were made",
    ),
    finding("schedule", "Every step used the batch that the nonce prescribes", detail="1280 steps"),
    finding("sealed-weights", "The submitted model is the one that was sealed", detail="weights c"),
    finding(
        "replay",
        "Random segments of the training were executed again with the same result",
        "not_checked",
        "no replay was performed: a forged training is not excluded",
    ),
)  # fmt: skip


def step_trace(steps: int = STEPS) -> StepTrace:
    generator = np.random.default_rng(7)
    at = np.arange(1, steps + 1)
    decay = np.exp(-at / 350)
    return StepTrace(
        step=at,
        epoch=(at - 1) // 32,
        task_loss=0.55 + 1.75 * decay + generator.normal(0, 0.08, steps),
        mint_loss=np.clip(0.08 + 0.62 * decay + generator.normal(0, 0.03, steps), 0, None),
        task_accuracy=np.clip(0.83 - 0.73 * decay + generator.normal(0, 0.03, steps), 0, 1),
        mint_accuracy=np.clip(0.97 - 0.47 * decay + generator.normal(0, 0.02, steps), 0, 1),
    )


def verdict(number: int, p_value: float, score: float) -> MembershipVerdict:
    return MembershipVerdict(
        verdict_id=f"verdict-{number}",
        session_id="ses-4f1c",
        weights_digest=digest("c"),
        scores_digest=digest("d"),
        sample_digest=f"{number:064x}",
        score=score,
        p_value=p_value,
        calibration_size=2000,
        false_positive_rate=0.01,
        outcome="member" if p_value <= 0.01 else "not_shown",
        level=AssuranceLevel.L1,
        issued_at=START + timedelta(days=3),
    )


@pytest.fixture(scope="session")
def contained_report(session_report: ReportInput) -> ReportInput:
    """The same session at level L2: in three containers, of which the second wrote nothing."""
    report = session_report
    checked = finding(
        "image-verified",
        "The training ran in locked-down containers of one allowed image",
        detail=f"image {IMAGE[:16]}… in 3 containers one after another without network",
    )
    findings = tuple(
        checked if found.check == "image-verified" else found
        for found in report.verification.findings
    )
    return replace(
        report,
        order=report.order.model_copy(
            update={"images": (digest("0"), IMAGE), "allow_without_container": False}
        ),
        request=report.request.model_copy(update={"container": contained_run()}),
        start=report.start.model_copy(update={"mode": "container", "image_digest": IMAGE}),
        verification=report.verification.model_copy(
            update={"findings": findings, "level": AssuranceLevel.L2}
        ),
        continuations=(
            FurtherContainer(contained_run(2), 610, START + timedelta(minutes=7), None),
            FurtherContainer(contained_run(3), 610, START + timedelta(minutes=9), 611),
        ),
    )


@pytest.fixture(scope="session")
def session_report() -> ReportInput:
    """A session at level L1: sealed, with a late upload, a resume and four verdicts."""
    all_scores = scores()
    return ReportInput(
        auditor="Authority for Algorithmic Oversight",
        trust_root_version=3,
        order=AuditOrder(
            order_id="ord-2026-014",
            auditor="Authority for Algorithmic Oversight",
            developer="Iris Diagnostics GmbH",
            purpose="Which retinal images trained the screening model, as licence 14/2026 demands",
            issued_at=START - timedelta(days=7),
            expires_at=START + timedelta(days=90),
            split=SplitFractions(external=0.3, calibration=0.2, silent=0.05, told_only=0.05),
            allow_without_container=True,
        ),
        order_digest=digest("1"),
        request=SessionRequest(
            order_digest=digest("1"),
            developer="Iris Diagnostics GmbH",
            config=training_config(),
            code_digest=digest("5"),
            pool=SampleCommitment(root=digest("7"), size=10_000),
            test=SampleCommitment(root=digest("8"), size=5000),
            session_key=digest("9"),
            environment=environment(),
            requested_at=START,
        ),
        request_digest=digest("2"),
        grant=SessionGrant(
            session_id="ses-4f1c",
            session_number=1,
            origin="audit.example.org/sessions/ses-4f1c",
            request_digest=digest("2"),
            order_digest=digest("1"),
            nonce=digest("a"),
            split=SplitSizes(told=4000, silent=500, told_only=500, external=3000, calibration=2000),
            session_key=digest("9"),
            valid_from=START,
            valid_until=START + timedelta(hours=24),
        ),
        grant_digest=digest("3"),
        verification=VerificationReport(
            session_id="ses-4f1c",
            verified_at=START + timedelta(days=4),
            findings=FINDINGS,
            level=AssuranceLevel.L1,
        ),
        log=LogSummary(
            records=1423,
            unreadable_records=0,
            checkpoints=812,
            states=14,
            first_record_ms=START_MS,
            last_record_ms=START_MS + 904_000,
            longest_silence_seconds=74.2,
            last_cosigned_seconds=START_MS // 1000 + 905,
            late_records=37,
            resumes=(
                ResumeRecord(
                    sequence=611,
                    time_ms=START_MS + 400_000,
                    step=500,
                    state_digest=digest("e"),
                    discarded_steps=42,
                    environment=environment(),
                ),
            ),
        ),
        steps=step_trace(),
        generated_at=START + timedelta(days=4, minutes=2),
        start=GrantRecord(
            sequence=0,
            time_ms=START_MS,
            grant_digest=digest("3"),
            code_digest=digest("5"),
            image_digest=None,
            mode="process",
            environment=environment(),
        ),
        evaluations=(evaluation(all_scores),),
        calibration=CalibrationRecord(
            sequence=1421, time_ms=START_MS, scores_digest=digest("d"), calibration_size=2000
        ),
        seal=SealRecord(
            sequence=1422,
            time_ms=START_MS + 904_000,
            step=STEPS,
            weights_digest=digest("c"),
            description_digest=digest("b"),
            scores_digest=digest("d"),
        ),
        scores=all_scores,
        task_losses=losses(),
        description=ModelDescription(
            session_id="ses-4f1c",
            model=training_config().model,
            taps=training_config().taps,
            mint=training_config().mint,
            normalisation=Normalisation(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)),
            class_names=tuple(f"class {i}" for i in range(10)),
            weights_digest=digest("c"),
            parameters=11_412_906,
        ),
        verdicts=(
            QueriedSample(verdict(1, 1 / 2001, 5.13), "IMG_2041.jpg", "told"),
            QueriedSample(verdict(2, 6 / 2001, 1.62), "IMG_2042.jpg", "told_only"),
            QueriedSample(verdict(3, 0.4137931, -1.71), "IMG_7001.jpg", "silent"),
            QueriedSample(verdict(4, 0.8715642, -3.4)),
        ),
    )
