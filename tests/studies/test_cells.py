"""One command trains and measures any cell of the paper's tables, and says what is missing."""

import importlib
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from auditkit.cli.application import app
from auditkit.mint.architectures import PAPER_ARCHITECTURES
from auditkit.mint.preprocessing import normalisation_of
from auditkit.mint.steps import RowCounts, new_batch
from auditkit.studies.cell_run import MeasuredCell, measured, path_of, run_one, trainings
from auditkit.studies.cell_tables import NOT_MEASURED, OUT_OF_REACH, PAPER_TABLES, markdown
from auditkit.studies.cells import SCALES, CellResult, CellSettings, cell_settings, measure_cell
from auditkit.studies.errors import CellFileError, DeviceMissingError
from auditkit.studies.presets import DATA_SETS, SETUPS, Cell, Setup
from tests.data import released
from tests.studies import small

TINY = SCALES["tiny"]
SIZES = TINY.sizes
assert SIZES is not None


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small generated copy of every data set, in the layout in which it is released."""
    root = tmp_path_factory.mktemp("released")
    folders = {name: root / name.replace(" ", "-") for name in DATA_SETS}
    released.write_mnist(folders["MNIST"], {"train": 60, "t10k": 20})
    released.write_cifar10(folders["CIFAR-10"], 12)
    released.write_gtsrb(folders["GTSRB"], range(10), 6)
    released.write_tiny_imagenet(folders["Tiny ImageNet"], 20)
    with (folders["Tiny ImageNet"] / "tiny-imagenet-200/val/val_annotations.txt").open("a") as file:
        for number in range(8):
            file.write(f"val_{number % 3}.JPEG\tn02124075\t0\t0\t9\t9\n")
    released.write_faces(folders["CASIA WebFace"], {"0000045": 30, "0000099": 30}, side=32)
    return folders


def settings(cell: Cell, copies: dict[str, Path]) -> CellSettings:
    return cell_settings(cell, copies[cell.data_set], TINY)


def check(result: CellResult, training: CellSettings, methods: set[str]) -> None:
    assert result.digest == training.digest
    assert result.sizes == SIZES
    assert {method.figures.method for method in result.methods} == methods
    for method in result.methods:
        figures = method.figures
        cohorts = {cohort.cohort: cohort for cohort in figures.cohorts}
        assert cohorts["silent"].size == SIZES.silent
        assert cohorts["told_only"].size == SIZES.told_only
        assert figures.audited_accuracy.trials == TINY.fresh
        assert figures.training_seconds > 0 < figures.peak_bytes


@pytest.mark.parametrize("setup", SETUPS)
@pytest.mark.parametrize("architecture", PAPER_ARCHITECTURES)
def test_every_architecture_in_every_setup(
    architecture: str, setup: Setup, copies: dict[str, Path]
) -> None:
    training = settings(Cell(architecture, setup, "MNIST"), copies)
    check(measure_cell(training), training, {"active"})


@pytest.mark.parametrize("architecture", ["MobileNet", "ViT"])
def test_the_same_architecture_alone_is_read_by_passive_mint(
    architecture: str, copies: dict[str, Path]
) -> None:
    alone = settings(Cell(architecture, "middle", "MNIST"), copies).alone()
    expected = {"passive-vanilla", "passive-outcome"}
    if architecture != "ViT":  # the tokens of a transformer are no maps for a convolution
        expected.add("passive-cnn")
    check(measure_cell(alone), alone, expected)


@pytest.mark.parametrize("data_set", DATA_SETS)
def test_every_data_set_as_it_is_released(data_set: str, copies: dict[str, Path]) -> None:
    training = settings(Cell("ViT", "entry", data_set), copies)
    check(measure_cell(training), training, {"active"})


def test_setups_share_one_training_of_m_alone(copies: dict[str, Path]) -> None:
    cells = [settings(Cell("ViT", setup, "MNIST"), copies) for setup in SETUPS]
    wanted = trainings(cells)
    assert [training.role for training in wanted] == ["alone", "joint", "joint", "joint"]
    assert len({training.nonce for training in wanted}) == 1
    assert wanted[0].training.mint.mint_weight == 0.0


def test_results_are_bound_to_what_they_were_measured_with(copies: dict[str, Path]) -> None:
    cell = Cell("ViT", "entry", "MNIST")
    first = settings(cell, copies)
    assert settings(cell, copies).digest == first.digest
    others = [
        cell_settings(cell, copies["MNIST"], TINY, seed=1),
        cell_settings(cell, copies["MNIST"].parent, TINY),
        cell_settings(cell, copies["MNIST"], SCALES["cpu"]),
        cell_settings(replace(cell, setup="middle"), copies["MNIST"], TINY),
        first.alone(),
    ]
    assert len({first.digest, *(other.digest for other in others)}) == 6


def test_a_kept_result_is_read_again_and_a_damaged_one_is_not(
    tmp_path: Path, copies: dict[str, Path]
) -> None:
    training = settings(Cell("ViT", "entry", "MNIST"), copies)
    assert measured(training, tmp_path) == MeasuredCell()
    run_one(training, tmp_path)
    found = measured(training, tmp_path)
    assert found.joint is not None
    assert found.alone is None
    shown = PAPER_TABLES["table1"].lay_out("Setups", [(Cell("ViT", "entry", "MNIST"), found)])
    assert NOT_MEASURED in shown.rows[0]  # M alone
    assert OUT_OF_REACH in shown.rows[0]  # 19 samples of C reach no rate below 5 %
    path = path_of(training, tmp_path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(CellFileError, match="remove it, and the part is run again"):
        measured(training, tmp_path)


def test_another_trainings_result_is_refused(tmp_path: Path, copies: dict[str, Path]) -> None:
    training = settings(Cell("ViT", "entry", "MNIST"), copies)
    run_one(training, tmp_path)
    other = training.model_copy(update={"seed": 7})
    shutil.copy(path_of(training, tmp_path), path_of(other, tmp_path))
    with pytest.raises(CellFileError, match="belongs to other settings"):
        measured(other, tmp_path)


def test_both_trainings_start_from_the_same_split_and_the_cpu_gives_the_same_bits(
    copies: dict[str, Path],
) -> None:
    training = settings(Cell("ViT", "entry", "CIFAR-10"), copies)
    first, again = measure_cell(training), measure_cell(training)
    rocs = [result.methods[0].figures.roc for result in (first, again)]
    assert rocs[0] == rocs[1]
    assert first.data == again.data


@pytest.mark.parametrize("augmentation", ["none", "shift", "flip_shift", "robust"])
def test_pixels_that_are_kept_as_a_tensor_give_the_same_batch(augmentation: str) -> None:
    generator = np.random.default_rng(5)
    images = generator.integers(0, 256, (9, 12, 10, 3), dtype=np.uint8)
    words = generator.integers(0, 2**32, 9, dtype=np.uint32)
    config = small.config().model_copy(update={"augmentation": augmentation})
    first, second = (
        new_batch(
            pixels,
            np.zeros(9, dtype=np.int64),
            RowCounts(3, 2, 1, 3),
            words=words,
            config=config,
            normalisation=normalisation_of(images),
        )
        for pixels in (images, torch.from_numpy(images.copy()))
    )
    assert torch.equal(first.inputs, second.inputs)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_missing_gpu_is_said_before_anything_is_trained(copies: dict[str, Path]) -> None:
    training = settings(Cell("ViT", "entry", "MNIST"), copies)
    with pytest.raises(DeviceMissingError, match="found none"):
        measure_cell(training.model_copy(update={"device": "cuda"}))


def test_tables_without_any_measurement_say_so_in_every_row() -> None:
    for table in PAPER_TABLES.values():
        shown = table.lay_out(table.title, [(cell, MeasuredCell()) for cell in table.cells])
        assert len(shown.rows) >= len(table.cells)
        assert all(NOT_MEASURED in row for row in shown.rows)
        assert all(len(row) == len(shown.header) for row in shown.rows)
        assert markdown(shown, "nowhere").count(NOT_MEASURED) == len(shown.rows)


@pytest.mark.slow
def test_the_command_trains_a_cell_and_goes_on_where_it_stopped(
    tmp_path: Path, copies: dict[str, Path]
) -> None:
    command = ["study", "cell", "--architecture", "vit", "--setup", "middle", "--scale", "tiny"]
    command += ["--data-set", "cifar-10", "--data", str(copies["CIFAR-10"]), "-o", str(tmp_path)]
    first = CliRunner().invoke(app, command)
    assert first.exit_code == 0, first.output
    assert "Vanilla" in first.output
    assert "lambda 2 / lambda 1 = 300" in first.output.replace("\n", " ")
    files = sorted(tmp_path.iterdir())
    assert [file.suffix for file in files] == [".json", ".json"]
    before = [file.stat().st_mtime_ns for file in files]
    again = CliRunner().invoke(app, command)
    assert again.exit_code == 0, again.output
    assert "(kept)" in again.output
    assert [file.stat().st_mtime_ns for file in files] == before


@pytest.mark.slow
def test_a_benchmark_prints_measured_cells_and_marks_the_others(
    tmp_path: Path,
    copies: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    benchmarks = Path(__file__).resolve().parents[2] / "benchmarks"
    monkeypatch.syspath_prepend(str(benchmarks))
    main = importlib.import_module("paper_tables").main
    options = ["--data", f"mnist={copies['MNIST']}", "--scale", "tiny", "--output", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["table3.py", *options, "--cells", "vit_entry"])
    main("table3", "Active against Passive MINT")
    printed = capsys.readouterr().out
    rows = [line for line in printed.splitlines() if line.startswith("|")][2:]
    assert sum(NOT_MEASURED not in row for row in rows) == 3  # Active, Vanilla, outcome
    assert sum(NOT_MEASURED in row for row in rows) == 2 * 29
