"""Building M: the same bits from the same seed, and a clear word about every wrong description."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import timm
import torch
from torch import nn

from auditkit.mint.errors import (
    CustomModelError,
    ModelArgumentError,
    ModelShapeError,
    ModelSizeError,
    UnknownArchitectureError,
)
from auditkit.mint.models import build_audited_model
from schemas import MintConfig
from tests.mint.builders import build, model_config


def bits(model: nn.Module) -> list[bytes]:
    return [value.numpy().tobytes() for value in model.state_dict().values()]


def test_seed_alone_decides_the_weights() -> None:
    torch.manual_seed(1)
    first = bits(build_audited_model(model_config(), 5))
    torch.manual_seed(2)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        again = bits(build_audited_model(model_config(), 5))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert first == again
    assert first != bits(build_audited_model(model_config(), 6))


def test_models_built_at_the_same_time_do_not_share_random_numbers() -> None:
    seeds = [1, 2, 3, 4] * 4
    expected = {seed: build(seed=seed).weights() for seed in set(seeds)}
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda seed: build(seed=seed).weights(), seeds))
    assert [expected[seed] for seed in seeds] == found


def test_building_leaves_the_random_state_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    build()
    assert torch.equal(torch.rand(1), expected)


def test_large_seeds_work() -> None:
    assert build(seed=2**63 - 1).weights() != build(seed=2**63 - 2).weights()


def test_stem_is_adapted_to_small_images() -> None:
    model = build_audited_model(model_config(side=8, stem_stride=1, stem_pool=False), 0)
    assert model.conv1.stride == (1, 1)
    assert isinstance(model.maxpool, nn.Identity)
    assert model.forward_features(torch.zeros(2, 3, 8, 8)).shape[-1] == 1
    untouched = build_audited_model(model_config(), 0)
    assert untouched.conv1.stride == (2, 2)
    assert isinstance(untouched.maxpool, nn.MaxPool2d)


def test_stem_options_that_mean_nothing_are_refused() -> None:
    small = {"arguments": {"img_size": 32, "patch_size": 8, "embed_dim": 16, "num_heads": 2}}
    with pytest.raises(ModelArgumentError, match="no pooling layer"):
        build_audited_model(model_config("vit_tiny_patch16_224", stem_pool=False, **small), 0)


def test_unknown_architecture_lists_close_names() -> None:
    with pytest.raises(UnknownArchitectureError, match=r"did you mean .*resnet18"):
        build_audited_model(model_config("resnt18"), 0)


@pytest.mark.parametrize("name", ["hf-hub:some/model", "local-dir:/tmp/model", "../model", ""])
def test_names_that_reach_outside_are_refused(name: str) -> None:
    with pytest.raises(UnknownArchitectureError):
        build_audited_model(model_config(name), 0)


@pytest.mark.parametrize(
    "argument", ["checkpoint_path", "pretrained", "pretrained_cfg", "in_chans"]
)
def test_arguments_that_could_read_files_are_refused(argument: str) -> None:
    with pytest.raises(ModelArgumentError, match=argument):
        build_audited_model(model_config(arguments={argument: "x"}), 0)


def test_arguments_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ModelArgumentError, match="no_such_argument"):
        build_audited_model(model_config(arguments={"no_such_argument": 1}), 0)


def test_models_that_would_fill_the_memory_are_refused_before_they_do() -> None:
    huge = {"layers": (1, 1, 1, 1), "channels": (90_000,) * 4}
    with pytest.raises(ModelSizeError, match="at most 1,000,000,000 parameters"):
        build_audited_model(model_config(arguments=huge), 0)
    with pytest.raises(ModelSizeError, match="a smaller head"):
        build(mint=MintConfig(head="fully_connected", hidden=(16_384,) * 5))


def test_unsuitable_image_size_is_refused() -> None:
    with pytest.raises(ModelShapeError, match=r"\(2, 3, 32, 32\)"):
        build_audited_model(model_config("vit_tiny_patch16_224"), 0)


def test_custom_module_must_come_from_its_owner() -> None:
    with pytest.raises(CustomModelError, match="pass it as `model`"):
        build_audited_model(model_config("custom:mine"), 0)


def test_timm_knows_the_paper_architectures() -> None:
    names = ["mobilenetv2_100", "resnet50", "resnet101", "densenet121", "legacy_xception"]
    assert all(timm.is_model(name) for name in [*names, "vit_base_patch16_224"])
