"""Foreign text in the terminal: what others wrote is shown, and steers nothing."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from auditkit.cli.output import OUTCOME_STYLES, print_json, print_verification, quoted
from schemas import AssuranceLevel, Finding, VerificationReport

# What a bundle's author might put into the name of an architecture.
REWRITES_THE_SCREEN = "resnet\x1b[2J\x1b[32m verified"
CLOSES_A_TAG = "\\[/red] [/b] [bold]verified"


@pytest.mark.parametrize("outcome", [o for o in OUTCOME_STYLES if o != "failed"])
@pytest.mark.parametrize("text", [REWRITES_THE_SCREEN, CLOSES_A_TAG])
def test_a_hostile_bundle_cannot_steer_the_terminal(
    text: str, outcome: str, capsys: pytest.CaptureFixture[str]
) -> None:
    finding = Finding.model_validate(
        {"check": "a-check", "claim": "c", "outcome": outcome, "detail": text}
    )
    print_verification(
        VerificationReport(
            session_id="s",
            verified_at=datetime.now(UTC),
            findings=(finding,),
            level=AssuranceLevel.L0,
        )
    )
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert text.replace("\x1b", "\\x1b") in shown
    assert "NOT verified" in shown


def test_json_is_json_whatever_it_holds(capsys: pytest.CaptureFixture[str]) -> None:
    document = {"name": ":warning: [/b] München \udcff.png", "long": "x" * 500}
    print_json(document)
    assert json.loads(capsys.readouterr().out) == document


def test_quoted_text_keeps_letters_of_every_language() -> None:
    assert quoted("Übung 試験") == "Übung 試験"
    assert quoted("a\tb\udcff") == "a\\tb\\udcff"


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from auditkit.cli import main; main()", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **variables},
    )


def check_refused(result: subprocess.CompletedProcess[str], *words: str) -> None:
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr


def test_files_of_another_kind_are_refused_in_one_line(tmp_path: Path) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00[")
    home = tmp_path / "home"
    made = run("init", "--home", str(home), "--auditor", "Office [/b]")
    assert made.returncode == 0, made.stderr
    check_refused(run("order", "create", str(binary), "--home", str(home)), "not valid TOML")
    server = ("--server", "http://127.0.0.1:9")
    check_refused(run("order", "list", *server, "--token-file", str(binary)), "not hold a token")
    check_refused(run("order", "list", *server, AUDITKIT_TOKEN="€"), "not hold a token")
    check_refused(run("init", "--home", str(binary / "home")), str(binary), "Not a directory")


@pytest.mark.parametrize("days", ["1e12", "nan", "inf", "0", '"soon"'])
def test_orders_end_at_a_time_that_there_is(days: str, tmp_path: Path) -> None:
    home, order = tmp_path / "home", tmp_path / "order.toml"
    if not home.exists():
        run("init", "--home", str(home)).check_returncode()
    order.write_text(f'order_id = "o"\nvalid_days = {days}\n')
    check_refused(run("order", "create", str(order), "--home", str(home)), "valid_days")
