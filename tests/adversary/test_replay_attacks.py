"""Attacks on the replay: on the draw, on its result, and on who gets to see which of them."""

from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache

import pytest
from attacks import continued
from forge import (
    GRANTED_AT,
    ROLE_KEYS,
    STRANGER_KEY,
    Evidence,
    Plot,
    crash,
    digest_of,
    is_step,
    stage,
)
from registered import RegistryPlot, stage_registered
from replayed import ReplayPlot, Segments, replayed
from test_attacks import outcomes, switch_off

from auditkit.evidence.attestation import AttestationError, AttestedRun, attested_run
from auditkit.evidence.bundle import Bundle, read_bundle, write_bundle
from auditkit.evidence.registry_checks import RegisteredDocument
from auditkit.evidence.verify import verify_bundle
from schemas import (
    AssuranceLevel,
    Attestation,
    PartResult,
    ReplaySegment,
    SegmentResult,
    SessionRequest,
    VerificationReport,
)
from tests.evidence.contained import contained_run

OTHER = digest_of("something else")
WITHIN = {"outcome": "within_tolerance", "distance": 1e-6, "tolerance": 3e-6, "end_digest": OTHER}
WEAK = ReplayPlot(first=WITHIN, result={"grade": "weak"})
HONEST = ReplayPlot()
DIFFERS = ReplayPlot(
    first={"outcome": "differs", "end_digest": OTHER, "distance": 0.5, "first_differing_step": 3}
)
NOT_OPENED = ReplayPlot(
    first={
        "outcome": "not_opened",
        "start_digest": None,
        "end_digest": None,
        "moved": None,
        "steps": 0,
        "seconds": 0.0,
    }
)
FIRST_SEGMENT = ReplaySegment(first_state_step=0, last_state_step=2)
LAST_SEGMENT = ReplaySegment(first_state_step=10, last_state_step=12)


@dataclass(frozen=True)
class ReplayAttack:
    """One forgery of a replay, and the error that the check must give."""

    name: str
    error: str
    plot: Plot


def without(position: int) -> "Plot":
    """Two draws, of which one is kept out of the bundle; the first one went against the forger."""
    plot = replayed(DIFFERS, HONEST)

    def edit(bundle: Bundle) -> Bundle:
        shown = list(plot.bundle(bundle).replays)
        del shown[position]
        return replace(bundle, replays=tuple(shown))

    return replace(plot, bundle=edit)


def swapped(found: tuple[SegmentResult, ...]) -> tuple[SegmentResult, ...]:
    first, second, *others = found
    return (second, first, *others)


def rest(found: tuple[SegmentResult, ...]) -> tuple[SegmentResult, ...]:
    return found[1:]


def easy(drawn: Segments) -> Segments:
    return (FIRST_SEGMENT,) * len(drawn)


def without_the_last(drawn: Segments) -> Segments:
    return tuple(segment for segment in drawn if segment != LAST_SEGMENT)


