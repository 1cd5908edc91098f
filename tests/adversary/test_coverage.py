"""No check without an attack that needs it, no rule of the server without a test of it."""

import re
from functools import cache
from pathlib import Path

import pytest
from attacks import ATTACKS
from catalogue import Forgery, forgeries, rows
from elsewhere import NO_ATTACK, REFUSED_BY_SERVER
from familiar import FAMILIAR
from forge import Evidence
from test_attacks import switch_off
from test_registry_attacks import SHOWN_ATTACKS

from auditkit.evidence import monitoring, verify
from auditkit.evidence.document_checks import DOCUMENT_CHECKS
from auditor_server import errors
from auditor_server.errors import ServerError

TESTS = Path(__file__).parents[1]

BEHIND_ANOTHER = {"equal-exposure": {"schedule"}}
"""Checks whose attacks another check catches too, always: what they demand follows from it."""


@cache
def all_forgeries() -> tuple[Forgery, ...]:
    return tuple(forgeries())


def named_checks() -> list[str]:
    """Every check that the verifier's own lists name; see the test of completeness below."""
    listed = {check.name for check in (*DOCUMENT_CHECKS, *verify.LOG_CHECKS)}
    return sorted(listed | verify.REQUIRED_CHECKS | verify.OPTIONAL_CHECKS)


def forgery_against(check: str) -> Forgery:
    """The first attack that is caught by this check and, where there is one, by no other."""
    found = [forgery for forgery in all_forgeries() if forgery.check == check]
    assert found, f"nobody attacks {check}: add a forgery that only it catches"
    return min(found, key=lambda forgery: len(forgery.failing))


every_check = pytest.mark.parametrize("check", named_checks())


def test_these_are_all_checks_that_a_report_has(honest: Evidence) -> None:
    emitted = [finding.check for finding in honest.report().findings]
    assert sorted(emitted) == named_checks()
    assert {forgery.check for forgery in all_forgeries()} == set(named_checks())


@every_check
def test_the_suite_notices_a_check_that_is_switched_off(
    check: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    forgery = forgery_against(check)
    forgery.assert_caught()
    switch_off(monkeypatch, {check})
    with pytest.raises(AssertionError):
        forgery.assert_caught()


@every_check
def test_something_gets_through_when_exactly_this_check_is_off(
    check: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    forgery = forgery_against(check)
    assert forgery.failing == {check} | BEHIND_ANOTHER.get(check, set())
    switch_off(monkeypatch, {check})
    report = forgery.report()
    still = {finding.check for finding in report.findings if finding.outcome == "failed"}
    assert still == BEHIND_ANOTHER.get(check, set())
    assert report.passed == (not still)


def test_the_monitor_has_no_check_without_an_attack() -> None:
    checks = {name for name in vars(monitoring) if name.startswith("check_")}
    assert checks == {name for attack in SHOWN_ATTACKS for name in attack.checks}


def refusals() -> set[str]:
    """Names of all errors with which the server refuses what somebody else does."""
    return {
        name
        for name, kind in vars(errors).items()
        if isinstance(kind, type)
        and issubclass(kind, ServerError)
        and not kind.__subclasses__()
        and kind.status < 500
    }


def test_the_server_refuses_nothing_that_nobody_tries() -> None:
    tried = {error for _, error, _ in REFUSED_BY_SERVER}
    assert refusals() - tried - NO_ATTACK.keys() == set()
    assert NO_ATTACK.keys() & tried == set()
    assert NO_ATTACK.keys() <= refusals()


def source_of(test: str) -> tuple[str, str]:
    """The name of a test's function, and the text of its file."""
    path, function = test.split("::")
    return function, (TESTS / path).read_text()


def test_every_attack_is_carried_out_by_a_test_that_exists() -> None:
    for row in rows():
        function, source = source_of(row.test)
        assert re.search(rf"^def {function}\(", source, re.MULTILINE), row
        if not row.test.startswith("adversary/"):
            assert row.error in source, row


def test_attacks_have_different_names() -> None:
    names = [row.attack for row in rows()]
    assert len(set(names)) == len(names)


def test_what_comes_to_mind_first_is_carried_out_or_said_to_be_open() -> None:
    carried_out = {row.attack for row in rows()}
    for familiar in FAMILIAR:
        assert set(familiar.caught) <= carried_out, set(familiar.caught) - carried_out
        assert familiar.caught or familiar.remains, familiar.name


def test_forgeries_of_the_main_table_are_among_them() -> None:
    assert {attack.name for attack in ATTACKS} < {forgery.name for forgery in all_forgeries()}
