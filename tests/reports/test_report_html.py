"""The page that a compliance officer files: complete, honest, and inert."""

import re
from dataclasses import replace
from itertools import pairwise
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from report_page import Page, found, page, with_findings

from auditkit.mint.metrics import rate
from auditkit.reports import LogSummary, StepTrace, render_html
from auditkit.reports.content import QueriedSample
from auditkit.reports.html import NOMINAL_RATES as NOMINAL
from schemas import AssuranceLevel, FlaggedRate
from schemas.evaluation import PROVABLE_RATES


def test_the_page_names_the_parties_and_the_case(session_report):
    text = page(session_report).text
    for fact in (
        "Iris Diagnostics GmbH",
        "Authority for Algorithmic Oversight",
        "ses-4f1c",
        "ord-2026-014",
        "Which retinal images trained the screening model",
        "2\xa0March 2026".replace("\xa0", " "),
        "Assurance level: L1, complete, signed and cosigned log",
    ):
        assert fact in text


def test_every_finding_is_listed_with_its_outcome_in_words(session_report):
    html = render_html(session_report)
    rows = re.findall(r"<tr>\s*<td><span class=\"status.*?</tr>", html, re.DOTALL)
    assert len(rows) == len(session_report.verification.findings)
    words = {"passed": "Passed", "warning": "Warning", "not_checked": "Not checked"}
    for row, finding in zip(rows, session_report.verification.findings, strict=True):
        parsed = " ".join(re.sub(r"<[^>]*>", " ", row).split())
        assert parsed.startswith(words[finding.outcome])
        assert finding.check in parsed
        assert finding.detail in parsed


def test_the_standing_limits_are_always_stated(session_report, contained_report):
    best = with_findings(
        contained_report,
        AssuranceLevel.L3,
        *(found(check, "passed") for check in ("image-verified", "initial-weights", "replay")),
    )
    for report in (session_report, best):
        text = page(report).text
        assert "T knows what it was told, not what M was trained on" in text
        assert "a silent member looks like a stranger" in text
        assert "A developer with root on the host can attack the training from outside" in text
    assert "Replay was not performed" in page(session_report).text
    assert "The training did not run in a container" in page(session_report).text
    best_text = page(best).text
    assert "Replay was not performed" not in best_text
    assert "The container was not verified" not in best_text
    assert "The training did not run in a container" not in best_text
    assert "All 3 checks passed" in best_text


def test_a_failed_check_overrides_every_good_word(session_report):
    failed = with_findings(
        session_report,
        AssuranceLevel.L0,
        found("order-signed", "passed"),
        found("schedule", "failed", "step 17 used other samples", "ScheduleError"),
    )
    text = page(failed).text
    assert "The evidence does not hold together" in text
    assert "1 of the 2 checks that were made failed" in text
    assert "Error: ScheduleError" in text
    assert "step 17 used other samples" in text
    assert "Nothing that can be relied on" in text
    assert "The training was logged while it happened" not in text


def test_refuted_claims_come_first(session_report):
    report = with_findings(
        session_report,
        AssuranceLevel.L0,
        found("times-possible", "warning"),
        found("verdicts", "not_checked"),
        found("schedule", "failed"),
    )
    text = page(report).text.split("What was not proven")[1]
    positions = [text.index(lead) for lead in ("Refuted:", "With a warning:", "Not checked:")]
    assert positions == sorted(positions)


def test_level_zero_without_a_failure_is_not_called_holding(session_report):
    report = with_findings(
        session_report,
        AssuranceLevel.L0,
        found("order-signed", "passed"),
        found("sealed-weights", "not_checked", "no model was submitted"),
    )
    text = page(report).text
    assert "The evidence is not complete" in text
    assert "The evidence holds" not in text
    assert "Nothing that can be relied on" in text


def test_without_any_check_the_report_proves_nothing(session_report):
    text = page(with_findings(session_report, AssuranceLevel.L0)).text
    assert "Nothing was checked" in text
    assert "No check was made" in text


def test_an_unfinished_session_is_reported_as_unfinished(session_report):
    unfinished = replace(
        session_report,
        seal=None,
        calibration=None,
        evaluations=(),
        scores={},
        task_losses={},
        description=None,
        verdicts=(),
    )
    text = page(unfinished).text
    assert "The session is not complete" in text
    assert "Weights, description, scores not sealed" in text
    assert "The log holds no evaluation, so no error rate is known" in text
    assert "No sample has been asked about" in text
    assert "seal record" not in text
    assert "This log belongs to one model" not in text


