"""Each forgery is caught, by one named check, and by nothing else that stands in its way."""

from dataclasses import replace
from datetime import timedelta

import pytest
from attacks import (
    ATTACKS,
    BLIND,
    ORDERED_KEY,
    Attack,
    coded,
    continued,
    continued_twice,
    signed_by,
)
from forge import (
    CODE_SECRET,
    CONTAINER_KEYS,
    GRANTED_AT,
    ContinuationPlot,
    Evidence,
    Plot,
    crash,
    is_kind,
    is_step,
    stage,
)

from auditkit.evidence import verify
from auditkit.evidence.bundle import Bundle
from auditkit.evidence.findings import run_check
from schemas import (
    AssuranceLevel,
    CalibrationRecord,
    Finding,
    GrantRecord,
    ResumeRecord,
    VerificationReport,
)
from tests.evidence.contained import contained_run

ELSEWHERE = {
    "checkpoints-witnessed",
    "replay",
    "hardware-attested",
    "registered",
    "verification-summaries",
}
"""Checks that no session here gives occasion for; their attacks have files of their own."""

NOT_DONE = {"image-verified", *ELSEWHERE}
"""Checks that an honest session outside a container has open."""

every_attack = pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)


def outcomes(report: VerificationReport, outcome: str) -> set[str]:
    return {finding.check for finding in report.findings if finding.outcome == outcome}


def open_checks(plot: Plot) -> set[str]:
    """Checks that can't be done about such a session, however honest it is."""
    return NOT_DONE if plot.container is None else ELSEWHERE


def switch_off(monkeypatch: pytest.MonkeyPatch, names: set[str]) -> None:
    """Let the verifier run as if these checks always held."""

    def lenient(name: str, claim: str, check: object) -> Finding:
        finding = run_check(name, claim, check)  # type: ignore[arg-type]
        if name in names and finding.outcome == "failed":
            return finding.model_copy(update={"outcome": "passed", "error": None})
        return finding

    monkeypatch.setattr(verify, "run_check", lenient)


def test_an_honest_session_reaches_level_1(honest: Evidence) -> None:
    report = honest.report()
    assert outcomes(report, "failed") == set()
    assert outcomes(report, "not_checked") == NOT_DONE
    assert report.level == AssuranceLevel.L1


@pytest.mark.parametrize(
    "plot",
    [
        Plot(story=(crash(is_step(7), 5),)),
        Plot(story=(crash(is_step(11), 10), crash(is_step(7), 5))),
        Plot(story=(crash(is_step(3), 0),)),
        Plot(story=(crash(is_kind(CalibrationRecord), 12),)),
        Plot(segment_records=1),
        Plot(segment_records=100),
        Plot(config={"epochs": 1}),
        Plot(config={"batch_size": 14}),
        Plot(config={"state_interval_steps": 4}),
        Plot(
            order={"most_session_hours": 0.1234567891},
            grant={"valid_until": GRANTED_AT + timedelta(hours=0.1234567891)},
        ),
        Plot(verdicts=()),
        coded(),
        coded(code_secret=CODE_SECRET),
    ],
    ids=[
        "resumed",
        "resumed twice",
        "resumed from the start",
        "resumed between calibration and seal",
        "a checkpoint for each record",
        "one checkpoint",
        "one epoch",
        "one step per epoch",
        "states at epoch ends",
        "a session of an odd length",
        "no query yet",
        "membership codes",
        "membership codes, their secret disclosed",
    ],
)
def test_honest_variants_hold_too(plot: Plot) -> None:
    report = stage(plot).report()
    assert outcomes(report, "failed") == set()
    assert report.level == AssuranceLevel.L1


def test_sealed_code_scores_are_unchecked_until_a_member_is_opened() -> None:
    findings = {f.check: f for f in stage(coded(BLIND)).report().findings}
    assert findings["codes-carried"].outcome == "not_checked"
    findings = {f.check: f for f in stage(coded()).report().findings}
    assert findings["codes-carried"].detail.startswith("1 opened")


AT_THE_START = is_kind(GrantRecord)
RESUMED = is_kind(ResumeRecord)