ATTACKS = [
    # -- the draw
    ReplayAttack(
        "segments are drawn before the seal",
        "DrawTooEarlyError",
        replayed(ReplayPlot(draw={"drawn_at": GRANTED_AT + timedelta(seconds=11)})),
    ),
    ReplayAttack(
        "segments are drawn a second before the sealed log was cosigned",
        "DrawTooEarlyError",
        replayed(ReplayPlot(delay=-timedelta(seconds=1))),
    ),
    ReplayAttack(
        "the drawn segments are chosen, whatever the seed says",
        "DrawMismatchError",
        replayed(ReplayPlot(chosen=easy)),
    ),
    ReplayAttack(
        "the segment that ends in the sealed weights is left out of the draw",
        "DrawMismatchError",
        replayed(ReplayPlot(chosen=without_the_last)),
    ),
    ReplayAttack(
        "another seed is named after the segments are known",
        "DrawMismatchError",
        replayed(ReplayPlot(draw={"seed": OTHER})),
    ),
    ReplayAttack(
        "fewer segments are said to have been asked for",
        "DrawMismatchError",
        replayed(ReplayPlot(draw={"uniform": 1})),
    ),
    ReplayAttack(
        "the log makes up the move of a drawn segment that is executed with the same result",
        "FalseMoveError",
        replayed(ReplayPlot(first={"moved": 7.0})),
    ),
    ReplayAttack(
        "a draw of another session",
        "DrawMismatchError",
        replayed(ReplayPlot(draw={"session_id": "20260228-fedcba"})),
    ),
    ReplayAttack(
        "a draw for another seal",
        "DrawMismatchError",
        replayed(ReplayPlot(draw={"seal_digest": OTHER})),
    ),
    ReplayAttack(
        "a draw for a shorter log", "DrawMismatchError", replayed(ReplayPlot(draw={"log_size": 5}))
    ),
    ReplayAttack(
        "a draw for a fork of the log",
        "DrawMismatchError",
        replayed(ReplayPlot(draw={"log_root": OTHER})),
    ),
    ReplayAttack(
        "the developer signs the draw",
        "ReplayUnsignedError",
        replayed(ReplayPlot(draw_key=STRANGER_KEY)),
    ),
    ReplayAttack(
        "a key of another role signs the draw",
        "ReplayUnsignedError",
        replayed(ReplayPlot(draw_key=ROLE_KEYS["verdict"])),
    ),
    # -- the result
    ReplayAttack(
        "the developer signs the result",
        "ReplayUnsignedError",
        replayed(ReplayPlot(result_key=STRANGER_KEY)),
    ),
    ReplayAttack(
        "a key of another role signs the result",
        "ReplayUnsignedError",
        replayed(ReplayPlot(result_key=ROLE_KEYS["session"])),
    ),
    ReplayAttack(
        "the result is of another draw",
        "ResultMismatchError",
        replayed(ReplayPlot(result={"draw_digest": OTHER})),
    ),
    ReplayAttack(
        "the result is of another session",
        "ResultMismatchError",
        replayed(ReplayPlot(result={"session_id": "20260228-fedcba"})),
    ),
    ReplayAttack(
        "another image was executed",
        "ResultMismatchError",
        replayed(ReplayPlot(result={"image_digest": OTHER})),
    ),
    ReplayAttack(
        "it was executed outside the image",
        "ResultMismatchError",
        replayed(ReplayPlot(result={"mode": "process"})),
    ),
    ReplayAttack(
        "the result is silent about a drawn segment",
        "SegmentMissingError",
        replayed(ReplayPlot(segments=rest)),
    ),
    ReplayAttack(
        "outcomes are given to other segments",
        "SegmentMissingError",
        replayed(ReplayPlot(segments=swapped)),
    ),
    ReplayAttack(
        "a segment does not start where the one before it ended",
        "SegmentChainError",
        replayed(ReplayPlot(first={"start_digest": OTHER})),
    ),
    ReplayAttack(
        "a segment does not end where the next one starts",
        "SegmentChainError",
        replayed(ReplayPlot(first={"end_digest": OTHER})),
    ),
    ReplayAttack(
        "only the first step of a segment was executed",
        "OutcomeError",
        replayed(ReplayPlot(first={"steps": 1})),
    ),
    ReplayAttack(
        "a weak result is sold as strong", "ReplayGradeError", replayed(ReplayPlot(first=WITHIN))
    ),
    ReplayAttack(
        "weak scores are sold as strong",
        "ReplayGradeError",
        replayed(
            ReplayPlot(
                result={
                    "scores": PartResult(
                        outcome="within_tolerance", digest=OTHER, distance=1.0, tolerance=2.0
                    )
                }
            )
        ),
    ),
    ReplayAttack(
        "a forgery is called honest noise",
        "OutcomeError",
        replayed(replace(WEAK, first={**WITHIN, "distance": 1e-5})),
    ),
    ReplayAttack(
        "nobody measured the honest noise",
        "OutcomeError",
        replayed(replace(WEAK, first={**WITHIN, "tolerance": None})),
    ),
    ReplayAttack(
        "a tolerance is stretched over a long segment",
        "ToleranceTooLongError",
        replayed(WEAK, interval=6),
    ),
    ReplayAttack(
        "exact scores are claimed that were not sealed",
        "OutcomeError",
        replayed(ReplayPlot(result={"scores": PartResult(outcome="exact", digest=OTHER)})),
    ),
    ReplayAttack(
        "exact initial weights are claimed that the log does not have",
        "OutcomeError",
        replayed(ReplayPlot(result={"initialisation": PartResult(outcome="exact", digest=OTHER)})),
    ),
    # -- what a replay finds out
    ReplayAttack("a segment was forged", "SegmentDiffersError", replayed(DIFFERS)),
    ReplayAttack("a segment is not opened", "SegmentNotOpenedError", replayed(NOT_OPENED)),
    ReplayAttack(
        "the training began from weights of the developer's choice",
        "InitialisationDiffersError",
        replayed(
            ReplayPlot(result={"initialisation": PartResult(outcome="differs", digest=OTHER)})
        ),
    ),
    ReplayAttack(
        "the sealed scores are not the model's",
        "ScoresDifferError",
        replayed(ReplayPlot(result={"scores": PartResult(outcome="differs", digest=OTHER)})),
    ),
    # -- who gets to see what
    ReplayAttack(
        "a failed replay is followed by one that holds",
        "SegmentDiffersError",
        replayed(DIFFERS, HONEST),
    ),
    ReplayAttack(
        "a replay that holds is followed by one that does not",
        "SegmentNotOpenedError",
        replayed(HONEST, NOT_OPENED),
    ),
    ReplayAttack("a failed replay is kept out of the bundle", "DrawMissingError", without(0)),
]

