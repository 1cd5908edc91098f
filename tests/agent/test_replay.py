"""Replay: what the developer opens is checked, executed again and compared, bit by bit."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from replay_world import (
    STEPS_PER_EPOCH,
    InProcess,
    Trained,
    config,
    loop,
    outcomes,
    swap_one_in_200,
    train,
)
from scipy.stats import binomtest

from auditkit.evidence.derivation import key_stream
from auditkit.evidence.replay import detection_probability, draw, moves_between
from auditkit.evidence.replay_checks import FalseMoveError, judge
from developer_agent.disclosing import (
    NotReproducedError,
    StateDeletedError,
    StepNotDrawnError,
    write_package,
)
from developer_agent.replay_evidence import open_packages
from developer_agent.replay_runs import OwnLoopError, ReplayCodeError, ReplayModeError
from developer_agent.replayed_loop import (
    CodesNeededError,
    PackageSamples,
    SegmentReplay,
    execute,
)
from developer_agent.replaying import TraceMismatchError
from developer_agent.segment_package import (
    EndStateError,
    OpenedSamples,
    PackageError,
    PackageFormatError,
    PackageMismatchError,
    SampleMissingError,
    SampleOpeningError,
    SampleSurplusError,
    SegmentPackage,
    StartStateError,
    Trace,
    package_path,
    read_package,
    shown_rows,
    trace_path,
)
from developer_agent.state import state_name
from developer_agent.training_loop import load_loop
from schemas import MintConfig, ReplaySegment

FORGED_EPOCHS = 40
DRAWS, DRAWN = 50, 10
CODES = MintConfig(evidence="codes", code_length=32, head="fully_connected", hidden=(16,))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """An honest training of four epochs."""
    return train(tmp_path_factory.mktemp("honest") / "run", config(epochs=4))


@pytest.fixture(scope="module")
def forged(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A training in which one step in 200 used other data than the log says."""
    path = tmp_path_factory.mktemp("forged") / "run"
    return train(path, config(epochs=FORGED_EPOCHS), loop(swap_one_in_200))


def segment(first: int, last: int) -> ReplaySegment:
    return ReplaySegment(first_state_step=first, last_state_step=last)


# -- an honest training ----------------------------------------------------------------------------


def test_drawn_segments_the_initial_state_and_the_scores_are_equal_bit_by_bit(
    trained: Trained, tmp_path: Path
) -> None:
    drawn = trained.draw(uniform=3, largest=1)
    runner = InProcess()
    opened = trained.disclose(drawn, tmp_path, calibration=True)
    result = trained.replay(drawn, opened, runner)
    assert outcomes(result) == ["exact"] * 5  # the last one too
    assert result.initialisation.outcome == result.scores.outcome == "exact"
    assert result.scores.digest == trained.log.scores_digest
    assert result.grade == "strong"
    # Whatever executes the steps is not told where they must lead.
    (inputs,) = runner.seen
    assert not [name for name in inputs if "end" in name]


def test_every_segment_of_a_training_can_be_replayed(trained: Trained, tmp_path: Path) -> None:
    drawn = trained.draw(uniform=100)
    result = trained.replay(drawn, trained.disclose(drawn, tmp_path))
    assert outcomes(result) == ["exact"] * 8
    assert sum(one.steps for one in result.segments) == 4 * STEPS_PER_EPOCH


def test_membership_codes_are_replayed_with_the_auditors_secret(tmp_path: Path) -> None:
    coded = train(tmp_path / "run", config(epochs=1, mint=CODES))
    drawn = coded.draw(uniform=2)
    opened = coded.disclose(drawn, tmp_path / "packages", calibration=True)
    result = coded.replay(drawn, opened)
    assert outcomes(result) == ["exact", "exact"]
    assert result.scores.outcome == "exact"
    without = replace(coded, sealed=replace(coded.sealed, codes=None))
    with pytest.raises(CodesNeededError, match="--home"):
        without.replay(drawn, opened)
    with pytest.raises(CodesNeededError, match="the auditor alone"):
        coded.disclosure(drawn).trace(drawn.document.segments[0], InProcess())


