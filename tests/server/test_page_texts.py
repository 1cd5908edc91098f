"""Every text of the catalogue is shown, and every name of the wire has its words in it."""

import re
from pathlib import Path
from typing import get_args

import pytest

from auditkit.evidence.verify import OPTIONAL_CHECKS, REQUIRED_CHECKS
from auditor_server import tokens, web
from auditor_server.askable_models import Obstacle
from auditor_server.examples import ExampleKind
from auditor_server.web import checks
from auditor_server.web.texts import catalogue, text
from schemas import Finding, records
from schemas.registry import EntryKind
from schemas.verification import FindingOutcome
from schemas.wire import SessionState

WEB = Path(web.__file__).parent
TEMPLATES = "".join(path.read_text("utf-8") for path in WEB.glob("templates/*.html"))
CODE = "".join(path.read_text("utf-8") for path in WEB.rglob("*.py"))
# Sections that are looked up by a name of the wire; the tests below say that all are there.
BY_NAME = {
    "roles",
    "states",
    "kinds",
    "entries",
    "advice",
    "advice_for_any",
    "evidence",
    "desk_obstacles",
    "desk_examples",
}


def test_every_text_is_used() -> None:
    used = set(re.findall(r"texts\.(\w+)\.(\w+)", TEMPLATES))
    used |= set(re.findall(r'text\("(\w+)", "(\w+)"', CODE))
    used |= {("records", name) for name in re.findall(r'else "(\w+)"\)', CODE)}
    used |= {("records", name) for name in re.findall(r'text\("records", "(\w+)" if', CODE)}
    used |= {("session", f"tab_{name}") for name in ("facts", "verification", "live", "records")}
    used |= {("records", f"by_{name}") for name in ("step", "index", "digest", "sample")}
    used |= {("failure", name) for name in catalogue()["failure"] if name.isdigit()}
    listed = {
        (page, name) for page, texts in catalogue().items() if page not in BY_NAME for name in texts
    }
    assert listed - used == set()


def test_names_of_the_wire_have_words() -> None:
    kinds = {
        record.model_fields["kind"].default
        for record in vars(records).values()
        if isinstance(record, type) and "kind" in getattr(record, "model_fields", {})
    }
    assert set(catalogue()["kinds"]) == kinds
    assert set(catalogue()["entries"]) == set(get_args(EntryKind))
    assert set(catalogue()["states"]) == set(get_args(SessionState))
    assert set(catalogue()["session"]["level_unknown"]) == set(get_args(SessionState))
    assert set(catalogue()["roles"]) >= set(tokens.ROLES)
    assert set(catalogue()["evidence"]) == set(get_args(checks.Place))
    assert set(catalogue()["desk_obstacles"]) == set(get_args(Obstacle))
    assert set(catalogue()["desk_examples"]) == set(get_args(ExampleKind))


def test_only_checks_that_are_made_are_explained() -> None:
    assert set(catalogue()["advice"]) | set(checks.PLACES) <= REQUIRED_CHECKS | OPTIONAL_CHECKS


@pytest.mark.parametrize("outcome", ["failed", "warning", "not_checked"])
def test_whatever_did_not_pass_comes_with_advice(outcome: FindingOutcome) -> None:
    for check in REQUIRED_CHECKS | OPTIONAL_CHECKS:
        finding = Finding(check=check, claim="c", outcome=outcome, detail="d")
        (explained,) = checks.explained(FakeSession(), [finding])
        assert explained.advice
        special = catalogue()["advice"].get(check, {})
        assert explained.advice == special.get(outcome, text("advice_for_any", outcome))


class FakeSession:
    """All that an explanation takes from a session."""

    id = "s"
    order_id = "o"
