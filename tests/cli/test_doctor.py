"""`doctor` names what is missing, and what to do about it, for engines that this machine lacks."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from auditkit.cli import doctor
from auditkit.cli.application import app
from auditkit.cli.doctor import Diagnosis, EngineOnMachine, engine_diagnoses
from containers.engine import Engine, EngineFacts
from containers.engine_errors import EngineError

FACTS = EngineFacts(
    name="Docker",
    version="27.3.1",
    platform="linux/amd64",
    address="unix:///var/run/docker.sock",
    storage_driver="overlay2",
    root_folder=Path("/var/lib/docker"),
    cgroup_version=2,
    rootless=False,
    enforces_limits=True,
    gpu_support="runtime",
    experimental=False,
    memory_bytes=2**36,
    cpus=16,
)
COMPLETE = EngineOnMachine(FACTS, free_bytes=10**12, has_nvidia_gpu=True)


def diagnoses(machine: dict[str, Any] | None = None, **facts: Any) -> dict[str, Diagnosis]:
    changed = replace(COMPLETE, facts=replace(FACTS, **facts), **(machine or {}))
    return {one.subject: one for one in engine_diagnoses(changed)}


def test_a_complete_machine_needs_no_advice() -> None:
    found = diagnoses()
    assert set(found) == {"container engine", "disk of the engine", "GPUs in containers"}
    assert all(one.outcome == "ok" and not one.advice for one in found.values())
    assert "Docker 27.3.1 linux/amd64" in found["container engine"].found


def test_whatever_keeps_the_engine_from_being_used_is_passed_on(tmp_path: Path) -> None:
    with pytest.raises(EngineError) as caught:
        Engine.connect({"DOCKER_HOST": f"unix://{tmp_path}/missing"})
    (found,) = engine_diagnoses(caught.value)
    assert found.outcome == "optional"
    assert "L1" in found.found
    assert "dnf install" in found.advice
    assert "apt-get install" in found.advice


@pytest.mark.parametrize(
    ("facts", "machine", "subject", "advice"),
    [
        ({"name": "Podman", "experimental": True}, {}, "container engine", "experimental"),
        (
            {"rootless": True, "enforces_limits": False, "cgroup_version": 1},
            {},
            "limits of containers",
            "cgroup v2",
        ),
        ({}, {"free_bytes": 10**10}, "disk of the engine", "6.2 GB, 3 times over"),
        ({}, {"free_bytes": None}, "disk of the engine", "19 GB"),
        ({"memory_bytes": 2**32}, {}, "memory of containers", "memory_gib"),
        ({"gpu_support": None}, {}, "GPUs in containers", "nvidia-ctk"),
    ],
)
def test_each_lack_has_its_advice(
    facts: dict[str, Any], machine: dict[str, Any], subject: str, advice: str
) -> None:
    assert advice in diagnoses(machine, **facts)[subject].advice


def test_a_machine_without_gpu_needs_no_toolkit() -> None:
    assert "GPUs in containers" not in diagnoses({"has_nvidia_gpu": False}, gpu_support=None)


@pytest.mark.parametrize("where", [None, "/usr/bin/mmdebstrap"])
def test_the_builder_of_bases_is_looked_for(
    where: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: where)
    document = run()
    found = next(one for one in document if one["subject"] == "builder of bases")
    assert found["outcome"] == ("ok" if where else "optional")
    assert ("apt-get install mmdebstrap" in found["advice"]) == (where is None)


def run() -> list[dict[str, str]]:
    result = CliRunner().invoke(app, ["doctor", "--json"])
    assert result.exit_code == 0, result.output
    document: list[dict[str, str]] = json.loads(result.output)
    return document


def test_no_engine_is_no_reason_to_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere")
    (found,) = (one for one in run() if one["subject"] == "container engine")
    assert found["outcome"] == "optional"
    assert "install" in found["advice"]


def test_advice_is_printed_for_people_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/[bold]")
    monkeypatch.setattr(doctor, "BASE_BUILDER", "no-such-program")
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 0
    assert "DOCKER_HOST" in result.output
    assert "no-such-program" in result.output
