"""Membership codes through the real CLI: taught, asked for, and proven to a third party."""

import io
import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from world import WAIT_SECONDS, World, failed_checks

from auditkit.cli.application import main
from auditkit.evidence import dsse, statements
from auditkit.evidence.derivation import Split, derive_split
from auditkit.evidence.membership_codes import SessionCodes
from auditor_server.home import DATABASE_FILE
from schemas import SessionGrant

LENGTH = 128
CODES = (
    "training.mint.evidence=codes",
    f"training.mint.code_length={LENGTH}",
    "training.mint.hidden=[128]",
)
EPOCHS = 60


class NearWorld(World):
    """A world whose commands run in this process, since there are many; its server has its own."""

    def cli(
        self, *arguments: str, timeout: float = WAIT_SECONDS, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        del timeout  # nothing here waits for another process but the server
        output, errors = io.StringIO(), io.StringIO()
        with (
            redirect_stdout(output),
            redirect_stderr(errors),
            chdir(self.folder),
            pytest.MonkeyPatch.context() as patch,
        ):
            patch.setattr(sys, "argv", ["auditkit", *arguments])
            for name, value in environment.items():
                patch.setenv(name, value)
            code: int | str | None = 0
            try:
                main()
            except SystemExit as ended:
                code = ended.code
        return subprocess.CompletedProcess(
            arguments, int(code or 0), output.getvalue(), errors.getvalue()
        )


@dataclass(frozen=True)
class Coded:
    """A finished training with codes, and what the auditor alone knows about it."""

    world: World
    cohorts: dict[str, Any]
    grant: SessionGrant
    split: Split
    codes: SessionCodes

    def query(self, *arguments: str) -> list[dict[str, Any]]:
        session = self.grant.session_id
        done = self.world.cli("query", session, *arguments, *self.world.asking, "--json")
        assert done.returncode == 0, done.stderr
        return [answer["verdict"] for answer in json.loads(done.stdout)]

    def opened(self, index: int) -> tuple[str, str]:
        """The image of one sample, and its opening, as the developer hands them out."""
        image, opening = (str(self.world.folder / f"{index}.{kind}") for kind in ("png", "json"))
        done = self.world.cli(
            "open", str(self.world.config), str(index), "--output", opening, "--image", image
        )
        assert done.returncode == 0, done.stderr
        return image, opening


@pytest.fixture(scope="module")
def coded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Coded]:
    world = NearWorld(tmp_path_factory.mktemp("coded"), epochs=EPOCHS)
    try:
        world.serve()
        settings = [part for setting in CODES for part in ("--set", setting)]
        done = world.cli("train", str(world.config), "--no-container", "--json", *settings)
        assert done.returncode == 0, done.stderr
        yield told_about(world, json.loads(done.stdout)["cohorts"])
    finally:
        world.close()


def told_about(world: World, cohorts: dict[str, Any]) -> Coded:
    envelope = dsse.Envelope.from_bytes((world.folder / "run" / "grant.dsse.json").read_bytes())
    grant = statements.parse(envelope.payload, statements.GRANT_PREDICATE, SessionGrant)
    split = derive_split(bytes.fromhex(grant.nonce), grant.split)
    with sqlite3.connect(world.home / DATABASE_FILE) as database:
        secret, leaves = database.execute(
            "SELECT code_secret, pool_leaves FROM sessions"
        ).fetchone()
    return Coded(world, cohorts, grant, split, SessionCodes.derive(secret, leaves, split, LENGTH))


def share_found(cohort: dict[str, Any], rate: float) -> float:
    (found,) = [r for r in cohort["own_code"] if r["false_positive_rate"] == rate]
    return float(found["flagged"]["value"])


def test_members_are_found_by_their_own_codes_and_strangers_are_not(coded: Coded) -> None:
    assert share_found(coded.cohorts["told"], 1e-6) > 0.99
    for stranger in ("silent", "external", "calibration", "test"):
        assert share_found(coded.cohorts[stranger], 1e-6) == 0.0


def test_neither_codes_nor_secret_lie_in_the_developer_s_files(coded: Coded) -> None:
    packed = coded.codes.packed()
    rows = {packed[start : start + LENGTH] for start in range(0, len(packed), LENGTH)}
    floats = {row.tobytes() for row in coded.codes.members}
    for path in (coded.world.folder / "run").rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert not any(code in data for code in rows | floats), path


def test_an_opened_member_gets_a_provable_verdict(coded: Coded) -> None:
    index = int(coded.split.told[0])
    image, opening = coded.opened(index)
    (verdict,) = coded.query(image, "--opening", opening, "--fpr", "1e-6")
    assert (verdict["evidence"], verdict["outcome"]) == ("declared", "member")
    assert (verdict["code_index"], verdict["calibration_size"]) == (index, 0)


def test_an_opened_stranger_is_not_shown(coded: Coded) -> None:
    image, opening = coded.opened(int(coded.split.calibration[0]))
    (verdict,) = coded.query(image, "--opening", opening, "--fpr", "1e-4")
    assert (verdict["evidence"], verdict["outcome"]) == ("declared", "not_shown")


def test_without_an_opening_the_best_code_names_the_member(coded: Coded) -> None:
    index = int(coded.split.told[1])
    image, _ = coded.opened(index)
    (verdict,) = coded.query(image)
    assert verdict["evidence"] == "calibrated"
    assert verdict["calibration_size"] == coded.grant.split.calibration
    assert verdict["code_index"] == index


def test_an_altered_copy_cannot_be_opened(coded: Coded) -> None:
    image, _ = coded.opened(int(coded.split.told[2]))
    pixels = np.array(Image.open(image))
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(image)
    done = coded.world.cli("open", str(coded.world.config), image, "--output", "opening.json")
    assert done.returncode == 1
    assert "has exactly these pixels" in " ".join(done.stderr.split())


def test_an_image_is_opened_like_its_index(coded: Coded) -> None:
    image, opening = coded.opened(int(coded.split.told[3]))
    again = coded.world.folder / "again.json"
    coded.world.cli(
        "open", str(coded.world.config), image, "--output", str(again)
    ).check_returncode()
    assert again.read_bytes() == Path(opening).read_bytes()


def test_whoever_has_the_bundle_can_check_all_of_it_but_the_secret(coded: Coded) -> None:
    index = int(coded.split.told[4])
    image, opening = coded.opened(index)
    coded.query(image, "--opening", opening)
    code, report = coded.world.verify(coded.world.export())
    assert code == 0, report
    assert failed_checks(report) == set()
    assert report["level"] == 1
    found = {finding["check"]: finding for finding in report["findings"]}
    assert found["codes-carried"]["outcome"] == "passed"
    assert "keeps the secret to itself" in found["codes-committed"]["detail"]


def test_people_read_what_a_verdict_rests_on(coded: Coded, tmp_path: Path) -> None:
    image, opening = coded.opened(int(coded.split.told[5]))
    session, access = coded.grant.session_id, coded.world.access
    asked = coded.world.cli("query", session, image, "--opening", opening, *coded.world.asking)
    assert "own code" in asked.stdout
    assert "That is proven" in " ".join(asked.stdout.split())
    page = tmp_path / "report.html"
    coded.world.cli("report", session, *access, "--output", str(page)).check_returncode()
    text = page.read_text()
    assert "own membership code, provable" in text
    assert "What membership codes add to a list of hashes" in text
