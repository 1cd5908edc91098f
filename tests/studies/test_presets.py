"""The paper's experiments by name, complete, and honest about what is not the paper's."""

import re

import pytest
import torch

from auditkit.mint.architectures import PAPER_ARCHITECTURES
from auditkit.mint.enhanced import EnhancedAuditedModel
from auditkit.mint.errors import UnknownArchitectureError
from auditkit.studies import presets as published
from auditkit.studies.errors import UnknownPresetError
from auditkit.studies.presets import DATA_SETS, EXPERIMENTS, SETUPS, Cell, preset, presets


def test_experiments_cover_what_the_paper_covers() -> None:
    cells = {name: set(experiment.cells) for name, experiment in EXPERIMENTS.items()}
    assert len(cells["E1"]) == 6 * 3 * 2
    assert len(cells["E2"]) == 6 * 5
    assert {cell.architecture for cell in cells["E1"]} == set(PAPER_ARCHITECTURES)
    assert {cell.setup for cell in cells["E1"]} == set(SETUPS)
    assert {cell.data_set for cell in cells["E2"]} == set(DATA_SETS)
    names = [cell.name for experiment in cells.values() for cell in experiment]
    assert len(set(names)) == len(set().union(*cells.values()))


@pytest.mark.parametrize("architecture", ["MobileNet", "ViT"])
@pytest.mark.parametrize("data_set", ["MNIST", "Tiny ImageNet"])
def test_presets_describe_models_that_can_be_built(architecture: str, data_set: str) -> None:
    found = preset(architecture, "entry", data_set)
    with torch.device("meta"):
        enhanced = EnhancedAuditedModel.build(found.config, 0)
    width = enhanced.audited.get_classifier().out_features
    assert width == DATA_SETS[data_set].classes


def test_a_preset_carries_the_published_figures() -> None:
    easy, hard = (
        preset("ResNet50", "middle", "MNIST"),
        preset("ResNet50", "output", "Tiny ImageNet"),
    )
    assert easy.config.mint.mint_weight == 10 * easy.config.mint.task_weight
    assert hard.config.mint.mint_weight == 10_000 * hard.config.mint.task_weight
    assert (easy.config.epochs, hard.config.epochs) == (50, 100)
    for found in (easy, hard):
        assert (found.config.mint.channels, found.config.mint.hidden) == (2048, (128,))
        assert (found.config.optimiser.name, found.config.optimiser.learning_rate) == ("adam", 1e-4)
        assert found.config.batch_size == found.config.external_batch_size == 64
        assert found.config.augmentation == "none"
    assert hard.config.taps.setup == "output"


def test_tokens_are_read_by_one_linear_layer() -> None:
    mint = preset("ViT", "middle", "CIFAR-10").config.mint
    assert (mint.head, mint.hidden) == ("fully_connected", ())


def test_d_and_e_share_evenly_what_the_cohorts_of_the_protocol_leave() -> None:
    split = preset("ViT", "entry", "MNIST").split
    set_apart = split.calibration + split.silent + split.told_only
    assert 1.0 - set_apart - split.external == pytest.approx(split.external)
    assert split.calibration * 50_000 >= 5_000


def test_what_is_assumed_is_said_and_what_is_published_is_not() -> None:
    def said(data_set: str) -> str:
        return "; ".join(preset("MobileNet", "entry", data_set).assumptions)

    for data_set in DATA_SETS:
        assert f"L2 coefficient {published.ASSUMED_L2:g}" in said(data_set)
        assert f"patience of {published.ASSUMED_STOPPING.patience} epochs" in said(data_set)
    for data_set in ("MNIST", "Tiny ImageNet"):
        assert not re.search("lambda|at most", said(data_set))
    assert "lambda 2 / lambda 1 = 300" in said("CIFAR-10")
    assert "at most 100 epochs" in said("CASIA WebFace")


def test_names_are_those_of_the_paper_in_any_case() -> None:
    found = preset("xception", "entry", "cifar-10")
    assert found.cell == Cell("Xception", "entry", "CIFAR-10")
    assert found.config.name == "xception_entry_cifar-10"


def test_unknown_names_list_what_there_is() -> None:
    with pytest.raises(UnknownArchitectureError, match="choose one of MobileNet, ResNet50"):
        preset("resnet18", "entry", "MNIST")
    with pytest.raises(UnknownPresetError, match="choose one of MNIST, CIFAR-10, GTSRB"):
        preset("ResNet50", "entry", "SVHN")
    with pytest.raises(UnknownPresetError, match="choose one of entry, middle, output"):
        preset("ResNet50", "named", "MNIST")
    with pytest.raises(UnknownPresetError, match="choose one of E1, E2"):
        next(presets("E3"))
