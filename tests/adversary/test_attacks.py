"""Each forgery is caught, by one named check, and by nothing else that stands in its way."""

from dataclasses import replace
from datetime import timedelta

import pytest
from attacks import ATTACKS, Attack
from forge import GRANTED_AT, Evidence, Plot, crash, is_kind, is_step, stage

from auditkit.evidence import verify
from auditkit.evidence.bundle import Bundle
from auditkit.evidence.findings import run_check
from schemas import AssuranceLevel, CalibrationRecord, Finding, VerificationReport

NOT_DONE = {"image-verified", "replay"}
"""Checks that this verifier can't do: an honest session has them open."""

every_attack = pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)


def outcomes(report: VerificationReport, outcome: str) -> set[str]:
    return {finding.check for finding in report.findings if finding.outcome == outcome}


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
    ],
)
def test_honest_variants_hold_too(plot: Plot) -> None:
    report = stage(plot).report()
    assert outcomes(report, "failed") == set()
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
        assert outcomes(report, "not_checked") == NOT_DONE | attack.blinds


@every_attack
def test_without_its_check_the_forgery_would_pass(
    attack: Attack, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch_off(monkeypatch, attack.failing)
    report = stage(attack.plot).report()
    assert report.passed
    # Documents that can't be read leave nothing to check; a blinded check keeps level 0.
    blind = attack.check == "documents" or attack.blinds & verify.REQUIRED_CHECKS
    assert report.level == (AssuranceLevel.L0 if blind else AssuranceLevel.L1)


def test_batches_larger_than_the_pool_do_not_keep_the_verifier_busy(honest: Evidence) -> None:
    request = honest.bundle.request.replace(
        b'"external_batch_size":3', f'"external_batch_size":{2**53 - 1}'.encode()
    )
    report = Evidence(replace(honest.bundle, request=request), honest.trust_root).report()
    assert {"schedule", "equal-exposure"} <= outcomes(report, "not_checked")
    assert report.level == AssuranceLevel.L0


def test_every_check_has_an_attack(honest: Evidence) -> None:
    emitted = {finding.check for finding in honest.report().findings}
    assert emitted - NOT_DONE == {attack.check for attack in ATTACKS}


def test_attacks_have_different_names() -> None:
    names = [attack.name for attack in ATTACKS]
    assert len(set(names)) == len(names)


def test_nothing_readable_is_reported_as_such(honest: Evidence) -> None:
    empty = Bundle(b"", b"", b"", (), (), b"", b"")
    report = Evidence(empty, honest.trust_root).report()
    assert outcomes(report, "failed") == {"documents"}
    assert report.session_id == verify.UNKNOWN_SESSION
    assert report.level == AssuranceLevel.L0