@pytest.mark.parametrize(
    ("plot", "containers"),
    [
        (Plot(container=contained_run()), "1 container "),
        (signed_by(ORDERED_KEY), "1 container "),
        (continued(), "2 containers "),
        (continued(plot={"segment_records": 1}), "2 containers "),
        (continued(before=AT_THE_START), "2 containers "),
        (
            Plot(
                container=contained_run(),
                story=(crash(is_step(11), 10), crash(is_step(7), 5)),
                continuations=(
                    ContinuationPlot(before=AT_THE_START, key=CONTAINER_KEYS[0]),
                    ContinuationPlot(before=RESUMED, key=CONTAINER_KEYS[1]),
                    ContinuationPlot(before=RESUMED, key=CONTAINER_KEYS[2]),
                ),
            ),
            "4 containers ",
        ),
        *(
            (
                Plot(
                    container=contained_run(),
                    story=(crash(is_step(7), 5),),
                    continuations=(
                        ContinuationPlot(before=where, key=CONTAINER_KEYS[0], named=named),
                        ContinuationPlot(before=where, key=CONTAINER_KEYS[1]),
                    ),
                ),
                "3 containers ",
            )
            for where in (AT_THE_START, RESUMED)
            for named in (True, False)
        ),
        (continued_twice(), "3 containers "),
    ],
    ids=[
        "one container",
        "an image that a trusted key has signed",
        "a second container",
        "a second container, a checkpoint for each record",
        "a second container before anything was acknowledged",
        "four containers, one of them from the start",
        "a second container at the start that died before it wrote, named",
        "a second container at the start that died before it wrote, not named",
        "a second container that died before it wrote, named",
        "a second container that died before it wrote, not named",
        "three containers",
    ],
)
def test_an_honest_run_in_closed_containers_reaches_level_2(plot: Plot, containers: str) -> None:
    report = stage(plot).report()
    assert outcomes(report, "failed") == set()
    assert outcomes(report, "warning") == set()
    assert outcomes(report, "not_checked") == ELSEWHERE
    assert report.level == AssuranceLevel.L2
    details = {finding.check: finding.detail for finding in report.findings}
    assert containers in details["image-verified"]
    assert "Docker Engine 20.10.24" in details["image-verified"]


def test_a_run_outside_a_container_stays_at_level_1_where_an_image_is_ordered() -> None:
    report = stage(Plot(order={"images": ("1a" * 32,)})).report()
    assert outcomes(report, "not_checked") == NOT_DONE
    assert report.level == AssuranceLevel.L1


def test_a_single_crash_is_told_in_the_singular() -> None:
    findings = {
        f.check: f.detail for f in stage(Plot(story=(crash(is_step(7), 5),))).report().findings
    }
    assert findings["log-complete"].endswith("resumed once after a crash")
    twice = stage(Plot(story=(crash(is_step(11), 10), crash(is_step(7), 5)))).report()
    assert any("resumed 2 times after a crash" in finding.detail for finding in twice.findings)


def test_a_log_without_interlock_is_not_said_to_have_one() -> None:
    report = stage(Plot(segment_records=100)).report()
    assert outcomes(report, "warning") == {"receipt-interlock"}


def test_a_late_bulk_upload_is_a_warning_and_not_a_forgery() -> None:
    hour = 3600
    report = stage(
        Plot(segment_records=100, cosigned_at=lambda _number, seconds: seconds + hour)
    ).report()
    assert outcomes(report, "warning") == {"times-possible", "receipt-interlock"}
    assert outcomes(report, "failed") == set()
    assert report.level == AssuranceLevel.L1


def test_initial_weights_that_nobody_rebuilt_are_not_claimed(honest: Evidence) -> None:
    report = honest.report(rebuild=False)
    assert outcomes(report, "not_checked") == {*NOT_DONE, "initial-weights"}


@every_attack
def test_exactly_the_named_check_catches(attack: Attack) -> None:
    report = stage(attack.plot).report()
    assert outcomes(report, "failed") == attack.failing
    assert report.level == AssuranceLevel.L0
    assert {f.check: f.error for f in report.findings}[attack.check] == attack.error
    if attack.check != "documents":
        assert outcomes(report, "not_checked") == open_checks(attack.plot) | attack.blinds


@every_attack
def test_without_its_check_the_forgery_would_pass(
    attack: Attack, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch_off(monkeypatch, attack.failing)
    report = stage(attack.plot).report()
    assert report.passed
    # Documents that can't be read leave nothing to check; a blinded check keeps level 0.
    blind = attack.check == "documents" or attack.blinds & verify.REQUIRED_CHECKS
    reached = AssuranceLevel.L1 if attack.plot.container is None else AssuranceLevel.L2
    assert report.level == (AssuranceLevel.L0 if blind else reached)


def test_batches_larger_than_the_pool_do_not_keep_the_verifier_busy(honest: Evidence) -> None:
    request = honest.bundle.request.replace(
        b'"external_batch_size":3', f'"external_batch_size":{2**53 - 1}'.encode()
    )
    report = Evidence(replace(honest.bundle, request=request), honest.trust_root).report()
    assert {"schedule", "equal-exposure"} <= outcomes(report, "not_checked")
    assert report.level == AssuranceLevel.L0


def test_attacks_have_different_names() -> None:
    names = [attack.name for attack in ATTACKS]
    assert len(set(names)) == len(names)


def test_nothing_readable_is_reported_as_such(honest: Evidence) -> None:
    empty = Bundle(b"", b"", b"", (), (), b"", b"")
    report = Evidence(empty, honest.trust_root).report()
    assert outcomes(report, "failed") == {"documents"}
    assert report.session_id == verify.UNKNOWN_SESSION
    assert report.level == AssuranceLevel.L0
