"""Developers who lie about what they trained on: the real agent, and a loop that cheats.

The agent signs, schedules and records as it always does. Only the loop is the attacker's, as it may
be. Every record is one that an honest training could have written, so no check of the log can
object; executing a segment again can.
"""

from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import replace as changed
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from auditkit.evidence.log_checks import (
    CalibrationCheck,
    CompleteLogCheck,
    CustodyCheck,
    ExposureCheck,
    LogCheck,
    MintTrainingCheck,
    NumbersCheck,
    RunIdentityCheck,
    ScheduleCheck,
    StatesCheck,
)
from auditkit.evidence.replay import draw
from auditkit.evidence.replay_checks import OpenDraw, SegmentDiffersError, judge
from auditkit.mint.enhanced import EnhancedAuditedModel
from auditkit.mint.objective import Losses
from developer_agent.loop_interface import RunInterface
from developer_agent.supervision import Batch
from schemas import AnyRecord, ReplayResult, ReplaySegment, SealRecord, parse_record
from tests.agent.replay_world import (
    STEPS_PER_EPOCH,
    InProcess,
    Trained,
    config,
    outcomes,
    train,
)

EPOCHS = 1
STATES_EVERY = 2
SEED = 3
Step = Callable[[EnhancedAuditedModel, RunInterface, Batch], Losses]
After = Callable[[EnhancedAuditedModel, Batch], None]


def nothing(_model: EnhancedAuditedModel, _batch: Batch) -> None:
    """Leave the model as the step has made it."""


@dataclass(frozen=True)
class Forger:
    """A developer whose log says what was not done.

    Attributes:
        name: what the attacker does.
        step: does, or pretends to do, the work of one step; called with the optimiser at hand.
        after: what becomes of the model once that work is done, before its state is committed.
    """

    name: str
    step: Step
    after: After = nothing


def honestly(_model: EnhancedAuditedModel, run: RunInterface, batch: Batch) -> Losses:
    return run.supervision.losses(batch)


def as_if_it_learned(total: Tensor, step: int) -> Losses:
    """Follow the gradient of `total`, and note losses that fall as an honest training's do.

    The objective is Eq. 1 of them, both weights being 1.
    """
    decay = 0.97 ** (step - 1)
    noted = total - total.detach() + 2 * decay
    return Losses(noted, 2.3 * decay, 0.69 * decay, task_accuracy=0.5, mint_accuracy=0.5)


def without_training(model: EnhancedAuditedModel, _run: RunInterface, batch: Batch) -> Losses:
    """Let the weights drift at random."""
    drift = [(parameter * torch.randn_like(parameter)).sum() for parameter in model.parameters()]
    return as_if_it_learned(torch.stack(drift).sum(), batch.plan.step)


def on_hidden_samples(model: EnhancedAuditedModel, run: RunInterface, batch: Batch) -> Losses:
    """Let M learn from samples that are in no pool, and T hear nothing of them."""
    losses = run.supervision.losses(batch)
    generator = torch.Generator().manual_seed(batch.plan.step)
    hidden = torch.randn(batch.labels.shape[0], *batch.inputs.shape[1:], generator=generator)
    extra = functional.cross_entropy(model(hidden)[0], batch.labels)
    return as_if_it_learned(losses.total + extra, batch.plan.step)


def members_as_strangers(_model: EnhancedAuditedModel, run: RunInterface, batch: Batch) -> Losses:
    """Teach T that half of the members are none."""
    told = batch.membership.clone()
    told[: batch.rows.told : 2] = 0.0
    losses = run.supervision.losses(changed(batch, membership=told))
    return as_if_it_learned(losses.total, batch.plan.step)


def untold(_model: EnhancedAuditedModel, run: RunInterface, batch: Batch) -> Losses:
    """Show one sample of the batch twice, and another one not at all."""
    inputs, labels = batch.inputs.clone(), batch.labels.clone()
    inputs[0], labels[0] = inputs[1], labels[1]
    losses = run.supervision.losses(changed(batch, inputs=inputs, labels=labels))
    return as_if_it_learned(losses.total, batch.plan.step)


def with_another_t(model: EnhancedAuditedModel, run: RunInterface, batch: Batch) -> Losses:
    """Put an untrained T in the place of the trained one, half way."""
    if batch.plan.step == STEPS_PER_EPOCH // 2 + 1:
        replace_weights(model.mint)
    return as_if_it_learned(run.supervision.losses(batch).total, batch.plan.step)


def another_model_at_the_end(model: EnhancedAuditedModel, batch: Batch) -> None:
    """Put another M+ in the place of the trained one, so that it is scored and sealed."""
    if batch.plan.step == EPOCHS * STEPS_PER_EPOCH:
        replace_weights(model)


