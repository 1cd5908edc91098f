"""The words and the document of an answer: nothing claimed that the verdict does not say."""

import io
import math
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from pypdf import PdfReader

from auditkit.reports import answers
from auditkit.reports.answer_pdf import answer_pdf, batch_pdf
from auditkit.reports.answers import AskedModel, ShownAnswer, ShownBatch, shown_set
from schemas import AssuranceLevel, MembershipVerdict

DIGEST = "ef" * 32
MODEL = AskedModel("faces", "Example <b>Imaging</b> & Söhne, 東京", "20261121-abc")
NOW = datetime(2026, 11, 21, 14, 5, tzinfo=UTC)


def verdict(**changes: Any) -> MembershipVerdict:
    honest = MembershipVerdict(
        verdict_id="20261121-abc-0123456789abcdef",
        session_id="20261121-abc",
        weights_digest="ab" * 32,
        scores_digest="cd" * 32,
        sample_digest="12" * 32,
        evidence="calibrated",
        score=3.5,
        code_index=None,
        p_value=0.001,
        calibration_size=999,
        false_positive_rate=0.01,
        outcome="member",
        level=AssuranceLevel.L2,
        issued_at=NOW,
    )
    return honest.model_copy(update=changes)


OWN = {"evidence": "declared", "code_index": 7, "calibration_size": 0, "p_value": 2.3e-56}
NOT_SHOWN = {"p_value": 0.53, "outcome": "not_shown"}


def text_of(document: bytes) -> str:
    """What somebody finds who searches the document, or copies from it."""
    pages = PdfReader(io.BytesIO(document)).pages
    return re.sub(r"\s+", " ", " ".join(page.extract_text() for page in pages))


def single(found: MembershipVerdict, **beside: Any) -> str:
    shown = ShownAnswer(found, DIGEST, **beside)
    return text_of(answer_pdf(shown, MODEL, "The Auditor", "complaint 2026/7"))


@pytest.mark.parametrize(
    ("changes", "headline", "never"),
    [
        ({}, "Recognised: the model answers as for a picture", "Found"),
        (OWN, "Found: the model answers with this picture's own code", "Recognised"),
        (NOT_SHOWN, "Not shown: no evidence", "not used to train"),
    ],
)
def test_the_answer_says_what_its_kind_of_evidence_can(
    changes: dict[str, Any], headline: str, never: str
) -> None:
    document = single(verdict(**changes))
    assert headline in document
    assert never not in document


def test_only_a_recognised_picture_may_be_another_file() -> None:
    lead = "It does not say that it is this very file."
    said = {
        name: [item.lead for item in answers.limits(verdict(**changes))]
        for name, changes in (("recognised", {}), ("own", OWN), ("not shown", NOT_SHOWN))
    }
    assert [name for name, leads in said.items() if lead in leads] == ["recognised"]
    assert "It does not say that the picture was not used." in said["not shown"]
    assert all("It speaks of this one model only." in leads for leads in said.values())
    worst = answers.limits(verdict(level=AssuranceLevel.L0))[-1]
    assert "Do not rely on this answer" in worst.text


@pytest.mark.parametrize(
    ("p_value", "words"),
    [
        (0.001, "at most 1 in 1,000"),
        (0.3, "at most 1 in 3"),
        (0.5001, "at most 51\N{NO-BREAK SPACE}%"),
        (1.0, "at most 100\N{NO-BREAK SPACE}%"),
        (1e-30, "fewer than 1 in a billion"),
    ],
)
def test_a_bound_on_codes_is_never_told_too_small(p_value: float, words: str) -> None:
    assert answers.of_strangers(verdict(**{**OWN, "p_value": p_value})) == words


@pytest.mark.parametrize(
    ("above", "size", "share", "most"),
    [
        # Upper ends of exact 95 % intervals: 1 - 0.025^(1/n) for none of n.
        (0, 16, "about 1 in 17", 1 - 0.025 ** (1 / 16)),
        (0, 999, "about 1 in 1,000", 1 - 0.025 ** (1 / 999)),
        (529, 999, "about 53\N{NO-BREAK SPACE}%", 0.5610),  # scipy.stats.binomtest(529, 999)
        (999, 999, "about 100\N{NO-BREAK SPACE}%", 1.0),
    ],
)
def test_a_rank_is_told_as_an_estimate_with_its_interval(
    above: int, size: int, share: str, most: float
) -> None:
    found = verdict(p_value=(above + 1) / (size + 1), calibration_size=size)
    end = f"1 in {int(1 / most):,}" if most < 0.5 else f"{math.ceil(100 * most)}\N{NO-BREAK SPACE}%"
    interval = f"(exact 95\N{NO-BREAK SPACE}% interval: up to {end})"
    assert answers.of_strangers(found) == f"{share} {interval}"


def test_a_document_holds_all_that_a_lawyer_needs() -> None:
    document = single(verdict(**OWN), picture="holiday.png", match=(7, "told"))
    for needed in (
        "The Auditor, 21",
        "complaint 2026/7",
        "holiday.png",
        "2.3 × 10⁻⁵⁶",
        "1 %",
        "keyed code, the picture's own",
        "Yes: it is sample 7 of the list",
        "L2: complete log",
        "What this does not say",
        DIGEST,
        "20261121-abc-0123456789abcdef",
        "auditkit verify-verdict 20261121-abc-0123456789abcdef.dsse.json",
        "proves nothing by itself",
    ):
        assert needed in document.replace("\N{NO-BREAK SPACE}", " "), needed


def test_what_others_wrote_is_written_and_never_read_as_markup() -> None:
    hostile = '<font color="[[].append(1)]">x</font><img src="file:///etc/passwd"/> & )Tj'
    document = single(verdict(), picture=hostile).replace(" ", "")
    assert hostile.replace(" ", "") in document
    assert r"Example<b>Imaging</b>&Söhne,\u6771\u4eac" in document


@pytest.mark.parametrize(
    "name",
    ["Łódź, Příbram, Győr, Iași", "Ħaż-Żebbuġ, Þórshöfn, Ğölbaşı", "Αθήνα", "София, Київ"],
)
def test_names_in_every_script_of_the_union_are_written(name: str) -> None:
    assert name in single(verdict(), picture=name)


def test_equal_answers_give_equal_bytes() -> None:
    shown = ShownAnswer(verdict(), DIGEST)
    assert answer_pdf(shown, MODEL, "A", None) == answer_pdf(shown, MODEL, "A", None)


def test_a_batch_says_which_are_discoveries_and_what_the_set_shows() -> None:
    found = [
        ShownAnswer(verdict(), DIGEST, "a.png", None, 0.004),
        ShownAnswer(verdict(p_value=0.02), DIGEST, "b.png", None, 0.06),
        ShownAnswer(verdict(**NOT_SHOWN), "ab" * 32, "c.png", None, 0.53),
    ] * 40
    together = shown_set("calibrated", 3, "member", 0.0001, 0.01)
    document = text_of(
        batch_pdf(
            [ShownBatch(MODEL, tuple(found), (together,))],
            auditor="The Auditor",
            purpose="complaint",
            at=NOW,
            false_discovery_rate=0.05,
            name="0123456789abcdef",
        )
    )
    assert document.count(" yes ") == 40
    assert "80 of 120 pictures found or recognised" in document
    assert (
        "These 3 pictures stand out together: at least one was told to the model, or they "
        in document
    )
    assert "It does not say which one, nor that all were." in document
    assert "is not signed itself" in document
    assert "page 2" in document
    assert "It does not say that the picture was not used." in document
    assert "auditkit verify-verdict inquiry-0123456789abcdef.json" in document
