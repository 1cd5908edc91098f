"""The assurance level is computed from the findings, and absence is never taken for success."""

import pytest

from auditkit.evidence.verify import OPTIONAL_CHECKS, REQUIRED_CHECKS, assurance_level
from schemas import AssuranceLevel, Finding
from schemas.verification import FindingOutcome


def finding(check: str, outcome: FindingOutcome = "passed") -> Finding:
    return Finding(check=check, claim="it holds", outcome=outcome, detail="")


def findings(**outcomes: FindingOutcome) -> list[Finding]:
    """All required checks, passed unless said otherwise; `_` in a keyword stands for `-`."""
    told = {name.replace("_", "-"): outcome for name, outcome in outcomes.items()}
    everything: dict[str, FindingOutcome] = {**dict.fromkeys(REQUIRED_CHECKS, "passed"), **told}
    return [finding(check, outcome) for check, outcome in everything.items()]


def test_a_complete_log_is_level_1() -> None:
    assert assurance_level(findings()) == AssuranceLevel.L1


def test_a_warning_does_not_lower_the_level() -> None:
    assert assurance_level(findings(times_possible="warning")) == AssuranceLevel.L1


@pytest.mark.parametrize("check", sorted(REQUIRED_CHECKS))
def test_each_required_check_counts_failed_undone_or_absent(check: str) -> None:
    others = [found for found in findings() if found.check != check]
    assert assurance_level(others) == AssuranceLevel.L0
    for outcome in ("failed", "not_checked"):
        assert assurance_level([*others, finding(check, outcome)]) == AssuranceLevel.L0


@pytest.mark.parametrize("check", sorted(OPTIONAL_CHECKS))
def test_an_optional_check_may_be_left_undone_and_may_not_fail(check: str) -> None:
    assert assurance_level([*findings(), finding(check, "not_checked")]) == AssuranceLevel.L1
    assert assurance_level([*findings(), finding(check, "failed")]) == AssuranceLevel.L0


@pytest.mark.parametrize(
    ("done", "level"),
    [
        ({"image_verified": "passed"}, AssuranceLevel.L2),
        ({"replay": "passed", "hardware_attested": "passed"}, AssuranceLevel.L1),
        ({"image_verified": "passed", "hardware_attested": "passed"}, AssuranceLevel.L2),
        ({"image_verified": "passed", "replay": "passed"}, AssuranceLevel.L3),
        ({"image_verified": "passed", "replay": "warning"}, AssuranceLevel.L3),
        (
            {"image_verified": "passed", "replay": "passed", "hardware_attested": "passed"},
            AssuranceLevel.L4,
        ),
    ],
    ids=[
        "image",
        "replay without image",
        "hardware without replay",
        "replay",
        "weak replay",
        "everything",
    ],
)
def test_each_level_rests_on_those_below(
    done: dict[str, FindingOutcome], level: AssuranceLevel
) -> None:
    assert assurance_level(findings(**done)) == level


def test_nothing_found_proves_nothing() -> None:
    assert assurance_level([]) == AssuranceLevel.L0
