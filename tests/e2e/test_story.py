"""The story as a regulator, a developer and a compliance officer live it, through the real CLI."""

import base64
import json
from hashlib import sha256
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from world import World, failed_checks


def write_digits(folder: Path, count: int) -> list[Path]:
    folder.mkdir(exist_ok=True)
    paths = []
    for number, pixels in enumerate(load_digits().images[:count]):
        path = folder / f"digit-{number}.png"
        Image.fromarray(np.round(pixels * 255 / 16).astype(np.uint8)).save(path)
        paths.append(path)
    return paths


def test_evidence_verifies_offline_after_the_server_is_gone(finished: World) -> None:
    code, report = finished.verify(finished.export())
    assert code == 0, report
    assert report["verified"]
    assert report["level"] == 1
    assert failed_checks(report) == set()


def test_nothing_but_bundle_and_trust_root_is_needed_to_verify(
    finished: World, tmp_path: Path
) -> None:
    bundle = finished.export()
    (tmp_path / "evidence.bundle").write_bytes(bundle.read_bytes())
    (tmp_path / "root.json").write_bytes(Path(finished.trust_root).read_bytes())
    done = finished.cli(
        "verify",
        str(tmp_path / "evidence.bundle"),
        "--trust-root",
        str(tmp_path / "root.json"),
        AUDITKIT_SERVER="http://127.0.0.1:9",  # nobody listens on the discard port
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "verified" in done.stdout
    assert "Assurance level L1" in done.stdout


def test_exporting_twice_gives_the_same_bytes(finished: World) -> None:
    assert finished.export("one.bundle").read_bytes() == finished.export("two.bundle").read_bytes()


def test_queries_give_signed_verdicts_that_the_bundle_proves(
    finished: World, tmp_path: Path
) -> None:
    images = write_digits(tmp_path / "images", 5)
    done = finished.cli(
        "query", finished.session_id(), str(images[0].parent), *finished.asking, "--json"
    )
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    assert [Path(answer["file"]).name for answer in answers] == sorted(p.name for p in images)
    for answer in answers:
        verdict = answer["verdict"]
        expected = "member" if verdict["p_value"] <= 0.01 else "not_shown"
        assert verdict["outcome"] == expected
        assert answer["adjusted_p_value"] >= verdict["p_value"]
        assert base64.b64decode(answer["envelope"]["payload"]).find(b'"verdict_id"') > 0
    code, report = finished.verify(finished.export("with-verdicts.bundle"))
    assert code == 0
    verdicts = [f for f in report["findings"] if f["check"] == "verdicts"]
    assert verdicts[0]["outcome"] == "passed"


def test_the_same_story_on_postgresql_with_four_workers(
    finished_on_postgresql: World, tmp_path: Path
) -> None:
    """Nobody but the operator notices what the server runs on, the offline verifier least."""
    world = finished_on_postgresql
    assert not list(world.home.glob("*.sqlite3*"))
    image = str(write_digits(tmp_path / "images", 1)[0])
    asked = world.cli("query", world.session_id(), image, *world.asking, "--json")
    assert asked.returncode == 0, asked.stderr
    page = tmp_path / "report.html"
    told = world.cli("report", world.session_id(), *world.access, "--output", str(page))
    assert told.returncode == 0, told.stderr
    code, report = world.verify(world.export())
    assert (code, report["level"], failed_checks(report)) == (0, 1, set())
    outcomes = {finding["check"]: finding["outcome"] for finding in report["findings"]}
    assert outcomes["verdicts"] == "passed"


def test_the_same_image_gets_the_same_p_value(finished: World, tmp_path: Path) -> None:
    image = str(write_digits(tmp_path / "images", 1)[0])
    done = finished.cli("query", finished.session_id(), image, image, *finished.asking, "--json")
    first, second = (answer["verdict"]["p_value"] for answer in json.loads(done.stdout))
    assert first == second


def test_the_report_is_one_page_that_names_every_check(finished: World, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    done = finished.cli("report", finished.session_id(), *finished.access, "--output", str(page))
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    _, report = finished.verify(finished.export())
    for finding in report["findings"]:
        assert finding["check"] in text
    assert "src=" not in text.replace('src="data:', "")
    assert "<script" not in text


def test_machines_can_read_what_people_read(finished: World) -> None:
    orders = finished.cli("order", "list", *finished.access, "--json")
    assert "digits" in {order["order_id"] for order in json.loads(orders.stdout)}
    shown = finished.cli("order", "show", "digits", *finished.access)
    assert json.loads(shown.stdout)["developer"] == "Example Lab"
    doctor = finished.cli("doctor", "--json", "--server", finished.url)
    assert doctor.returncode == 0, doctor.stdout
    assert {entry["subject"] for entry in json.loads(doctor.stdout)} >= {"Python", "disk"}


def test_a_second_training_of_the_same_session_gives_the_same_weights(
    finished: World, tmp_path: Path
) -> None:
    """Same grant, same pool, same machine class and threads: the same weights, bit for bit."""
    weights = finished.folder / "run" / "model" / "weights.safetensors"
    assert (
        finished.train_again(tmp_path / "again.jsonl") == sha256(weights.read_bytes()).hexdigest()
    )
