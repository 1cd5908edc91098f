"""Level L3 is never shown without what its replay could have missed."""

from dataclasses import replace

import pytest
from report_page import found, page, with_findings

from auditkit.reports.content import ReportInput
from schemas import AssuranceLevel, DetectionProbability, EscapeProbability
from schemas.replay import ReplayGrade

CHECKS = ("image-verified", "initial-weights", "replay")


def detection(grade: ReplayGrade) -> DetectionProbability:
    return DetectionProbability(
        grade=grade,
        segments=200,
        uniform=20,
        executed=23,
        escapes=(
            EscapeProbability(
                extent=0.01, of="segments", forged_segments=2, escape=0.8095, bound=0.8179
            ),
            EscapeProbability(
                extent=0.005, of="steps", forged_segments=50, escape=0.0025, bound=0.0032
            ),
        ),
    )


def at_level_3(report: ReportInput, grade: ReplayGrade) -> ReportInput:
    outcome = "passed" if grade == "strong" else "warning"
    others = (found(check, "passed") for check in CHECKS[:2])
    level_3 = with_findings(report, AssuranceLevel.L3, *others, found("replay", outcome))
    verification = level_3.verification.model_copy(update={"detection": detection(grade)})
    return replace(level_3, verification=verification)


def test_the_page_says_what_the_replay_could_have_missed(contained_report: ReportInput) -> None:
    text = page(at_level_3(contained_report, "strong")).text
    assert "23 of 200 segments executed again, 20 drawn at random, graded strong" in text
    assert "81 % if it touches 1 % of the segments" in text
    assert "0.25 % if it touches one step in 200, spread evenly" in text
    assert "led to the weights that were logged. 23 of 200" in text


def test_a_weak_replay_is_called_weak_on_the_page(contained_report: ReportInput) -> None:
    text = page(at_level_3(contained_report, "weak")).text
    assert "graded weak" in text
    assert "which makes this weak evidence" in text


@pytest.mark.parametrize("level", [AssuranceLevel.L1, AssuranceLevel.L2])
def test_no_probability_stands_beside_a_level_that_rests_on_no_replay(
    contained_report: ReportInput, level: AssuranceLevel
) -> None:
    report = with_findings(contained_report, level, found("image-verified", "passed"))
    assert "executed again," not in page(report).text


def test_the_level_in_words_carries_the_probability(contained_report: ReportInput) -> None:
    told = at_level_3(contained_report, "strong").verification
    assert told.assurance.startswith("L3: complete log, verified image, and replay passed. 23 of")
    lower = told.model_copy(update={"level": AssuranceLevel.L2})
    assert "executed again" not in lower.assurance
