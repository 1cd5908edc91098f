"""The threat model in docs/ says what the suite tries, no more and no less."""

import re

from catalogue import rows
from test_coverage import named_checks
from threat_model import COMMAND, DOCUMENT, FRAME, TITLES, checks, document


def test_the_threat_model_is_up_to_date() -> None:
    same = document() == DOCUMENT.read_text()
    assert same, f"{DOCUMENT.name} is out of date; write it anew with: {COMMAND}"


def test_its_tables_hold_every_attack_and_every_check() -> None:
    text = DOCUMENT.read_text()
    for row in rows():
        assert f"| {row.attack} | {row.caught_by} |" in text
    for check in checks():
        assert f"| `{check.check}` | {check.claim} |" in text
    assert {row.section for row in rows()} == TITLES.keys()


def test_the_frame_speaks_of_checks_that_exist() -> None:
    spoken_of = set(re.findall(r"`([a-z]+-[a-z-]+)`", FRAME.read_text()))
    assert spoken_of - set(named_checks()) == {"continue-late"}


def test_what_is_within_a_cell_breaks_no_table() -> None:
    for row in rows():
        assert "|" not in row.attack + row.caught_by + row.error
        assert "\n" not in row.attack