def test_an_empty_log_is_reported_as_empty(session_report):
    nothing = np.empty(0)
    steps = nothing.astype(np.int64)
    empty = replace(
        session_report,
        start=None,
        seal=None,
        calibration=None,
        evaluations=(),
        scores={},
        task_losses={},
        steps=StepTrace(steps, steps, nothing, nothing, nothing, nothing),
        log=LogSummary(
            records=0,
            unreadable_records=0,
            checkpoints=0,
            states=0,
            first_record_ms=None,
            last_record_ms=None,
            longest_silence_seconds=None,
            last_cosigned_seconds=None,
            late_records=None,
        ),
    )
    text = page(empty).text
    assert "The log holds no training step" in text
    assert "Late records not determined" in text
    assert "as announced in the request" in text


def test_late_records_resumes_and_remarks_are_printed(session_report):
    report = replace(session_report, remarks=("The scores file was cut.",))
    text = page(report).text
    assert "37 (cosigned more than 1 min after they were written)" in text
    assert "resumed at step 500, 42 steps done anew" in text
    assert "The scores file was cut." in text


def test_error_rates_stand_with_their_intervals_and_sources(session_report):
    text = page(session_report).text
    told = next(c for c in session_report.evaluation.cohorts if c.cohort == "told")
    one_percent = told.flagged[1].flagged
    assert f"{100 * one_percent.value:.1f} % [{100 * one_percent.low:.1f}, " in text
    for name in ("told", "silent", "told only", "external", "calibration", "test"):
        assert f"{name} (n = " in text
    assert "evaluation record, number 1420" in text
    assert "calibration record, number 1421" in text
    assert "seal record, number 1422" in text
    assert "auditkit verify evidence.bundle --trust-root trust-root.json" in text
    assert "--state mark.json --bundle evidence.bundle" in text


def test_no_false_alarm_among_few_does_not_make_member_always_right(session_report):
    flagged = {
        "told": tuple(FlaggedRate(false_positive_rate=r, flagged=rate(100, 500)) for r in NOMINAL),
        "test": tuple(FlaggedRate(false_positive_rate=r, flagged=rate(0, 300)) for r in NOMINAL),
    }
    cohorts = tuple(
        cohort.model_copy(update={"flagged": flagged.get(cohort.cohort, cohort.flagged)})
        for cohort in session_report.evaluation.cohorts
    )
    evaluation = session_report.evaluation.model_copy(update={"cohorts": cohorts})
    text = page(replace(session_report, evaluations=(evaluation,))).text
    table = text[text.index("Positive predictive value") :]
    # A prior of 1 %, from the ends: told [16.6, 23.8] %, fresh [0, 1.2] %.
    low, high = rate(100, 500).low, rate(0, 300).high
    worst = 0.01 * low / (0.01 * low + 0.99 * high)
    assert f"{100 * worst:.1f} % to 100 %" in table


def test_verdicts_are_put_in_plain_words(session_report):
    text = page(session_report).text
    assert "IMG_2041.jpg" in text
    assert "disclosed as: told only" in text
    assert text.count("Recognised: told to the MINT Model as a member") == 2
    assert text.count("Not recognised: no evidence that it was told to the MINT Model") == 2
    assert f"{1:064x}" in text


def test_without_codes_nothing_is_said_of_them(session_report):
    text = page(session_report).text
    assert "own membership code" not in text
    assert "list of hashes" not in text
    assert "Score against calibration: the p-value is the rank" in text


def test_the_page_says_what_a_verdict_rests_on_and_what_codes_add(session_report):
    everybody, nobody = (
        tuple(
            FlaggedRate(false_positive_rate=nominal, flagged=rate(hits, 100))
            for nominal in PROVABLE_RATES
        )
        for hits in (100, 0)
    )
    cohorts = tuple(
        cohort.model_copy(update={"own_code": everybody if cohort.cohort == "told" else nobody})
        for cohort in session_report.evaluation.cohorts
    )
    own = session_report.verdicts[0].verdict.model_copy(
        update={"evidence": "declared", "code_index": 1234, "p_value": 2e-30}
    )
    report = replace(
        session_report,
        evaluations=(session_report.evaluation.model_copy(update={"cohorts": cohorts}),),
        verdicts=(*session_report.verdicts, QueriedSample(own)),
    )
    text = page(report).text
    assert "own membership code, provable, code of sample 1,234" in text
    assert "2 × 10⁻³⁰" in text
    assert "the p-value is a proven bound" in text
    assert "Members can be told by their own codes." in text
    assert "100 % of the samples told as members agree with their own code" in text
    assert "At a provable 0.000001" in text
    assert "What membership codes add to a list of hashes." in text


def test_a_failed_check_of_verdicts_is_said_beside_them(session_report):
    report = with_findings(
        session_report, AssuranceLevel.L0, found("verdicts", "failed", "verdict-2 says p = 0.9")
    )
    assert "The check of the verdicts failed: verdict-2 says p = 0.9" in page(report).text


