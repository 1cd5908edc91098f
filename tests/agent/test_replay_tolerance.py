"""Replays on a machine of another class: judged by measured noise, and called weak."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from replay_world import InProcess, Trained, config, honest, loop, outcomes, train
from torch import Tensor

from auditkit.mint.scores import read_scores
from developer_agent.joint_training import Batch
from developer_agent.replay_execution import TASK
from developer_agent.replay_tolerance import (
    TOLERANCE_FACTOR,
    Variant,
    class_differences,
    deviation,
    honest_variants,
    score_parts,
    state_parts,
)
from developer_agent.replaying import MachineClassError, ToleranceTooWideError
from developer_agent.state import StateFileError, read_tensors

SHORT, LONG = 5, 10
OTHER_PROCESSOR = "another processor"


class OtherRounding(InProcess):
    """A lesser processor, as far as one process can be one: convolutions are computed otherwise."""

    def run(self, source: Path, target: Path) -> None:
        task = json.loads((source / TASK).read_bytes())
        lesser = task.pop("cpu_capability")
        (source / TASK).write_text(json.dumps({**task, "cpu_capability": None}))
        with torch.backends.mkldnn.flags(enabled=lesser is None):
            super().run(source, target)


class CoarseRounding(OtherRounding):
    """Lesser processors so inexact that their steps are half as long again."""

    def run(self, source: Path, target: Path) -> None:
        task = json.loads((source / TASK).read_bytes())
        if task["cpu_capability"] is not None:
            task["request"]["config"]["optimiser"]["learning_rate"] *= 1.5
            (source / TASK).write_text(json.dumps(task))
        super().run(source, target)


def train_elsewhere(path: Path, interval: int, forge: Callable[[Batch], None] = honest) -> Trained:
    """A training on a machine whose convolutions are computed otherwise than here."""
    with torch.backends.mkldnn.flags(enabled=False):
        trained = train(path, config(epochs=2, state_interval=interval), loop(forge))
    environment = trained.sealed.request.environment.model_copy(update={"device": OTHER_PROCESSOR})
    request = trained.sealed.request.model_copy(update={"environment": environment})
    return replace(trained, sealed=replace(trained.sealed, request=request))


def swap_in_step_8(batch: Batch) -> None:
    if batch.plan.step == 8:
        batch.inputs[0] = batch.inputs[1]


def test_an_honest_training_on_another_machine_is_within_tolerance(tmp_path: Path) -> None:
    trained = train_elsewhere(tmp_path / "run", SHORT)
    drawn = trained.draw(uniform=4)
    opened = trained.disclose(drawn, tmp_path / "packages", calibration=True)
    said: list[str] = []
    result = trained.replay(drawn, opened, OtherRounding(), say=said.append)
    assert set(outcomes(result)) == {"within_tolerance"}
    assert result.grade == "weak"
    assert any("once more" in text for text in said)
    for one in result.segments:
        assert one.distance is not None
        assert one.tolerance is not None
        assert 0 < one.distance <= one.tolerance
    assert result.initialisation.outcome == "exact"
    assert result.scores.outcome in ("exact", "within_tolerance")


def test_one_swapped_sample_is_outside_the_tolerance(tmp_path: Path) -> None:
    trained = train_elsewhere(tmp_path / "run", SHORT, swap_in_step_8)
    drawn = trained.draw(uniform=4)
    opened = trained.disclose(drawn, tmp_path / "packages")
    result = trained.replay(drawn, opened, OtherRounding())
    found = {one.segment.last_state_step: one for one in result.segments}
    assert {step for step, one in found.items() if one.outcome == "differs"} == {10}
    forged = found[10]
    assert forged.distance is not None
    assert forged.tolerance is not None
    assert forged.distance > forged.tolerance


def test_long_segments_are_not_judged_on_another_machine(tmp_path: Path) -> None:
    trained = train_elsewhere(tmp_path / "run", LONG)
    drawn = trained.draw(uniform=1)
    opened = trained.disclose(drawn, tmp_path / "packages")
    with pytest.raises(MachineClassError, match=OTHER_PROCESSOR):
        trained.replay(drawn, opened, OtherRounding())


def test_noise_as_large_as_a_forgery_is_no_tolerance(tmp_path: Path) -> None:
    trained = train_elsewhere(tmp_path / "run", SHORT)
    drawn = trained.draw(uniform=1)
    opened = trained.disclose(drawn, tmp_path / "packages")
    with pytest.raises(ToleranceTooWideError, match="float32"):
        trained.replay(drawn, opened, CoarseRounding())


# -- the measure -----------------------------------------------------------------------------------


def state(**changes: Tensor) -> dict[str, dict[str, Tensor]]:
    tensors = {
        "model/layer.weight": torch.ones(4),
        "model/norm.running_mean": torch.ones(2),
        "model/norm.num_batches_tracked": torch.tensor(3),
        "optimiser/0/exp_avg": torch.full((4,), 1e-3),
        "normaliser/task_normaliser": torch.tensor(2.0, dtype=torch.float64),
        "step": torch.tensor(5),
    }
    return state_parts({**tensors, **changes})


def noisy(size: float) -> dict[str, dict[str, Tensor]]:
    return state(
        **{
            "model/layer.weight": torch.ones(4) + size,
            "optimiser/0/exp_avg": torch.full((4,), 1e-3 + 1e-3 * size),
        }
    )


def test_a_state_is_compared_kind_by_kind() -> None:
    assert set(state()) == {
        "model/weight",
        "model/running_mean",
        "model/num_batches_tracked",
        "optimiser/exp_avg",
        "normaliser/task_normaliser",
        "step/",
    }


def test_noise_is_tolerated_up_to_its_multiple() -> None:
    honest_noise = [noisy(1e-4), noisy(-2e-4)]
    near = deviation(state(), noisy(0.99 * TOLERANCE_FACTOR * 2e-4), honest_noise)
    far = deviation(state(), noisy(1.01 * TOLERANCE_FACTOR * 2e-4), honest_noise)
    assert near.tolerated
    assert not far.tolerated
    assert far.distance > far.tolerance > 0


def test_what_is_hidden_in_the_moments_is_seen() -> None:
    hidden = state(**{"optimiser/0/exp_avg": torch.full((4,), 1.01e-3)})
    found = deviation(state(), hidden, [noisy(1e-4)])
    assert not found.tolerated
    assert found.kind == "optimiser/exp_avg"


@pytest.mark.parametrize(
    "changes",
    [
        {"step": torch.tensor(6)},
        {"model/norm.num_batches_tracked": torch.tensor(4)},
        {"model/layer.weight": torch.ones(5)},
        {"model/layer.weight": torch.full((4,), float("nan"))},
        {"model/further": torch.ones(1)},
    ],
)
def test_counters_and_shapes_are_no_matter_of_tolerance(changes: dict[str, Tensor]) -> None:
    assert not deviation(state(), state(**changes), [noisy(1.0)]).tolerated


def test_equal_states_deviate_by_nothing() -> None:
    assert deviation(state(), state(), []).ratio == 0.0


def test_machine_classes_and_what_is_tried_on_them(tmp_path: Path) -> None:
    trained = train(tmp_path / "run", config(epochs=1))
    here = trained.sealed.request.environment
    assert class_differences(here, here.model_copy(update={"platform": "another kernel"})) == ()
    (difference,) = class_differences(here, here.model_copy(update={"threads": 2}))
    assert "threads 1 and 2" in difference
    wide = here.model_copy(update={"cpu_capability": "AVX512"})
    assert honest_variants(wide) == (Variant(2), Variant(1, "default"), Variant(1, "avx2"))
    assert honest_variants(wide.model_copy(update={"cpu_capability": "SVE256"})) == (Variant(2),)
    calibration = read_scores(trained.sealed.scores)["calibration"]
    assert set(score_parts(calibration)) == {"scores", "task_losses"}


def test_a_damaged_state_file_is_said_to_be_one() -> None:
    with pytest.raises(StateFileError):
        read_tensors(b"no state")
