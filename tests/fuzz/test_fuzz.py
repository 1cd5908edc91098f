"""A short run of every fuzzing target; `RESULTS.md` tells of the long one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from auditkit.evidence.errors import EvidenceError
from tests.fuzz.targets import TARGETS, Target

ROOT = Path(__file__).parents[2]
RUNS = 500
"""Inputs for each target: about a second."""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """Fuzzed in a process of its own, since libFuzzer ends the process that it runs in."""
    folder = tmp_path_factory.mktemp("fuzz")
    command = [sys.executable, "-m", "tests.fuzz.run", "--runs", str(RUNS)]
    command += ["--findings", str(folder / "findings"), "--json", str(folder / "outcomes")]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if not (folder / "outcomes").exists():
        pytest.fail(f"fuzzing did not end: {finished.stderr[-2_000:]}")
    found = json.loads((folder / "outcomes").read_text())
    return {outcome["target"]: outcome for outcome in found}


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_but_typed_errors_leaves_a_reader(outcomes, name):
    outcome = outcomes[name]
    assert not outcome["finding"], outcome["finding"]
    assert outcome["inputs"] >= RUNS
    assert outcome["edges"] > 10, "the reader is instrumented"


@pytest.mark.parametrize("name", TARGETS)
def test_the_seeds_reach_into_the_reader(name):
    """At least one is read to its end; the others are for the ways out."""
    target = TARGETS[name]
    read = 0
    for seed in target.seeds:
        try:
            target.run(seed)
        except EvidenceError:
            continue
        read += 1
    assert read >= 1


def test_an_untyped_error_is_a_finding():
    def read(data):
        raise ValueError(data)

    with pytest.raises(ValueError, match="input"):
        Target(read, ())(b"input")
