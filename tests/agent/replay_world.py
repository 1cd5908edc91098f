"""Trainings that can be replayed, without a server: the agent's real code over digits."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from auditkit.data.manifest import Manifest
from auditkit.data.pools import DataSource, Pool, Selection, open_pool
from auditkit.evidence import canonical, dsse, statements
from auditkit.evidence.keys import SigningKey
from auditkit.evidence.membership_codes import SessionCodes, secret_commitment
from auditkit.evidence.replay import SealedLog, committed_states, make_draw
from auditkit.evidence.replay_checks import OpenDraw
from auditkit.evidence.trust_history import TrustHistory
from developer_agent.disclosing import Disclosure, write_packages
from developer_agent.environment import (
    SourceFile,
    code_digest,
    describe_environment,
    make_deterministic,
)
from developer_agent.loop_interface import RunInterface
from developer_agent.replay_evidence import Opened, SealedSession, open_packages
from developer_agent.replay_execution import run_task
from developer_agent.replay_runs import ProcessRunner
from developer_agent.replayed_loop import ReplayedRun
from developer_agent.replaying import Replaying
from developer_agent.run_folder import RunFolder
from developer_agent.session import Session
from developer_agent.spool import Spool
from developer_agent.supervision import Batch, Supervision
from schemas import (
    AuditOrder,
    DrawRequest,
    MintConfig,
    ModelConfig,
    ModelDescription,
    OptimiserConfig,
    ReplayResult,
    ReplaySegment,
    SealRecord,
    SessionGrant,
    SessionRequest,
    SplitSizes,
    TrainingConfig,
    TrustRoot,
    parse_record,
)
from schemas.records import ExecutionMode
from tests.studies.test_trial import example

NONCE = bytes(range(32))
SECRET = bytes(range(32, 64))
SIZES = SplitSizes(told=160, silent=20, told_only=10, external=70, calibration=40)
STEPS_PER_EPOCH = 10
STATE_INTERVAL = 5

Forge = Callable[[Batch], None]


def config(
    epochs: int, mint: MintConfig | None = None, state_interval: int = STATE_INTERVAL
) -> TrainingConfig:
    return TrainingConfig(
        name="replayed",
        model=ModelConfig(
            architecture="resnet18",
            arguments={"layers": (1, 1, 1, 1), "channels": (4, 8, 8, 8)},
            classes=10,
            channels=1,
            height=8,
            width=8,
            stem_stride=1,
            stem_pool=False,
        ),
        mint=mint or MintConfig(head="fully_connected", hidden=(16,)),
        optimiser=OptimiserConfig(name="adam", learning_rate=0.003),
        epochs=epochs,
        batch_size=18,
        external_batch_size=18,
        augmentation="shift",
        threads=1,
        state_interval_steps=state_interval,
        evaluation_interval_epochs=epochs,
    )


def honest(_batch: Batch) -> None:
    """Train on what was handed out."""


def swap_one_in_200(batch: Batch) -> None:
    """Train on another sample than the schedule's, in one of 200 steps; the log says nothing."""
    if batch.plan.step % 200 == 0:
        batch.inputs[0] = batch.inputs[1]


def loop(forge: Forge = honest) -> Callable[[RunInterface], None]:
    """The built-in loop, with the attacker's hand in it."""

    def train(run: RunInterface) -> None:
        supervision = run.supervision
        supervision.enhance()
        optimiser = supervision.optimiser()
        for batch in supervision.batches():
            forge(batch)
            losses = supervision.losses(batch)
            optimiser.zero_grad(set_to_none=True)
            losses.total.backward()
            optimiser.step()
            supervision.step(batch, losses)
        supervision.seal()

    return train


@dataclass(frozen=True)
class InProcess:
    """Executes in this very process, which saves the start of another one."""

    mode: ExecutionMode = "process"
    image_digest: str | None = None
    code: tuple[str, ...] = ()
    code_folder: Path | None = None
    seen: list[list[str]] = field(default_factory=list)
    """Names of all inputs of each execution."""

    @property
    def code_digest(self) -> str | None:
        return ProcessRunner(self.code, self.code_folder).code_digest

    def run(self, source: Path, target: Path) -> None:
        self.seen.append(sorted(str(p.relative_to(source)) for p in source.rglob("*")))
        run_task(source, target, self.code_folder)