NAMED = {attack.name: attack for attack in ATTACKS}

every_attack = pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)


@cache
def staged(name: str) -> Evidence:
    return stage(NAMED[name].plot)


@cache
def staged_honest() -> Evidence:
    return stage(replayed(HONEST))


def finding_of(report: VerificationReport, check: str = "replay") -> tuple[str, str, str | None]:
    found = next(finding for finding in report.findings if finding.check == check)
    return found.outcome, found.detail, found.error


@every_attack
def test_exactly_the_replay_check_catches(attack: ReplayAttack) -> None:
    report = staged(attack.name).report()
    assert outcomes(report, "failed") == {"replay"}
    assert finding_of(report)[2] == attack.error
    assert report.level == AssuranceLevel.L0
    assert report.detection is None


@every_attack
def test_without_the_replay_check_the_forgery_would_pass(
    attack: ReplayAttack, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch_off(monkeypatch, {"replay"})
    report = staged(attack.name).report()
    assert report.passed
    assert report.level == AssuranceLevel.L3


def test_attacks_have_different_names() -> None:
    assert len(NAMED) == len(ATTACKS)


# -- honest replays ----------------------------------------------------------------------------


def test_an_honest_replay_reaches_level_3_and_says_what_it_would_have_found() -> None:
    report = stage(replayed(HONEST)).report()
    assert outcomes(report, "failed") == outcomes(report, "warning") == set()
    assert report.level == AssuranceLevel.L3
    assert report.detection is not None
    assert (report.detection.grade, report.detection.segments) == ("strong", 6)
    assert (report.detection.uniform, report.detection.executed) == (2, 4)
    one_percent = report.detection.escapes[0]
    assert one_percent.forged_segments == 1  # the fewest that make up 1 % of six
    assert one_percent.escape == pytest.approx(4 / 6)


def test_two_honest_replays_make_each_other_stronger() -> None:
    once, twice = (stage(replayed(*[HONEST] * count)).report().detection for count in (1, 2))
    assert once is not None
    assert twice is not None
    assert twice.escapes[0].escape == pytest.approx(once.escapes[0].escape ** 2)


def test_a_weak_replay_is_called_weak() -> None:
    report = stage(replayed(WEAK)).report()
    outcome, detail, _ = finding_of(report)
    assert (outcome, report.level) == ("warning", AssuranceLevel.L3)
    assert "weak" in detail
    assert report.detection is not None
    assert report.detection.grade == "weak"


def test_a_replay_of_a_resumed_training_leaves_out_what_was_thrown_away() -> None:
    plot = replayed(HONEST, story=(crash(is_step(7), 4),))
    report = stage(plot).report()
    assert outcomes(report, "failed") == set()
    assert report.level == AssuranceLevel.L3


def test_a_replay_outside_a_container_does_not_make_up_for_the_image() -> None:
    report = stage(replace(replayed(HONEST), container=None)).report()
    assert finding_of(report)[0] == "passed"
    assert report.level == AssuranceLevel.L1


def test_a_replay_rebuilds_the_initial_weights_where_the_verifier_can_not() -> None:
    evidence = stage(replayed(HONEST))
    assert evidence.report(rebuild=False).level == AssuranceLevel.L3
    unchecked = {"initialisation": PartResult(outcome="not_checked", digest=None)}
    evidence = stage(replayed(ReplayPlot(result=unchecked)))
    assert evidence.report().level == AssuranceLevel.L3
    report = evidence.report(rebuild=False)
    assert finding_of(report)[0] == "not_checked"
    assert report.level == AssuranceLevel.L2


def test_scores_that_no_replay_covered_keep_the_level_down() -> None:
    unchecked = {"scores": PartResult(outcome="not_checked", digest=None)}
    report = stage(replayed(ReplayPlot(result=unchecked))).report()
    assert finding_of(report)[:2] == ("not_checked", "no replay covered the calibration scores")
    assert report.level == AssuranceLevel.L2


@pytest.mark.parametrize("unanswered", [0, 1])
def test_a_draw_without_result_keeps_the_level_down(unanswered: int) -> None:
    """Whoever hides the result of a failed replay does not reach level 3 with a second draw."""
    plots = [HONEST, HONEST]
    plots[unanswered] = ReplayPlot(result=None)
    report = stage(replayed(*plots)).report()
    assert finding_of(report)[0] == "not_checked"
    assert report.level == AssuranceLevel.L2
    assert report.detection is None


def test_replays_travel_in_the_bundle() -> None:
    evidence = stage(replayed(HONEST, HONEST))
    bundle = read_bundle(write_bundle(evidence.bundle))
    assert bundle.replays == evidence.bundle.replays
    assert replace(evidence, bundle=bundle).report().level == AssuranceLevel.L3


@pytest.mark.parametrize("part", ["draw", "result"])
def test_one_changed_byte_voids_a_replay(part: str) -> None:
    evidence = staged_honest()
    (replay,) = evidence.bundle.replays
    data = replay.draw if part == "draw" else replay.result or b""
    for place in (0, len(data) // 3, len(data) // 2, len(data) - 1):
        spoilt = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        shown = replace(replay, **{part: spoilt})
        bundle = replace(evidence.bundle, replays=(shown,))
        report = replace(evidence, bundle=bundle).report()
        assert outcomes(report, "failed") == {"replay"}, place


# -- with the registry -------------------------------------------------------------------------


def draw_first(documents: list[RegisteredDocument]) -> list[RegisteredDocument]:
    return sorted(documents, key=lambda document: document.kind != "draw")


def test_an_honest_replay_is_registered() -> None:
    evidence = stage_registered(RegistryPlot(), stage(replayed(HONEST)))
    report = evidence.report()
    assert outcomes(report, "failed") == set()
    assert report.level == AssuranceLevel.L3


def test_the_registry_shows_a_draw_that_was_made_before_the_seal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plot = RegistryPlot(summary=None, documents=draw_first)
    report = stage_registered(plot, stage(replayed(HONEST))).report()
    assert outcomes(report, "failed") == {"replay"}
    assert finding_of(report)[2] == "DrawTooEarlyError"
    switch_off(monkeypatch, {"replay"})
    assert stage_registered(plot, stage(replayed(HONEST))).report().level == AssuranceLevel.L3


def test_the_registry_shows_a_result_that_was_left_out() -> None:
    def hide(evidence: Evidence) -> Evidence:
        shown = tuple(replace(found, result=None) for found in evidence.bundle.replays)
        return replace(evidence, bundle=replace(evidence.bundle, replays=shown))

    plot = RegistryPlot(summary=None, evidence=hide)
    report = stage_registered(plot, stage(replayed(DIFFERS))).report()
    assert outcomes(report, "failed") == {"registered"}
    assert finding_of(report, "registered")[2] == "DocumentLeftOutError"


# -- attested hardware -------------------------------------------------------------------------


class RecordedQuotes:
    """A verifier for tests: a quote is the report data in hexadecimal, and nobody signs it."""

    def verify(self, attestation: Attestation, run: AttestedRun) -> str:
        if bytes.fromhex(attestation.evidence) != run.report_data:
            raise AttestationError("the quote is about another run")
        return "recorded hardware"


def attested(plot: Plot, kind: str, evidence: str | None = None) -> Plot:
    """Let the session carry a quote; None: the right one."""

    def quoted(data: bytes) -> bytes:
        request = SessionRequest.from_bytes(data)
        quote = attested_run(request).report_data.hex() if evidence is None else evidence
        return data.replace(b'"attestation":null', _as_json(kind, quote))

    return replace(plot, request_bytes=quoted)


def _as_json(kind: str, quote: str) -> bytes:
    return f'"attestation":{{"evidence":"{quote}","kind":"{kind}"}}'.encode()


def judged(plot: Plot, *kinds: str) -> VerificationReport:
    evidence = stage(plot)
    return verify_bundle(
        evidence.bundle,
        evidence.trust_root,
        now=GRANTED_AT + timedelta(days=30),
        attestation_verifiers={kind: RecordedQuotes() for kind in kinds},
    )


def test_attested_hardware_that_a_plug_in_believes_reaches_level_4() -> None:
    report = judged(attested(replayed(HONEST), "recorded"), "recorded")
    assert finding_of(report, "hardware-attested")[:2] == ("passed", "recorded: recorded hardware")
    assert report.level == AssuranceLevel.L4


def test_attested_hardware_does_not_make_up_for_a_replay() -> None:
    plot = Plot(container=contained_run(), verdicts=())
    assert judged(attested(plot, "recorded"), "recorded").level == AssuranceLevel.L2


@pytest.mark.parametrize("quote", [OTHER, "not a quote at all"], ids=["another run", "garbage"])
def test_a_quote_of_another_run_is_caught(monkeypatch: pytest.MonkeyPatch, quote: str) -> None:
    plot = attested(replayed(HONEST), "recorded", quote)
    report = judged(plot, "recorded")
    assert outcomes(report, "failed") == {"hardware-attested"}
    assert finding_of(report, "hardware-attested")[2] == "AttestationError"
    assert report.level == AssuranceLevel.L0
    switch_off(monkeypatch, {"hardware-attested"})
    assert judged(plot, "recorded").level == AssuranceLevel.L4


def test_a_quote_that_nobody_here_can_read_raises_no_level() -> None:
    report = judged(attested(replayed(HONEST), "unheard-of"), "recorded")
    outcome, detail, _ = finding_of(report, "hardware-attested")
    assert outcome == "not_checked"
    assert "'unheard-of'" in detail
    assert "known: recorded" in detail
    assert report.level == AssuranceLevel.L3
    assert finding_of(judged(replayed(HONEST), "recorded"), "hardware-attested")[0] == "not_checked"


def test_a_quote_says_nothing_of_a_further_container() -> None:
    report = judged(attested(continued(), "recorded"), "recorded")
    outcome, detail, _ = finding_of(report, "hardware-attested")
    assert outcome == "not_checked"
    assert "further container" in detail