@pytest.mark.parametrize(
    "hostile",
    [
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "</style><iframe src='https://evil.example'>",
        "{{ 7 * 7 }}{% raw %}",
    ],
)
def test_hostile_text_stays_text(session_report, hostile):
    first = replace(session_report.verdicts[0], label=hostile)
    report = replace(
        session_report,
        auditor=hostile,
        order=session_report.order.model_copy(update={"purpose": hostile}),
        request=session_report.request.model_copy(update={"developer": hostile}),
        description=session_report.description.model_copy(update={"class_names": (hostile,)}),
        verdicts=(first,),
        remarks=(hostile,),
    )
    report = with_findings(report, AssuranceLevel.L0, found("schedule", "failed", hostile, hostile))
    clean, attacked = page(session_report), page(report)
    assert attacked.text.count(" ".join(hostile.split())) >= 7
    assert {tag for tag, _ in attacked.elements} <= {tag for tag, _ in clean.elements} | {"strong"}
    assert not any(
        name.startswith("on") for _, attributes in attacked.elements for name in attributes
    )


def test_the_page_loads_nothing_and_says_so_to_the_browser(session_report):
    html = render_html(session_report)
    parsed = Page(html)
    policies = [m for m in parsed.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert [p["content"] for p in policies] == [
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    ]
    tags = {tag for tag, _ in parsed.elements}
    assert not tags & {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
    for _, attributes in parsed.elements:
        assert "src" not in attributes
        assert (attributes.get("href") or "#").startswith("#")
    assert "://" not in html
    assert "@import" not in html
    assert "url(" not in html


def test_the_page_can_be_read_without_seeing_it(session_report):
    html = render_html(session_report)
    parsed = Page(html)
    assert parsed.all("html") == [{"lang": "en"}]
    levels = [int(tag[1]) for tag, _ in parsed.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    identifiers = [a["id"] for _, a in parsed.elements if "id" in a]
    assert len(identifiers) == len(set(identifiers))
    for _, attributes in parsed.elements:
        for target in (attributes.get("aria-labelledby") or "").split():
            assert target in identifiers
    links = [a["href"] for a in parsed.all("a")]
    assert {link.removeprefix("#") for link in links} <= set(identifiers)
    assert len(parsed.all("caption")) == len(parsed.all("table"))
    assert all("scope" in attributes for attributes in parsed.all("th"))


def test_every_chart_is_well_formed_and_described(session_report):
    html = render_html(session_report)
    charts = re.findall(r'<svg [^>]*role="img".*?</svg>', html, re.DOTALL)
    assert len(charts) == 2 + 6 + 1
    for chart in charts:
        root = ET.fromstring(chart)
        assert len(root.findtext("title")) > 10
        assert re.search(r"\d", root.findtext("desc"))


def test_forged_numbers_do_not_break_the_page(session_report):
    trace = session_report.steps
    forged = replace(
        session_report,
        steps=replace(
            trace,
            step=trace.step[::-1],
            task_loss=np.full(len(trace), 1.7e308),
            mint_loss=np.full(len(trace), -1.7e308),
        ),
        scores={
            "told": np.asarray([3.4e38, -3.4e38]),
            "calibration": np.zeros(3),
            "test": np.empty(0),
        },
        task_losses={"told": np.ones(2), "test": np.empty(0)},
    )
    html = render_html(forged)
    Page(html)
    for chart in re.findall(r'<svg [^>]*role="img".*?</svg>', html, re.DOTALL):
        root = ET.fromstring(chart)
        for line in root.findall("polyline"):
            assert not re.search("nan|inf", line.get("points"))


def test_a_thousand_class_names_do_not_flood_the_page(session_report):
    names = tuple(f"species {number}" for number in range(1000))
    description = session_report.description.model_copy(update={"class_names": names})
    text = page(replace(session_report, description=description)).text
    assert "species 19 and 980 more" in text
    assert "species 20" not in text


def _luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def _contrast(one: str, other: str) -> float:
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_text_contrasts_with_its_background(session_report):
    html = render_html(session_report)
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", html))
    for text in ("ink", "muted", "accent", "good", "reserved", "bad"):
        for background in ("#ffffff", colours["soft"]):
            assert _contrast(colours[text], background) >= 4.5
    for tone in ("good", "reserved", "bad"):
        assert _contrast(colours[tone], colours[f"{tone}-soft"]) >= 4.5
    for stroke in set(re.findall(r'<polyline[^>]*stroke="(#[0-9a-f]{6})"', html)):
        assert _contrast(stroke, "#ffffff") >= 4.5


def test_equal_input_gives_equal_bytes_and_a_light_page(session_report):
    once = render_html(session_report).encode()
    shuffled = replace(session_report, scores=dict(reversed(session_report.scores.items())))
    assert render_html(shuffled).encode() == once
    assert len(once) < 150_000