@dataclass(frozen=True)
class Trained:
    """A finished training: what the developer has, and what the auditor knows."""

    folder: RunFolder
    session: Session
    sealed: SealedSession

    @property
    def log(self) -> SealedLog:
        return self.sealed.log

    def draw(self, uniform: int = 3, largest: int = 0, seed: bytes = bytes(32)) -> OpenDraw:
        asked = DrawRequest(uniform=uniform, largest=largest)
        now = datetime.now(UTC)
        document = make_draw(self.log, asked, seed=seed, draw_id="one", number=1, now=now)
        return OpenDraw(document, canonical.sha256_hex(canonical.to_bytes(document)))

    def draw_these(self, segments: Sequence[ReplaySegment]) -> OpenDraw:
        """A draw that happens to hit these segments."""
        drawn = self.draw()
        document = drawn.document.model_copy(update={"segments": tuple(segments)})
        return OpenDraw(document, drawn.digest)

    def disclosure(self, drawn: OpenDraw, name: str | None = None) -> Disclosure:
        return Disclosure(self.folder, self.session.pool, drawn.document, drawn.digest, name)

    def disclose(
        self, drawn: OpenDraw, packages: Path, *, calibration: bool = False, name: str | None = None
    ) -> Opened:
        write_packages(self.disclosure(drawn, name), packages, calibration=calibration)
        return open_packages(self.sealed, drawn.document, packages)

    def replay(
        self, drawn: OpenDraw, opened: Opened, runner: InProcess | None = None, **options: object
    ) -> ReplayResult:
        replaying = Replaying(self.sealed, drawn, opened, runner or InProcess(), **options)  # type: ignore[arg-type]
        return replaying.run()


def outcomes(result: ReplayResult) -> list[str]:
    return [one.outcome for one in result.segments]


def digits() -> tuple[Pool, Pool]:
    return tuple(
        open_pool(DataSource(kind="digits", selection=selection), Path())
        for selection in (Selection(limit=SIZES.pool), Selection(skip=1700))
    )  # type: ignore[return-value]


def train(
    path: Path,
    training: TrainingConfig,
    run_loop: Callable[[RunInterface], None] | None = None,
    own_code: Mapping[str, Path] | None = None,
) -> Trained:
    """Train under a grant that was made by hand, with everything else as the agent does it."""
    make_deterministic(training.threads)
    pool, test = digits()
    folder = RunFolder.create(path)
    folder.manifest_key.write(SECRET)
    manifest = Manifest(pool, SECRET)
    files = [SourceFile(name, file) for name, file in (own_code or {}).items()]
    request = example(SessionRequest).model_copy(
        update={
            "config": training,
            "container": None,
            "code_digest": code_digest(files),
            "environment": describe_environment(training.threads),
            "pool": manifest.commitment,
        }
    )
    codes = training.mint.evidence == "codes"
    grant = example(SessionGrant).model_copy(
        update={
            "nonce": NONCE.hex(),
            "split": SIZES,
            "code_commitment": secret_commitment(SECRET) if codes else None,
        }
    )
    folder.request.write(canonical.to_bytes(request))
    payload = statements.make(
        statements.GRANT_PREDICATE, grant, statements.subject("grant", grant.session_id, grant)
    )
    folder.grant.write(dsse.sign(payload, [SigningKey.generate()]).to_bytes())
    session = Session(
        folder=folder,
        trust_root=example(TrustRoot),
        order=example(AuditOrder),
        request=request,
        grant=grant,
        grant_digest=canonical.sha256_hex(payload),
        key=None,
        pool=pool,
        test=test,
        manifest=manifest,
    )
    session_codes = (
        SessionCodes.derive(
            SECRET, manifest.leaves, session.schedule.split, training.mint.code_length
        )
        if codes
        else None
    )
    with (
        Spool.open(folder.spool_path) as spool,
        Supervision(session, spool, fetch_codes=lambda: session_codes) as supervision,
    ):
        (run_loop or loop())(ReplayedRun(session, supervision))  # type: ignore[arg-type]
        lines = list(spool.lines())
    folder.records_path.write_bytes(b"".join(line + b"\n" for line in lines))
    records = [parse_record(line) for line in lines]
    seal = records[-1]
    assert isinstance(seal, SealRecord)
    log = SealedLog(
        session_id=grant.session_id,
        states=committed_states(records),
        seal_digest=canonical.sha256_hex(lines[-1]),
        weights_digest=seal.weights_digest,
        scores_digest=seal.scores_digest,
        size=len(lines),
        root="0" * 64,
        cosigned_at=0,
    )
    root = example(TrustRoot)
    return Trained(
        folder,
        session,
        SealedSession(
            request=request,
            grant=grant,
            normalisation=ModelDescription.from_bytes(folder.description.read()).normalisation,
            weights=folder.weights.read(),
            codes=session_codes,
            log=log,
            pool_leaves=manifest.leaves,
            scores=folder.scores.read(),
            history=TrustHistory.of(root),
        ),
    )
