"""`auditkit evaluate` as a scientist runs it, and what it says to mistakes."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from auditkit.cli.application import main

SETTINGS = """
population = 10
false_alarm_rate = 0.02
[pool]
kind = "digits"
selection = { limit = 200 }
[test]
kind = "digits"
selection = { skip = 200, limit = 60 }
[sizes]
told = 50
silent = 12
told_only = 10
external = 68
calibration = 60
[training]
name = "tiny"
epochs = 1
batch_size = 25
external_batch_size = 0
threads = 1
[training.model]
architecture = "resnet18"
arguments = { layers = [1, 1, 1, 1], channels = [8, 8, 8, 8] }
classes = 10
channels = 1
height = 8
width = 8
stem_stride = 1
stem_pool = false
[training.optimiser]
name = "adam"
learning_rate = 0.002
[passive]
epochs = 2
[[variants]]
name = "codes"
title = "keyed codes"
mint = { evidence = "codes", head = "fully_connected", hidden = [16], code_length = 64 }
"""


def evaluate(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from auditkit.cli import main; main()", "evaluate"]
        + [str(argument) for argument in arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def settings_file(folder: Path, *changes: tuple[str, str]) -> Path:
    text = SETTINGS
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = folder / "settings.toml"
    path.write_text(text)
    return path


def test_one_command_compares_everything_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    settings, output = settings_file(tmp_path), tmp_path / "evaluation"
    ran = evaluate(settings, "--output", output)
    assert ran.returncode == 0, ran.stderr
    assert "1/2 codes-seed0\n" in ran.stderr
    assert "2/2 alone-seed0\n" in ran.stderr
    for heading in ("Told members that are found", "Undeclared-data test", "Sets of n own codes"):
        assert heading in ran.stdout
    assert max(map(len, ran.stdout.splitlines())) <= 120 + len(str(output))
    document = json.loads((output / "evaluation.json").read_text())
    assert {entry["method"] for entry in document["methods"]} >= {"codes-own", "gmint", "loss"}
    assert document["settings"]["sizes"]["told"] == 50
    assert "# Membership" in (output / "evaluation.md").read_text()
    assert (output / "evaluation-roc.svg").read_text().startswith("<svg")

    (output / "evaluation.md").unlink()
    again = evaluate(settings, "--output", output)
    assert again.returncode == 0, again.stderr
    assert "2/2 alone-seed0 (kept)\n" in again.stderr
    assert again.stdout == ran.stdout


@pytest.fixture
def refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[tuple[str, str]], str]:
    """Run the command with changed settings; return what it says when it refuses them."""

    def run(change: tuple[str, str]) -> str:
        output = tmp_path / "evaluation"
        arguments = ["evaluate", str(settings_file(tmp_path, change)), "--output", str(output)]
        monkeypatch.setattr(sys, "argv", ["auditkit", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 1
        told = capsys.readouterr().err
        assert told.startswith("error: ")
        assert not output.exists()
        return told

    return run


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("hidden = [16]", "hiden = [16]"), "mint.hiden: unknown setting; did you mean 'hidden'?"),
        (("[passive]", "[pasive]"), "pasive: unknown setting; did you mean 'passive'?"),
        (("epochs = 1", "epochs = 0"), "training.epochs: Input should be greater than or equal to"),
        (("population = 10", "population = ["), "is not valid TOML"),
        (("false_alarm_rate = 0.02", ""), "needs at least 999 calibration samples, found 60"),
    ],
    ids=["typo in a variant", "typo in a section", "range", "TOML", "C too small"],
)
def test_mistakes_in_the_settings_are_told_plainly(
    change: tuple[str, str], message: str, refused: Callable[[tuple[str, str]], str]
) -> None:
    assert message in refused(change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("population = 10", "population = 40"), "expected at least 80 samples of E"),
        (("limit = 200 }\n[test]", "limit = 190 }\n[test]"), "expected a pool of 200 samples"),
        (("classes = 10", "classes = 9"), "has 10 classes, training.model.classes is 9"),
    ],
    ids=["E too small", "pool too small", "classes"],
)
def test_data_that_do_not_suit_are_refused_before_anything_is_trained(
    change: tuple[str, str], message: str, refused: Callable[[tuple[str, str]], str]
) -> None:
    assert message in refused(change)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    refused = evaluate(tmp_path / "nowhere.toml", "--output", tmp_path / "evaluation")
    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr
    assert refused.stderr.startswith("error: cannot read the configuration")
    assert "nowhere.toml: No such file or directory" in refused.stderr
    assert list(tmp_path.iterdir()) == []