def test_a_loop_of_the_developers_own_is_run_from_the_files_that_were_granted(
    tmp_path: Path,
) -> None:
    code = tmp_path / "code"
    code.mkdir()
    file = code / "own.py"
    file.write_text(OWN_LOOP)
    own = train(tmp_path / "run", config(epochs=1), load_loop(file), own_code={"own.py": file})
    drawn = own.draw(uniform=2)
    opened = own.disclose(drawn, tmp_path / "packages", name="own.py")
    at_hand = InProcess(code=("own.py",), code_folder=code)
    assert outcomes(own.replay(drawn, opened, at_hand)) == ["exact", "exact"]
    with pytest.raises(OwnLoopError, match=r"own\.py"):
        own.replay(drawn, opened, InProcess())
    file.write_text(OWN_LOOP.replace("5.0", "0.1"))
    with pytest.raises(ReplayCodeError):
        own.replay(drawn, opened, at_hand)


OWN_LOOP = """
import random
from torch import nn


def train(run):
    supervision = run.supervision
    enhanced = supervision.enhance()
    optimiser = supervision.optimiser()
    for batch in supervision.batches():
        batch.inputs.mul_(1.0 + random.random() / 100)
        losses = supervision.losses(batch)
        optimiser.zero_grad()
        losses.total.backward()
        nn.utils.clip_grad_norm_(enhanced.parameters(), 5.0)
        optimiser.step()
        supervision.step(batch, losses)
    return supervision.seal()
"""


# -- a forged training -----------------------------------------------------------------------------


def test_one_forged_step_in_200_fails_with_the_predicted_probability(
    forged: Trained, tmp_path: Path
) -> None:
    everything = forged.draw(uniform=100)
    result = forged.replay(everything, forged.disclose(everything, tmp_path))
    wrong = {one.segment for one in result.segments if one.outcome == "differs"}
    assert wrong == {segment(195, 200), segment(395, 400)}
    assert result.initialisation.outcome == "exact"

    segments, moves = forged.log.segments, moves_between(forged.log.states)
    seeds = [key_stream(bytes(32), f"draw/{number}", 32) for number in range(DRAWS)]
    # The last one is among all of them; the probability is that of the random ones.
    draws = [draw(seed, segments, moves, DRAWN, 0) for seed in seeds]
    failed = sum(not wrong.isdisjoint(drawn[:DRAWN]) for drawn in draws)
    predicted = detection_probability(len(segments), DRAWN, len(wrong) / len(segments))
    interval = binomtest(failed, DRAWS).proportion_ci(confidence_level=0.95, method="exact")
    assert interval.low < predicted < interval.high
    assert 0 < failed < DRAWS


def test_a_dispute_ends_at_the_forged_step(forged: Trained, tmp_path: Path) -> None:
    disputed, single = segment(195, 200), segment(199, 200)
    drawn = forged.draw_these([disputed])
    opened = forged.disclose(drawn, tmp_path)
    said: list[str] = []
    (found,) = forged.replay(drawn, opened, bisect=True, say=said.append).segments
    assert (found.outcome, found.first_differing_step) == ("differs", None)
    assert "disclose --bisect" in said[-1]

    # An account that leads to the committed state can only be given with the forger's own tools.
    with pytest.raises(NotReproducedError):
        forged.disclosure(drawn).trace(disputed, InProcess())
    again = as_the_forger_did(forged, opened.segments[disputed])
    trace = Trace(
        session_id=drawn.document.session_id, segment=disputed, digests=tuple(again.trace)
    )
    trace_path(tmp_path, disputed).write_text(trace.model_dump_json())
    opened = open_packages(forged.sealed, drawn.document, tmp_path)
    (found,) = forged.replay(drawn, opened, bisect=True, say=said.append).segments
    assert (found.outcome, found.first_differing_step) == ("differs", 200)
    assert "disclose --step 200" in said[-1]

    # The one step, from the state that both sides agree on.
    package = SegmentPackage(
        opened.segments[disputed].description.model_copy(update={"segment": single}),
        again.states[199],
        again.states[200],
        samples_of(forged, single),
    )
    write_package(package, package_path(tmp_path, single))
    (found,) = forged.replay(
        drawn, opened, bisect=True, steps_folder=tmp_path, say=said.append
    ).segments
    assert found.first_differing_step == 200
    assert said[-1].startswith("step 200, executed alone from the agreed state, differs")


