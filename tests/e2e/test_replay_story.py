"""A regulator has parts of a training executed again, through the real CLI."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from test_closed_container import LAUNCH_SECONDS
from world import World, failed_checks

EVERYTHING = 1000  # more segments than there are


def draw(world: World, *options: str) -> str:
    """Draw as the auditor; return the file of the draw."""
    access = ("--server", world.url, "--token-file", world.token("auditor"))
    done = world.cli("draw", world.session_id(), *access, *options, "--output", "draw.json")
    assert done.returncode == 0, done.stderr
    return "draw.json"


def disclose(world: World, drawn: str, *options: str) -> str:
    """Open what was drawn as the developer; return the folder of packages."""
    # A world is shared by several tests, and what one draw opened is not another's.
    packages = f"packages-{len(list(world.folder.glob('packages-*')))}"
    done = world.cli("disclose", str(world.config), "--draw", drawn, "--output", packages, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    return packages


def replay(
    world: World, drawn: str, packages: str, *options: str
) -> subprocess.CompletedProcess[str]:
    """Execute again as the auditor, and hand the result in."""
    return world.cli(
        *("replay", str(world.export("for-replay.bundle")), "--draw", drawn),
        *("--packages", packages, "--trust-root", world.trust_root, "--json"),
        *("--submit", "--server", world.url, "--token-file", world.token("auditor")),
        *options,
        timeout=3 * LAUNCH_SECONDS,
    )


def finding(report: dict[str, Any]) -> dict[str, Any]:
    return next(f for f in report["findings"] if f["check"] == "replay")


def test_a_replayed_training_says_so_wherever_its_evidence_goes(finished: World) -> None:
    drawn = draw(finished, "--uniform", "3", "--largest", "1")
    packages = disclose(finished, drawn, "--calibration")
    done = replay(finished, drawn, packages, "--no-container")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert {one["outcome"] for one in result["segments"]} == {"exact"}
    # The last segment is one of the three that were drawn at random, or comes on top.
    assert len(result["segments"]) in (4, 5)
    assert result["initialisation"]["outcome"] == result["scores"]["outcome"] == "exact"
    assert result["grade"] == "strong"
    code, report = finished.verify(finished.export("replayed.bundle"))
    assert code == 0, report
    assert finding(report)["outcome"] == "passed"
    assert report["detection"]["uniform"] == 3


def test_packages_are_refused_if_a_byte_is_not_as_committed(finished: World) -> None:
    drawn = draw(finished, "--uniform", "1")
    packages = disclose(finished, drawn)
    package = next((finished.folder / packages).glob("*.package"))
    data = bytearray(package.read_bytes())
    data[len(data) // 2] ^= 1
    package.write_bytes(data)
    done = replay(finished, drawn, packages, "--no-container")
    assert done.returncode == 1
    assert "ask for the package again" in done.stderr
    assert "Traceback" not in done.stderr


def test_one_forged_step_fails_the_replay_of_its_segment(
    make_world: Callable[..., World],
) -> None:
    world = make_world()
    world.serve()
    program = Path(__file__).parent / "forged_training.py"
    arguments = [str(world.config), world.token("developer"), "12"]
    done = subprocess.run(
        [sys.executable, str(program), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    drawn = draw(world, "--uniform", str(EVERYTHING))
    done = replay(world, drawn, disclose(world, drawn), "--no-container")
    assert done.returncode == 1, done.stderr
    outcomes = {
        (one["segment"]["first_state_step"], one["segment"]["last_state_step"]): one["outcome"]
        for one in json.loads(done.stdout)["segments"]
    }
    assert {steps for steps, outcome in outcomes.items() if outcome == "differs"} == {(10, 15)}
    assert set(outcomes.values()) == {"exact", "differs"}
    code, report = world.verify(world.export("replayed.bundle"))
    assert code == 1
    assert failed_checks(report) == {"replay"}
    assert finding(report)["error"] == "SegmentDiffersError"
    assert report["level"] == 0
