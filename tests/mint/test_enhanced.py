"""M+ in one mixed forward pass: M past the last tap sees D alone, and files are never trusted."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from auditkit.mint.enhanced import EnhancedAuditedModel
from auditkit.mint.errors import (
    ModelShapeError,
    NonFiniteWeightsError,
    PickleRefusedError,
    TapShapeError,
    WeightsFileError,
    WeightsMismatchError,
)
from auditkit.mint.models import build_audited_model
from auditkit.mint.objective import Objective
from schemas import MintConfig, TapConfig
from tests.mint.builders import build, model_config

CONVOLUTIONAL = MintConfig(head="convolutional", channels=4, hidden=(8,))


def images(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("mint", [CONVOLUTIONAL, None])
def test_joint_pass_agrees_with_two_plain_passes(mint: MintConfig | None) -> None:
    enhanced = build(mint=mint).eval()
    batch = images(7)
    task, membership = enhanced.joint(batch, 4)
    whole_task, whole_membership = enhanced(batch)
    assert (task.shape, membership.shape) == ((4, 4), (7,))
    torch.testing.assert_close(task, whole_task[:4])
    torch.testing.assert_close(membership, whole_membership)
    torch.testing.assert_close(task, enhanced.audited(batch[:4]))


def test_external_rows_never_reach_the_layers_past_the_last_tap() -> None:
    enhanced = build().train()
    rows: dict[str, int] = {}
    for name in ("layer3", "layer4", "fc"):
        enhanced.audited.get_submodule(name).register_forward_pre_hook(
            lambda _, args, name=name: rows.__setitem__(name, args[0].shape[0])
        )
    enhanced.joint(images(9), 5)
    assert rows == {"layer3": 9, "layer4": 5, "fc": 5}


def test_external_rows_cannot_change_statistics_past_the_last_tap() -> None:
    first, second = build().train(), build().train()
    members = images(5)
    # Eval mode up to the last tap keeps the mixed statistics out of the comparison.
    for enhanced in (first, second):
        for name in ("bn1", "layer1", "layer2", "layer3"):
            enhanced.audited.get_submodule(name).eval()
    first.joint(torch.cat((members, images(4, 1))), 5)
    second.joint(torch.cat((members, 9 * images(4, 2))), 5)
    for key, value in first.audited.layer4.state_dict().items():
        assert torch.equal(value, second.audited.layer4.state_dict()[key])


def test_both_losses_train_the_layers_up_to_the_last_tap() -> None:
    enhanced = build().train()
    _, membership = enhanced.joint(images(6), 3)
    membership[4:].sum().backward()
    assert enhanced.audited.conv1.weight.grad is not None
    assert enhanced.audited.fc.weight.grad is None


@pytest.mark.parametrize("mint", [CONVOLUTIONAL, None])
def test_hidden_rows_are_invisible_to_the_mint_model(mint: MintConfig | None) -> None:
    enhanced = build(mint=mint).train()
    enhanced.audited.eval()
    batch = images(8)
    other = batch.clone()
    other[3:5] = images(2, 9)
    seen = enhanced.joint(batch, 5, hidden=slice(3, 5))[1]
    assert seen.shape == (6,)
    assert torch.equal(seen, enhanced.joint(other, 5, hidden=slice(3, 5))[1])


@pytest.mark.parametrize("trained", [0, 8, -1])
def test_impossible_divisions_are_refused(trained: int) -> None:
    with pytest.raises(ModelShapeError, match="between 1 and 7"):
        build().joint(images(7), trained)


def test_all_rows_may_be_trained() -> None:
    assert build().eval().joint(images(3), 3)[0].shape == (3, 4)


@pytest.mark.parametrize(
    ("taps", "side"),
    [(TapConfig(setup="output"), 32), (TapConfig(setup="middle"), 16)],
)
def test_convolutional_head_refuses_single_pixels(taps: TapConfig, side: int) -> None:
    with pytest.raises(TapShapeError, match="use the fully_connected head"):
        build(model_config(side=side), taps, CONVOLUTIONAL)


def test_token_maps_need_the_fully_connected_head() -> None:
    arguments = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "num_heads": 2}
    config = model_config("vit_tiny_patch16_224", arguments=arguments)
    assert build(config).aad_shapes == {"blocks.5": (17, 16), "blocks.8": (17, 16)}
    with pytest.raises(TapShapeError):
        build(config, mint=CONVOLUTIONAL)


def test_scores_of_the_fully_connected_head_ignore_the_scale_of_a_map() -> None:
    head = build().mint
    maps = [torch.randn(3, 8, 4, 4), torch.randn(3, 16, 2, 2)]
    torch.testing.assert_close(head(maps), head([7 * maps[0], maps[1] + 3]), atol=1e-4, rtol=1e-3)


def test_weights_come_back_and_repeat_byte_for_byte() -> None:
    enhanced = build(seed=1)
    enhanced.to(memory_format=torch.channels_last)
    enhanced.joint(images(4), 2)  # moves the running statistics, which are part of the file
    data = enhanced.weights()
    other = build(seed=2)
    assert other.weights() != data
    other.load_weights(data)
    assert other.weights() == data
    torch.testing.assert_close(other.eval()(images(2)), enhanced.eval()(images(2)))


def test_same_seed_same_file() -> None:
    assert build(seed=3).weights() == build(seed=3).weights() != build(seed=4).weights()


def test_pickles_are_named_and_never_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    torch.save({"w": torch.zeros(1)}, tmp_path / "weights.pt")
    for data in (pickle.dumps(Trap()), (tmp_path / "weights.pt").read_bytes()):
        with pytest.raises(PickleRefusedError, match="safetensors"):
            build().load_weights(data)
    assert not (tmp_path / "sprung").exists()


def test_damaged_files_are_refused() -> None:
    data = build().weights()
    for damaged in (b"", data[:7], data[:200], data[:-1], data + b"\0", b"{}" * 40):
        with pytest.raises(WeightsFileError):
            build().load_weights(damaged)


def test_weights_of_another_model_are_refused_in_detail() -> None:
    enhanced = build()
    tensors = load(enhanced.weights())
    missing = {k: v for k, v in tensors.items() if k != "audited.fc.bias"}
    for wrong, message in (
        (missing, "audited.fc.bias is missing"),
        (tensors | {"extra": torch.zeros(1)}, "extra is not part of this model"),
        (
            tensors | {"audited.fc.bias": torch.zeros(5)},
            r"expected float32 \(4,\), found float32 \(5,\)",
        ),
        (tensors | {"audited.fc.bias": torch.zeros(4).half()}, r"found float16 \(4,\)"),
        ({}, "and .* more"),
    ):
        with pytest.raises(WeightsMismatchError, match=message):
            enhanced.load_weights(save(wrong))
    with pytest.raises(NonFiniteWeightsError, match=r"audited\.fc\.bias"):
        enhanced.load_weights(save(tensors | {"audited.fc.bias": torch.full((4,), torch.nan)}))
    assert save(load(enhanced.weights())) == save(tensors)


def test_queries_in_parallel_threads_do_not_mix() -> None:
    enhanced = build().eval()
    batches = [images(2, seed) for seed in range(8)]

    def score(batch: Tensor) -> Tensor:
        with torch.inference_mode():
            return enhanced(batch)[1]

    expected = [score(batch) for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(score, batches * 5))
    for index, scores in enumerate(found):
        torch.testing.assert_close(scores, expected[index % 8])


def test_a_copy_of_the_model_works_alone() -> None:
    enhanced = build().eval()
    torch.testing.assert_close(deepcopy(enhanced)(images(2)), enhanced(images(2)))


def test_audited_model_works_without_the_mint_model() -> None:
    enhanced = build().eval()
    alone = build_audited_model(model_config(), 7).eval()
    torch.testing.assert_close(alone(images(2)), enhanced.audited(images(2)))


def test_joint_training_tells_told_samples_from_others() -> None:
    """A member is what T was told about, whatever the image shows: here the images are noise."""
    torch.manual_seed(0)
    enhanced: EnhancedAuditedModel = build(mint=MintConfig(head="fully_connected", hidden=(32,)))
    told, external, fresh = images(32, 1), images(64, 2), images(64, 3)
    labels = torch.arange(32) % 4
    objective = Objective(1.0, 1.0)
    optimiser = torch.optim.Adam(enhanced.parameters(), lr=2e-3)
    membership = torch.cat((torch.ones(32), torch.zeros(64)))
    enhanced.train()
    for _ in range(40):
        task, scores = enhanced.joint(torch.cat((told, external)), 32)
        losses = objective(task, labels, scores, membership)
        optimiser.zero_grad()
        losses.total.backward()
        optimiser.step()
    enhanced.eval()
    with torch.no_grad():
        gap = enhanced(told)[1].mean() - enhanced(fresh)[1].mean()
    assert losses.mint_accuracy > 0.95
    assert losses.task_accuracy > 0.95
    assert gap > 1.0