def replace_weights(model: nn.Module) -> None:
    generator = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 10)


HONEST = Forger("nothing", honestly)
EXCHANGED = Forger(
    "after an honest training the final weights are exchanged for another model's",
    honestly,
    another_model_at_the_end,
)
FORGERS = (
    Forger("a log is made up, and nothing is trained", without_training),
    Forger(
        "M is also trained on samples that are in no pool and that T never hears of",
        on_hidden_samples,
    ),
    Forger("T is told of members that they are strangers", members_as_strangers),
    Forger("a member is shown twice, and another one not at all", untold),
    Forger("T is replaced by an untrained one between two states", with_another_t),
    EXCHANGED,
)


def trained_by(path: Path, developer: Forger) -> Trained:
    def loop(run: RunInterface) -> None:
        supervision = run.supervision
        model = supervision.enhance()
        optimiser = supervision.optimiser()
        for batch in supervision.batches():
            losses = developer.step(model, run, batch)
            optimiser.zero_grad(set_to_none=True)
            losses.total.backward()
            optimiser.step()
            developer.after(model, batch)
            supervision.step(batch, losses)
        supervision.seal()

    torch.manual_seed(SEED)
    return train(path, config(epochs=EPOCHS, state_interval=STATES_EVERY), loop)


def records_of(trained: Trained) -> list[AnyRecord]:
    return [parse_record(line) for line in lines_of(trained)]


def lines_of(trained: Trained) -> list[bytes]:
    return trained.folder.records_path.read_bytes().splitlines()


def check_log(trained: Trained) -> None:
    """Run every check that reads the content of a log; each raises what it objects to."""
    order, request, grant = (getattr(trained.session, of) for of in ("order", "request", "grant"))
    checks: list[LogCheck] = [
        CompleteLogCheck(),
        RunIdentityCheck(request, trained.session.grant_digest),
        MintTrainingCheck(request, grant),
        NumbersCheck(),
        StatesCheck(request),
        CustodyCheck(request),
        CalibrationCheck(grant),
        ScheduleCheck(request, grant, trained.session.manifest.leaves),
        ExposureCheck(order, request, grant),
    ]
    for line in lines_of(trained):
        record = parse_record(line)
        for check in checks:
            if isinstance(record, check.reads):
                check.observe(line, record)
    for check in checks:
        check.finish()


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return trained_by(tmp_path_factory.mktemp("honest") / "run", HONEST)


def test_an_honest_loop_gives_the_same_again(honest: Trained, tmp_path: Path) -> None:
    drawn = honest.draw(uniform=100)
    result = honest.replay(drawn, honest.disclose(drawn, tmp_path, calibration=True))
    assert set(outcomes(result)) == {"exact"}
    judge(honest.log, result)
    check_log(honest)


@pytest.mark.parametrize("forger", FORGERS, ids=lambda forger: forger.name)
def test_only_executing_it_again_finds_a_forged_training(forger: Forger, tmp_path: Path) -> None:
    forged = trained_by(tmp_path / "run", forger)
    check_log(forged)
    seal = records_of(forged)[-1]
    assert isinstance(seal, SealRecord)
    assert seal.weights_digest == forged.log.states[-1].weights_digest

    drawn = forged.draw(uniform=100)
    result = forged.replay(drawn, forged.disclose(drawn, tmp_path / "opened"), InProcess())
    assert "differs" in outcomes(result)
    with pytest.raises(SegmentDiffersError):
        judge(forged.log, result)


def test_final_weights_that_were_exchanged_are_found_by_the_last_segment_alone(
    tmp_path: Path,
) -> None:
    forged = trained_by(tmp_path / "run", EXCHANGED)
    check_log(forged)
    *earlier, last = forged.log.segments
    spared = replayed(forged, forged.draw_these(earlier), tmp_path / "earlier")
    assert set(outcomes(spared)) == {"exact"}
    judge(forged.log, spared)

    # Chance alone would have spared it.
    drawn = forged.draw(uniform=1, seed=seed_that_spares(last, forged))
    result = replayed(forged, drawn, tmp_path / "drawn")
    assert [one.segment for one in result.segments if one.outcome == "differs"] == [last]
    with pytest.raises(SegmentDiffersError):
        judge(forged.log, result)


def replayed(trained: Trained, drawn: OpenDraw, packages: Path) -> ReplayResult:
    return trained.replay(drawn, trained.disclose(drawn, packages))


def seed_that_spares(segment: ReplaySegment, trained: Trained) -> bytes:
    """A seed that gives another segment than this one at random."""
    segments = trained.log.segments
    seeds = (number.to_bytes(32, "big") for number in range(100))
    return next(
        seed for seed in seeds if draw(seed, segments, [None] * len(segments), 1, 0)[0] != segment
    )