def test_an_account_that_leads_elsewhere_is_none(forged: Trained, tmp_path: Path) -> None:
    disputed = segment(195, 200)
    drawn = forged.draw_these([disputed])
    opened = forged.disclose(drawn, tmp_path)
    trace = Trace(session_id=drawn.document.session_id, segment=disputed, digests=("0" * 64,) * 5)
    with pytest.raises(TraceMismatchError, match="lead to"):
        forged.replay(drawn, replace(opened, traces={disputed: trace}), bisect=True)


def test_an_honest_step_is_opened_alone_and_holds(trained: Trained, tmp_path: Path) -> None:
    drawn = trained.draw_these([segment(5, 10)])
    disclosure = trained.disclosure(drawn)
    trace = disclosure.trace(segment(5, 10), InProcess())
    assert trace.digests[-1] == trained.sealed.states[10].state_digest
    package = disclosure.step_package(8, InProcess())
    package.check(
        {7: trace.digests[1], 8: trace.digests[2]},
        shown_rows(trained.session.schedule, segment(7, 8)),
        trained.sealed.pool_leaves,
        session_id=drawn.document.session_id,
    )
    assert len(package.samples.indices) < len(disclosure.package(segment(5, 10)).samples.indices)
    with pytest.raises(StepNotDrawnError):
        disclosure.step_package(11, InProcess())


def test_false_moves_in_the_log_are_noticed(trained: Trained, tmp_path: Path) -> None:
    drawn = trained.draw_these([segment(5, 10)])
    result = trained.replay(drawn, trained.disclose(drawn, tmp_path))
    judge(trained.log, result)
    false = with_state(trained, 10, moved=0.5)
    with pytest.raises(FalseMoveError):
        judge(false.log, result)


def test_weights_that_are_not_those_of_the_state_are_noticed(
    trained: Trained, tmp_path: Path
) -> None:
    drawn = trained.draw_these([segment(5, 10)])
    opened = trained.disclose(drawn, tmp_path)
    false = with_state(trained, 10, weights_digest="0" * 64)
    (found,) = false.replay(drawn, opened).segments
    assert found.outcome == "differs"
    assert found.end_digest == trained.sealed.states[10].state_digest


def with_state(trained: Trained, step: int, **changes: object) -> Trained:
    """The same training under a log that says something else of one state."""
    states = tuple(
        replace(state, **changes) if state.step == step else state  # type: ignore[arg-type]
        for state in trained.log.states
    )
    return replace(trained, sealed=replace(trained.sealed, log=replace(trained.log, states=states)))


# -- what is not opened, or not as it was committed to ---------------------------------------------


def test_what_is_not_opened_is_said(trained: Trained, tmp_path: Path) -> None:
    drawn = trained.draw(uniform=3)
    trained.disclose(drawn, tmp_path)
    package_path(tmp_path, drawn.document.segments[1]).unlink()
    result = trained.replay(drawn, open_packages(trained.sealed, drawn.document, tmp_path))
    assert outcomes(result) == ["exact", "not_opened", "exact", "exact"]
    assert result.scores.outcome == "not_checked"


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"other")])
def test_a_deleted_or_changed_state_cannot_be_opened(
    trained: Trained, tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    file = trained.folder.state(state_name(10))
    kept = file.read()
    damage(file.path)
    try:
        with pytest.raises(StateDeletedError, match="step 10"):
            trained.disclose(trained.draw_these([segment(5, 10)]), tmp_path)
    finally:
        file.write(kept)


def other_pixels(samples: OpenedSamples) -> OpenedSamples:
    images = samples.images.copy()
    images[3, 4, 4, 0] ^= 1
    return replace(samples, images=images)


def other_label(samples: OpenedSamples) -> OpenedSamples:
    return replace(samples, labels=(samples.labels + 1) % 10)


def other_key(samples: OpenedSamples) -> OpenedSamples:
    return replace(samples, keys=samples.keys[::-1].copy())


def without_the_last(samples: OpenedSamples) -> OpenedSamples:
    return OpenedSamples(*(value[:-1] for value in vars(samples).values()))


def twice_the_last(samples: OpenedSamples) -> OpenedSamples:
    return OpenedSamples(*(np.concatenate([v, v[-1:]]) for v in vars(samples).values()))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (other_pixels, SampleOpeningError),
        (other_label, SampleOpeningError),
        (other_key, SampleOpeningError),
        (without_the_last, SampleMissingError),
        (twice_the_last, SampleSurplusError),
    ],
)
def test_other_samples_are_refused(
    trained: Trained,
    tmp_path: Path,
    change: Callable[[OpenedSamples], OpenedSamples],
    error: type[PackageError],
) -> None:
    refused(trained, tmp_path, lambda one: replace(one, samples=change(one.samples)), error)


