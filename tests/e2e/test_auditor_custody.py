"""A training whose T the auditor holds, as its users see it: the same results, and no T to take."""

import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load
from test_coded_training import CODES, EPOCHS, NearWorld, share_found
from world import World, failed_checks

HELD = "training.mint.custody=auditor"
MEMBERSHIP_EPOCHS = 30
FAR_ABOVE_CHANCE = 0.75
LARGEST_DIFFERENCE = 0.1  # of two AUC; each is measured on some 90 test samples


def train(world: World, *settings: str) -> dict[str, Any]:
    options = [part for setting in settings for part in ("--set", setting)]
    done = world.cli("train", str(world.config), "--no-container", "--json", *options)
    assert done.returncode == 0, done.stderr
    cohorts: dict[str, Any] = json.loads(done.stdout)["cohorts"]
    return cohorts


@dataclass(frozen=True)
class Story:
    world: World
    cohorts: dict[str, Any]


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """A finished training with codes in half precision on the wire, T with the auditor."""
    world = NearWorld(tmp_path_factory.mktemp("held"), epochs=EPOCHS, outage_policy="pause")
    try:
        world.serve()
        yield Story(world, train(world, *CODES, HELD))
    finally:
        world.close()


def test_members_are_found_by_their_codes_as_with_a_t_of_the_developer_s(held: Story) -> None:
    assert share_found(held.cohorts["told"], 1e-6) > 0.99
    for stranger in ("silent", "external", "calibration", "test"):
        assert share_found(held.cohorts[stranger], 1e-6) == 0.0


def test_a_bundle_of_the_auditor_s_carries_all_of_m_plus_and_verifies(held: Story) -> None:
    bundle = held.world.export()
    code, report = held.world.verify(bundle)
    assert code == 0, report
    assert failed_checks(report) == set()
    assert report["level"] == 1
    with zipfile.ZipFile(bundle) as file:
        whole = load(file.read("model/weights.safetensors"))
    assert {name.partition(".")[0] for name in whole} == {"audited", "mint"}
    own = load((held.world.folder / "run" / "model" / "weights.safetensors").read_bytes())
    assert {name.partition(".")[0] for name in own} == {"audited"}


def test_a_bundle_of_the_developer_s_has_neither_t_nor_scores(held: Story, tmp_path: Path) -> None:
    path = tmp_path / "developer.bundle"
    token = held.world.token("developer")
    held.world.cli(
        "export",
        held.world.session_id(),
        *("--server", held.world.url, "--token-file", token, "--output", str(path)),
    ).check_returncode()
    with zipfile.ZipFile(path) as file:
        names = set(file.namelist())
    assert "model/description.json" in names
    assert not names & {"model/weights.safetensors", "model/scores.safetensors"}
    _, report = held.world.verify(path)
    assert failed_checks(report) == set()


def test_a_query_is_answered_by_the_model_that_the_server_put_together(held: Story) -> None:
    world = held.world
    image, opening = (str(world.folder / name) for name in ("sample.png", "sample.json"))
    with zipfile.ZipFile(world.export()) as file:
        description = json.loads(file.read("model/description.json"))
    assert description["mint"]["custody"] == "auditor"
    world.cli(
        "open", str(world.config), "0", "--output", opening, "--image", image
    ).check_returncode()
    done = world.cli("query", world.session_id(), image, *world.asking, "--json")
    assert done.returncode == 0, done.stderr


def test_the_report_says_who_held_t(held: Story, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    held.world.cli(
        "report", held.world.session_id(), *held.world.access, "--output", str(page)
    ).check_returncode()
    text = " ".join(page.read_text().split())
    assert "Who held T during the training" in text
    assert "the developer had activations and gradients only" in text


def test_membership_is_told_as_well_as_by_a_t_of_the_developer_s(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    found = {}
    for custody in ("developer", "auditor"):
        world = NearWorld(
            tmp_path_factory.mktemp(custody), epochs=MEMBERSHIP_EPOCHS, outage_policy="pause"
        )
        try:
            world.serve()
            found[custody] = train(world, f"training.mint.custody={custody}")
        finally:
            world.close()
    for cohort in ("told", "external"):
        here, there = (found[custody][cohort]["auc"] for custody in ("developer", "auditor"))
        assert abs(here - there) < LARGEST_DIFFERENCE, cohort
    assert found["auditor"]["told"]["auc"] > FAR_ABOVE_CHANCE
