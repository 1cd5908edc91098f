"""A whole session's evidence, honest or forged: real keys and signatures, no model and no server.

A `Plot` says where a session departs from an honest one. `stage` plays it: every later step builds
on the forged one as an attacker would who holds all the keys, so that digests, signatures, tree and
receipts stay consistent, and only the check that the plot is aimed at can notice.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from safetensors.numpy import save

from auditkit.evidence import dsse, merkle, notes, statements
from auditkit.evidence.bundle import Bundle, Continuation
from auditkit.evidence.canonical import sha256_hex, to_bytes
from auditkit.evidence.derivation import (
    LEAF_BYTES,
    Schedule,
    batch_digest,
    derive_split,
    initialisation_seed,
    learning_rate,
)
from auditkit.evidence.keys import SigningKey
from auditkit.evidence.membership_codes import own_code_p_value, secret_commitment
from auditkit.evidence.policy import split_sizes
from auditkit.evidence.verify import COSIGNER_SUFFIX, verify_bundle
from auditkit.mint.metrics import cohort_metrics, flagged_rates, share
from auditkit.mint.scores import CohortScores
from schemas import (
    AssuranceLevel,
    AuditOrder,
    CalibrationRecord,
    CohortMetrics,
    CohortName,
    ContainerRun,
    ContinuationRecord,
    ContinuationRequest,
    Environment,
    EvaluationRecord,
    FlaggedRate,
    GrantRecord,
    MembershipVerdict,
    MintConfig,
    ModelConfig,
    ModelDescription,
    Normalisation,
    OptimiserConfig,
    ReceiptRecord,
    Record,
    ResumeRecord,
    Role,
    RoleName,
    SampleCommitment,
    SealRecord,
    SessionContinuation,
    SessionGrant,
    SessionRequest,
    SplitFractions,
    SplitSizes,
    StateRecord,
    StepRecord,
    TrainingConfig,
    TrustRoot,
    VerificationReport,
)
from schemas.evaluation import PROVABLE_RATES
from tests.evidence.contained import contained_run

Changes = dict[str, Any]
StoryEdit = Callable[[list[Record]], list[Record]]


def fixed_key(name: str) -> SigningKey:
    """The same key in every run, so that a failing seed can be repeated."""
    return SigningKey(Ed25519PrivateKey.from_private_bytes(bytes.fromhex(digest_of(name))))


def digest_of(text: str) -> str:
    return sha256_hex(text.encode())


ROLE_KEYS: dict[RoleName, SigningKey] = {role: fixed_key(role) for role in get_args(RoleName)}
DEVELOPER_KEY = fixed_key("developer")
STRANGER_KEY = fixed_key("stranger")
CONTAINER_KEYS = tuple(fixed_key(f"container {number}") for number in (2, 3, 4))

CODE_SECRET = bytes.fromhex(digest_of("code secret"))
CODES = MintConfig(evidence="codes", code_length=128)

GRANTED_AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
FIRST_RECORD_MS = 10_000  # after the grant
RECORD_EVERY_MS = 100
ORIGIN = "audit.example.org"
SESSION = "20260301-abcdef"
POOL_SIZE = 32
TEST_SIZE = 8
SEGMENT_RECORDS = 7
ENVIRONMENT = Environment(
    python="3.11.7",
    torch="2.10.0",
    torchvision="0.25.0",
    timm="1.0.15",
    auditkit="0.1.0",
    platform="Linux x86_64",
    cpu_capability="AVX2",
    threads=1,
    device="cpu",
)
CONFIG = TrainingConfig(
    name="digits",
    model=ModelConfig(architecture="resnet18", classes=10, channels=1, height=8, width=8),
    optimiser=OptimiserConfig(learning_rate=0.1),
    epochs=3,
    batch_size=4,
    external_batch_size=3,
    state_interval_steps=5,
)


def leaves(count: int, domain: str) -> bytes:
    return b"".join(bytes.fromhex(digest_of(f"{domain} {index}")) for index in range(count))


def commitment(data: bytes) -> SampleCommitment:
    table = [data[start : start + LEAF_BYTES] for start in range(0, len(data), LEAF_BYTES)]
    return SampleCommitment(root=merkle.root(table).hex(), size=len(table))


def rebuilt_weights(request: SessionRequest, seed: int) -> str:
    """Stands in for building the network: the digest of its initial weights."""
    return digest_of(f"weights of {request.config.model.architecture} from seed {seed}")


def honest_scores(split: SplitSizes) -> dict[str, np.ndarray]:
    """A scores file of all cohorts: members score higher, and M is right on most samples."""
    sizes = {
        "told": (split.told, 1.0),
        "silent": (split.silent, -0.5),
        "told_only": (split.told_only, 1.0),
        "external": (split.external, -1.0),
        "calibration": (split.calibration, -0.5),
        "test": (TEST_SIZE, -0.5),
    }
    tensors: dict[str, np.ndarray] = {}
    for name, (size, centre) in sizes.items():
        if size:
            spread = np.linspace(-1.5, 1.5, size)
            tensors[f"score/{name}"] = (centre + spread).astype(np.float32)
            tensors[f"loss/{name}"] = (2.0 + spread).astype(np.float32)
            tensors[f"correct/{name}"] = spread < 1.0
    return tensors


def own_code_scores(split: SplitSizes) -> dict[str, np.ndarray]:
    """What a scores file has beside the others when codes were learned."""
    sizes = {**split.model_dump(), "test": TEST_SIZE}
    return {
        f"own/{name}": np.linspace(7.0, 8.0, size, dtype=np.float32)
        if name.startswith("told")
        else np.linspace(-1.0, 1.0, size, dtype=np.float32)
        for name, size in sizes.items()
        if size
    }


def own_code_rates(scores: np.ndarray) -> tuple[FlaggedRate, ...]:
    bounds = np.array([own_code_p_value(float(score)) for score in scores])
    return tuple(
        FlaggedRate(false_positive_rate=rate, flagged=share(bounds <= rate))
        for rate in PROVABLE_RATES
    )


def measured(tensors: dict[str, np.ndarray]) -> tuple[CohortMetrics, ...]:
    """What a developer's agent makes of the scores; computed by the science's own code."""
    names = get_args(CohortName)
    cohorts = {
        name: CohortScores(*(tensors[f"{part}/{name}"] for part in ("score", "loss", "correct")))
        for name in names
        if f"score/{name}" in tensors
    }
    calibration = cohorts["calibration"].scores
    # Rates that a C as small as this one can carry.
    return tuple(
        found.model_copy(
            update={
                "flagged": flagged_rates(cohorts[found.cohort].scores, calibration, (0.2, 0.5)),
                "own_code": own_code_rates(tensors[f"own/{found.cohort}"])
                if f"own/{found.cohort}" in tensors
                else (),
            }
        )
        for found in cohort_metrics(cohorts)
    )


@dataclass(frozen=True)
class VerdictPlot:
    """One query: its score, and where its verdict departs from an honest one.

    Attributes:
        score: T's, or of a code.
        code: cohort and place of the sample whose code the score is of; None: no codes.
        opened: whether that sample itself was asked about.
    """

    score: float
    code: tuple[str, int] | None = None
    opened: bool = False
    changes: Changes = field(default_factory=dict)
    key: SigningKey = ROLE_KEYS["verdict"]


@dataclass(frozen=True)
class ContinuationPlot:
    """A further container, and where its continuation departs from an honest one.

    Attributes:
        before: the first record that the container writes, its own announcement apart.
        key: its session key.
        container: what it says of itself; None: an honest one.
        request: changes to its request.
        answer: changes to the auditor's answer.
        granted_by: who signs the answer.
        signer: what signs its checkpoints; None: its session key.
        named: whether the log names it.
    """

    before: Callable[[Record], bool]
    key: SigningKey
    container: ContainerRun | None = None
    request: Changes = field(default_factory=dict)
    answer: Changes = field(default_factory=dict)
    granted_by: SigningKey = ROLE_KEYS["session"]
    signer: SigningKey | None = None
    named: bool = True


@dataclass(frozen=True)
class Plot:
    """Where a session departs from an honest one; the fields come in the order of the story."""

    trust_root: Changes = field(default_factory=dict)
    order: Changes = field(default_factory=dict)
    order_key: SigningKey = ROLE_KEYS["order"]
    order_after_signing: Callable[[bytes], bytes] = lambda payload: payload
    config: Changes = field(default_factory=dict)
    container: ContainerRun | None = None
    request: Changes = field(default_factory=dict)
    request_bytes: Callable[[bytes], bytes] = lambda data: data
    grant: Changes = field(default_factory=dict)
    grant_key: SigningKey = ROLE_KEYS["session"]
    grant_after_signing: Callable[[bytes], bytes] = lambda payload: payload
    losses: Callable[[int], tuple[float, float]] = lambda step: (
        2.3 * 0.9 ** (step - 1),
        0.69 * 0.95 ** (step - 1),
    )
    stop_after: int | None = None
    weights: dict[str, np.ndarray] = field(
        default_factory=lambda: {"weight": np.arange(4, dtype=np.float32)}
    )
    scores: Changes = field(default_factory=dict)
    measured: tuple[CohortMetrics, ...] | None = None
    description: Changes = field(default_factory=dict)
    story: tuple[StoryEdit, ...] = ()
    segment_records: int = SEGMENT_RECORDS
    segment: Callable[[int, list[Record]], list[Record]] = lambda _number, records: records
    line: Callable[[bytes], bytes] = lambda line: line
    checkpoint: Callable[[notes.Checkpoint], notes.Checkpoint] = lambda checkpoint: checkpoint
    signer: SigningKey = DEVELOPER_KEY
    signed: Callable[[notes.Note], notes.Note] = lambda note: note
    continuations: tuple[ContinuationPlot, ...] = ()
    cosigner: SigningKey = ROLE_KEYS["cosigner"]
    cosigned_at: Callable[[int, int], int] = lambda _number, seconds: seconds
    verdicts: tuple[VerdictPlot, ...] = (VerdictPlot(2.0), VerdictPlot(-1.0))
    bundle: Callable[[Bundle], Bundle] = lambda bundle: bundle
    pool_leaves: bytes = leaves(POOL_SIZE, "pool")
    code_secret: bytes | None = None


@dataclass(frozen=True)
class Evidence:
    """What the verifier is given."""

    bundle: Bundle
    trust_root: TrustRoot
    code_secret: bytes | None = None

    def report(self, *, rebuild: bool = True) -> VerificationReport:
        return verify_bundle(
            self.bundle,
            self.trust_root,
            now=GRANTED_AT + timedelta(days=30),
            initial_weights=rebuilt_weights if rebuild else None,
            code_secret=self.code_secret,
        )


def stage(plot: Plot) -> Evidence:
    """Play a plot from the trust root to the last verdict."""
    trust_root = trust_root_of(plot)
    order, order_bytes, order_digest = _order(plot)
    pool_leaves, test_leaves = plot.pool_leaves, leaves(TEST_SIZE, "test")
    request = SessionRequest(
        **{
            "order_digest": order_digest,
            "developer": order.developer,
            "config": CONFIG.model_copy(update=plot.config),
            "code_digest": digest_of("code"),
            "container": plot.container,
            "pool": commitment(pool_leaves),
            "test": commitment(test_leaves),
            "session_key": DEVELOPER_KEY.public.hex,
            "environment": ENVIRONMENT,
            "requested_at": GRANTED_AT - timedelta(seconds=1),
            **plot.request,
        }
    )
    request_bytes = plot.request_bytes(to_bytes(request))
    grant, grant_bytes, grant_digest = _grant(plot, order, request, request_bytes, order_digest)
    weights = save(plot.weights)
    codes = request.config.mint.evidence == "codes"
    own = own_code_scores(grant.split) if codes else {}
    tensors = {**honest_scores(grant.split), **own, **plot.scores}
    scores = save({name: values for name, values in tensors.items() if values is not None})
    description = to_bytes(_description(plot, request, grant, weights))
    seal = SealRecord(
        sequence=0,
        time_ms=0,
        step=0,
        weights_digest=sha256_hex(weights),
        description_digest=sha256_hex(description),
        scores_digest=sha256_hex(scores),
    )
    final = measured(tensors) if plot.measured is None else plot.measured
    story = honest_story(request, grant, grant_digest, pool_leaves, seal, plot, final)
    for edit in plot.story:
        story = edit(story)
    session = _Session(request, grant, grant_digest)
    lines, checkpoints, continuations, last_time = _log(plot, story, session)
    verdicts = tuple(
        _verdict(number, verdict, grant, seal, tensors["score/calibration"], last_time)
        for number, verdict in enumerate(plot.verdicts)
    )
    bundle = Bundle(
        order=order_bytes,
        request=request_bytes,
        grant=grant_bytes,
        records=tuple(lines),
        checkpoints=tuple(checkpoints),
        pool_leaves=pool_leaves,
        test_leaves=test_leaves,
        weights=weights,
        description=description,
        scores=scores,
        verdicts=verdicts,
        continuations=tuple(continuations),
    )
    return Evidence(plot.bundle(bundle), trust_root, plot.code_secret)


def trust_root_of(plot: Plot) -> TrustRoot:
    """What the verifier trusts."""
    keys = (*ROLE_KEYS.values(), STRANGER_KEY)
    return TrustRoot(
        **{
            "auditor": "The Auditor",
            "origin": ORIGIN,
            "version": 1,
            "issued_at": GRANTED_AT - timedelta(days=100),
            "expires_at": GRANTED_AT + timedelta(days=1000),
            "keys": {key.public.keyid: key.public.hex for key in keys},
            "roles": {role: Role(keyids=(key.public.keyid,)) for role, key in ROLE_KEYS.items()},
            **plot.trust_root,
        }
    )


def _sealed_envelope(
    payload: bytes, key: SigningKey, after_signing: Callable[[bytes], bytes]
) -> dsse.Envelope:
    envelope = dsse.sign(payload, [key])
    return replace(envelope, payload=after_signing(payload))


def _order(plot: Plot) -> tuple[AuditOrder, bytes, str]:
    order = AuditOrder(
        **{
            "order_id": "digits-2026",
            "auditor": "The Auditor",
            "developer": "Example Imaging Ltd",
            "purpose": "check a classifier of handwritten digits",
            "issued_at": GRANTED_AT - timedelta(days=1),
            "expires_at": GRANTED_AT + timedelta(days=30),
            "split": SplitFractions(
                external=0.25, calibration=0.25, silent=0.125, told_only=0.0625
            ),
            "least_calibration_samples": 8,
            "false_positive_rate": 0.2,
            "images": () if plot.container is None else (plot.container.image.config_digest,),
            "allow_without_container": True,
            **plot.order,
        }
    )
    subjects = statements.subject("order", order.order_id, order)
    payload = statements.make(statements.ORDER_PREDICATE, order, subjects)
    envelope = _sealed_envelope(payload, plot.order_key, plot.order_after_signing)
    return order, envelope.to_bytes(), sha256_hex(envelope.payload)


def _grant(
    plot: Plot,
    order: AuditOrder,
    request: SessionRequest,
    request_bytes: bytes,
    order_digest: str,
) -> tuple[SessionGrant, bytes, str]:
    honest = SessionGrant(
        session_id=SESSION,
        session_number=1,
        origin=f"{ORIGIN}/sessions/{SESSION}",
        request_digest=sha256_hex(request_bytes),
        order_digest=order_digest,
        nonce=digest_of("nonce"),
        split=split_sizes(order.split, request.pool.size),
        session_key=request.session_key,
        valid_from=GRANTED_AT,
        valid_until=GRANTED_AT + timedelta(hours=24),
        code_commitment=secret_commitment(CODE_SECRET)
        if request.config.mint.evidence == "codes"
        else None,
    )
    grant = honest.model_copy(update=plot.grant)
    subjects = statements.subject("grant", grant.session_id, grant)
    payload = statements.make(statements.GRANT_PREDICATE, grant, subjects)
    envelope = _sealed_envelope(payload, plot.grant_key, plot.grant_after_signing)
    # The run follows what the envelope says in the end.
    final = statements.parse(envelope.payload, statements.GRANT_PREDICATE, SessionGrant)
    return final, envelope.to_bytes(), sha256_hex(envelope.payload)


def _description(
    plot: Plot, request: SessionRequest, grant: SessionGrant, weights: bytes
) -> ModelDescription:
    return ModelDescription(
        **{
            "session_id": grant.session_id,
            "model": request.config.model,
            "taps": request.config.taps,
            "mint": request.config.mint,
            "normalisation": Normalisation(mean=(0.5,), std=(0.25,)),
            "class_names": tuple("0123456789"),
            "weights_digest": sha256_hex(weights),
            "parameters": 4,
            **plot.description,
        }
    )


# -- the story: what a training records ------------------------------------------------------------


def honest_story(
    request: SessionRequest,
    grant: SessionGrant,
    grant_digest: str,
    pool_leaves: bytes,
    seal: SealRecord,
    plot: Plot,
    final: tuple[CohortMetrics, ...],
) -> list[Record]:
    """The records of a whole training in their order, with times and without sequence numbers."""
    config = request.config
    nonce = bytes.fromhex(grant.nonce)
    schedule = Schedule(
        nonce=nonce,
        split=derive_split(nonce, grant.split),
        batch_size=config.batch_size,
        external_batch_size=config.external_batch_size,
        epochs=config.epochs,
    )
    last = plot.stop_after or schedule.total_steps
    common = {"sequence": 0, "time_ms": 0}
    story: list[Record] = [
        GrantRecord(
            grant_digest=grant_digest,
            code_digest=request.code_digest,
            image_digest=request.image_digest,
            mode="process" if request.image_digest is None else "container",
            environment=request.environment,
            **common,
        ),
        state_record(0, rebuilt_weights(request, initialisation_seed(nonce))),
    ]
    for plan in schedule.steps():
        if plan.step > last:
            break
        task, mint = plot.losses(plan.step)
        task0, mint0 = plot.losses(1)
        weights = config.mint
        story.append(
            StepRecord(
                step=plan.step,
                epoch=plan.epoch,
                batch=batch_digest(pool_leaves, plan),
                task_loss=task,
                mint_loss=mint,
                objective=weights.task_weight * task / task0 + weights.mint_weight * mint / mint0,
                task_accuracy=0.5,
                mint_accuracy=0.5,
                learning_rate=learning_rate(config.optimiser, plan.step, schedule.total_steps),
                task_weight=weights.task_weight,
                mint_weight=weights.mint_weight,
                **common,
            )
        )
        if plan.step == last:
            story.append(state_record(plan.step, seal.weights_digest))
        elif plan.step % config.state_interval_steps == 0:
            story.append(state_record(plan.step, digest_of(f"weights {plan.step}")))
        if plan.step % schedule.steps_per_epoch == 0 and plan.step != last:
            story.append(evaluation_record(plan.step, plan.epoch, final[:1]))
    story += [
        evaluation_record(last, schedule.epoch_of(last), final),
        CalibrationRecord(
            scores_digest=seal.scores_digest, calibration_size=grant.split.calibration, **common
        ),
        seal.model_copy(update={"step": last}),
    ]
    start = int(GRANTED_AT.timestamp() * 1000) + FIRST_RECORD_MS
    return [
        record.model_copy(update={"time_ms": start + index * RECORD_EVERY_MS})
        for index, record in enumerate(story)
    ]


def state_record(step: int, weights_digest: str, time_ms: int = 0) -> StateRecord:
    return StateRecord(
        sequence=0,
        time_ms=time_ms,
        step=step,
        state_digest=digest_of(f"state {step} {weights_digest}"),
        weights_digest=weights_digest,
    )


def evaluation_record(
    step: int, epoch: int, cohorts: tuple[CohortMetrics, ...]
) -> EvaluationRecord:
    return EvaluationRecord(sequence=0, time_ms=0, step=step, epoch=epoch, cohorts=cohorts)


def is_step(step: int) -> Callable[[Record], bool]:
    return lambda record: isinstance(record, StepRecord) and record.step == step


def is_state(step: int) -> Callable[[Record], bool]:
    return lambda record: isinstance(record, StateRecord) and record.step == step


def is_kind(kind: type[Record]) -> Callable[[Record], bool]:
    return lambda record: isinstance(record, kind)


def change(which: Callable[[Record], bool], **fields: Any) -> StoryEdit:
    """Change fields of the records that are meant, unchecked by the schema, as a forger would."""
    return lambda story: [
        record.model_copy(update=fields) if which(record) else record for record in story
    ]


def drop(which: Callable[[Record], bool]) -> StoryEdit:
    return lambda story: [record for record in story if not which(record)]


def insert(after: Callable[[Record], bool], *new: Record) -> StoryEdit:
    """Insert records after the last one that is meant, at its time."""

    def edit(story: list[Record]) -> list[Record]:
        place = max(index for index, record in enumerate(story) if after(record))
        time_ms = story[place].time_ms
        timed = [record.model_copy(update={"time_ms": time_ms}) for record in new]
        return [*story[: place + 1], *timed, *story[place + 1 :]]

    return edit


def crash(died_at: Callable[[Record], bool], resume_from: int, **changes: Any) -> StoryEdit:
    """The run dies after a record, goes on from a saved state, and does anew what lies between."""

    def edit(story: list[Record]) -> list[Record]:
        died = next(index for index, record in enumerate(story) if died_at(record))
        saved, state = next(
            (index, record)
            for index, record in enumerate(story)
            if isinstance(record, StateRecord) and record.step == resume_from
        )
        reached = max(r.step for r in story[: died + 1] if isinstance(r, StepRecord))
        resume = ResumeRecord(
            sequence=0,
            time_ms=story[died].time_ms,
            step=resume_from,
            state_digest=state.state_digest,
            discarded_steps=reached - resume_from,
            environment=ENVIRONMENT,
        ).model_copy(update=changes)
        # What is done anew happens later than what was lost.
        delay = story[died].time_ms - story[saved].time_ms
        again = [
            record.model_copy(update={"time_ms": record.time_ms + delay})
            for record in story[saved + 1 :]
        ]
        return [*story[: died + 1], resume, *again]

    return edit


# -- the log: sequence numbers, receipts, checkpoints ----------------------------------------------


@dataclass(frozen=True)
class _Session:
    """What a continuation of the session must name."""

    request: SessionRequest
    grant: SessionGrant
    grant_digest: str


def _log(
    plot: Plot, story: Sequence[Record], session: _Session
) -> tuple[list[bytes], list[bytes], list[Continuation], int]:
    lines: list[bytes] = []
    checkpoints: list[bytes] = []
    continuations: list[Continuation] = []
    signer, origin = plot.signer, session.grant.origin
    cosigned_at = int(GRANTED_AT.timestamp())
    for number, (begun, story_records) in enumerate(_segments(plot, story)):
        announced: list[Record] = []
        for continuation in begun:
            granted_at = datetime.fromtimestamp(cosigned_at + 0.25, UTC)
            made = _continuation(
                len(continuations) + 1, continuation, session, len(lines), granted_at
            )
            continuations.append(made)
            signer = continuation.signer or continuation.key
            if continuation.named:
                payload = dsse.Envelope.from_bytes(made.envelope).payload
                announced.append(
                    ContinuationRecord(
                        sequence=0,
                        time_ms=story_records[0].time_ms,
                        continuation_digest=sha256_hex(payload),
                    )
                )
        # An empty log begins with its grant record all the same.
        first = 0 if lines else 1
        records = [*story_records[:first], *announced, *story_records[first:]]
        if checkpoints:
            receipt = ReceiptRecord(
                sequence=0,
                time_ms=records[0].time_ms,
                checkpoint_size=len(lines),
                checkpoint_digest=sha256_hex(checkpoints[-1]),
            )
            records = [receipt, *records]
        for record in plot.segment(number, records):
            # A record that a forger has numbered keeps its number.
            sequence = record.sequence or len(lines)
            placed = record.model_copy(update={"sequence": sequence})
            lines.append(plot.line(to_bytes(placed)))
        checkpoint = plot.checkpoint(notes.Checkpoint(origin, len(lines), merkle.root(lines)))
        note = plot.signed(notes.sign(checkpoint.to_text(), origin, signer))
        cosigned_at = plot.cosigned_at(number, math.ceil(records[-1].time_ms / 1000) + 1)
        cosigned = notes.cosign(note, ORIGIN + COSIGNER_SUFFIX, plot.cosigner, cosigned_at)
        checkpoints.append(cosigned.to_bytes())
    return lines, checkpoints, continuations, cosigned_at


def _segments(
    plot: Plot, story: Sequence[Record]
) -> list[tuple[list[ContinuationPlot], list[Record]]]:
    """Cut the story where a flush was full, and where a further container took over."""
    segments: list[tuple[list[ContinuationPlot], list[Record]]] = []
    waiting = list(plot.continuations)
    for record in story:
        begun = []
        while waiting and waiting[0].before(record):
            begun.append(waiting.pop(0))
        if begun or not segments or len(segments[-1][1]) == plot.segment_records:
            segments.append((begun, []))
        segments[-1][1].append(record)
    return segments


def _continuation(
    number: int, plot: ContinuationPlot, session: _Session, size: int, granted_at: datetime
) -> Continuation:
    asked = ContinuationRequest(
        session_id=session.grant.session_id,
        grant_digest=session.grant_digest,
        container=plot.container or contained_run(number + 1),
        session_key=plot.key.public.hex,
        environment=session.request.environment,
        requested_at=granted_at,
    )
    request = to_bytes(asked.model_copy(update=plot.request))
    honest = SessionContinuation(
        session_id=session.grant.session_id,
        number=number,
        request_digest=sha256_hex(request),
        grant_digest=session.grant_digest,
        log_size=size,
        session_key=asked.model_copy(update=plot.request).session_key,
        granted_at=granted_at,
    )
    answer = honest.model_copy(update=plot.answer)
    subjects = statements.subject("continuation", f"{answer.session_id}/{answer.number}", answer)
    payload = statements.make(statements.CONTINUATION_PREDICATE, answer, subjects)
    return Continuation(request, dsse.sign(payload, [plot.granted_by]).to_bytes())


def _verdict(
    number: int,
    plot: VerdictPlot,
    grant: SessionGrant,
    seal: SealRecord,
    calibration: np.ndarray,
    last_time: int,
) -> bytes:
    rate = 0.2
    p_value = (1 + int((calibration >= np.float32(plot.score)).sum())) / (len(calibration) + 1)
    if plot.opened:
        p_value = own_code_p_value(plot.score)
    index = None
    if plot.code is not None:
        cohort, place = plot.code
        split = derive_split(bytes.fromhex(grant.nonce), grant.split)
        index = int(getattr(split, cohort)[place])
    honest = MembershipVerdict(
        verdict_id=f"{grant.session_id}-{number}",
        session_id=grant.session_id,
        weights_digest=seal.weights_digest,
        scores_digest=seal.scores_digest,
        sample_digest=digest_of(f"sample {number}"),
        evidence="declared" if plot.opened else "calibrated",
        score=plot.score,
        code_index=index,
        p_value=p_value,
        calibration_size=0 if plot.opened else len(calibration),
        false_positive_rate=rate,
        outcome="member" if p_value <= rate else "not_shown",
        level=AssuranceLevel.L1,
        issued_at=datetime.fromtimestamp(last_time, UTC) + timedelta(hours=1),
    )
    verdict = honest.model_copy(update=plot.changes)
    subjects = statements.subject("verdict", verdict.verdict_id, verdict)
    payload = statements.make(statements.VERDICT_PREDICATE, verdict, subjects)
    return dsse.sign(payload, [plot.key]).to_bytes()