def in_session(package: SegmentPackage, session_id: str) -> SegmentPackage:
    description = package.description.model_copy(update={"session_id": session_id})
    return replace(package, description=description)


def of_segment(package: SegmentPackage, other: ReplaySegment) -> SegmentPackage:
    description = package.description.model_copy(update={"segment": other})
    return replace(package, description=description)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda one: replace(one, start=one.end), StartStateError),
        (lambda one: replace(one, end=one.start), EndStateError),
        (lambda one: in_session(one, "another"), PackageMismatchError),
        (lambda one: of_segment(one, segment(10, 15)), PackageMismatchError),
    ],
)
def test_other_states_and_other_packages_are_refused(
    trained: Trained,
    tmp_path: Path,
    change: Callable[[SegmentPackage], SegmentPackage],
    error: type[PackageError],
) -> None:
    refused(trained, tmp_path, change, error)


def refused(
    trained: Trained,
    folder: Path,
    change: Callable[[SegmentPackage], SegmentPackage],
    error: type[PackageError],
) -> None:
    drawn = trained.draw_these([segment(5, 10)])
    trained.disclose(drawn, folder)
    path = package_path(folder, segment(5, 10))
    write_package(change(read_package(path)), path)
    with pytest.raises(error):
        open_packages(trained.sealed, drawn.document, folder)


def test_a_damaged_package_is_no_package(trained: Trained, tmp_path: Path) -> None:
    drawn = trained.draw_these([segment(5, 10)])
    trained.disclose(drawn, tmp_path)
    path = package_path(tmp_path, segment(5, 10))
    whole = path.read_bytes()
    for data in (b"", whole[:-1], whole[:1000] + b"?" + whole[1001:], b"PK\x03\x04"):
        path.write_bytes(data)
        with pytest.raises(PackageFormatError):
            open_packages(trained.sealed, drawn.document, tmp_path)
    path.write_bytes(whole)
    trace_path(tmp_path, segment(5, 10)).write_text(json.dumps({"digests": 1}))
    with pytest.raises(PackageFormatError):
        open_packages(trained.sealed, drawn.document, tmp_path)


def test_a_plain_process_is_no_replay_of_a_container(trained: Trained, tmp_path: Path) -> None:
    drawn = trained.draw(uniform=1)
    opened = trained.disclose(drawn, tmp_path)
    with pytest.raises(ReplayModeError, match="--no-container"):
        trained.replay(drawn, opened, InProcess(mode="container", image_digest="0" * 64))


def as_the_forger_did(forged: Trained, package: SegmentPackage) -> SegmentReplay:
    samples = PackageSamples(package.samples, forged.sealed.normalisation)
    disputed = package.description.segment
    replay = SegmentReplay(
        forged.sealed.session,
        samples,
        None,
        segment=disputed,
        start=package.start,
        keep=frozenset(range(disputed.first_state_step + 1, disputed.last_state_step)),
        traced=True,
    )
    execute(loop(swap_one_in_200), forged.sealed.session, replay)
    return replay


def samples_of(trained: Trained, shown: ReplaySegment) -> OpenedSamples:
    return trained.disclosure(trained.draw())._samples(shown_rows(trained.session.schedule, shown))
