"""A signed verdict, or many, as a PDF for the file of a case.

Everything that others wrote is escaped, so that nothing in it is read as markup. The document's
font has the Latin, Greek and Cyrillic letters, and those of no other script; they are written as
codes. Equal input gives equal bytes.
"""

import io
from collections.abc import Sequence
from datetime import datetime
from functools import cache, partial
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

from reportlab.lib.colors import HexColor
from reportlab.lib.enums import TA_RIGHT
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import (
    Flowable,
    KeepTogether,
    Paragraph,
    SimpleDocTemplate,
    Spacer,
    Table,
    TableStyle,
)

from auditkit.reports import answers, formatting
from auditkit.reports.answers import AskedModel, ShownAnswer, ShownBatch
from auditkit.reports.wording import Statement
from schemas import MembershipVerdict

FONTS = Path(__file__).parent / "fonts"
REGULAR, BOLD = "NotoSans-Regular", "NotoSans-Bold"
DIGITS: Final = "Courier"  # of digests and commands, which are ASCII
INK, MUTED, RULE = HexColor("#1c2430"), HexColor("#515b69"), HexColor("#c9cfd8")
GOOD, RESERVED = HexColor("#1d5c3a"), HexColor("#7a4b00")
SOFT = {"good": HexColor("#eff6f1"), "reserved": HexColor("#fcf6e8")}
TONE = {"good": GOOD, "reserved": RESERVED}
MARGIN = 18 * mm
WIDTH = A4[0] - 2 * MARGIN
FRAME_PADDING = 6.0  # that the library adds around everything
LABELS = 42 * mm
BATCH_COLUMNS = (WIDTH - 86 * mm, 22 * mm, 20 * mm, 22 * mm, 22 * mm)
MINUS = str.maketrans({"\N{MINUS SIGN}": "-"})  # the font has none
PRODUCT = "auditkit"
TITLE = "Answer to a question about a picture"
BATCH_TITLE = "Answers to questions about pictures"

BODY = ParagraphStyle("body", fontName=REGULAR, fontSize=9.2, leading=12.2, textColor=INK)
HEADING = ParagraphStyle(
    "heading",
    BODY,
    fontName=BOLD,
    fontSize=11.5,
    leading=14,
    spaceBefore=7,
    spaceAfter=1.5,
)
TITLE_STYLE = ParagraphStyle("title", BODY, fontName=BOLD, fontSize=17, leading=21)
POINT = ParagraphStyle("point", BODY, leftIndent=9, bulletIndent=0, spaceAfter=1.5)
QUIET = ParagraphStyle("quiet", BODY, fontSize=8.5, leading=11.5, textColor=MUTED)
CODE = ParagraphStyle("code", BODY, fontName=DIGITS, fontSize=8, leading=11, splitLongWords=1)
RIGHT = ParagraphStyle("right", BODY, alignment=TA_RIGHT)
SMALL_HEAD = ParagraphStyle("head", QUIET, fontName=BOLD)
SMALL_HEAD_RIGHT = ParagraphStyle("head-right", SMALL_HEAD, alignment=TA_RIGHT)


def answer_pdf(answer: ShownAnswer, model: AskedModel, auditor: str, purpose: str | None) -> bytes:
    """Return one verdict as a document.

    Args:
        answer: the verdict.
        model: that was asked.
        auditor: who answers.
        purpose: in the words of who asked, if they are known.

    """
    verdict = answer.verdict
    found = answers.answer(verdict)
    story: list[Flowable] = [
        _text(TITLE, TITLE_STYLE),
        _text(f"{auditor}, {formatting.moment(verdict.issued_at)}", QUIET),
        _text("Question", HEADING),
        _text(
            "Was the model told of this picture as one of those that it was trained on?",
            BODY,
        ),
        Spacer(1, 4),
        _pairs(
            [
                ("Picture", answer.picture or "named by its digest alone"),
                ("Digest of its pixels", verdict.sample_digest),
                ("Model", f"{model.name}, of {model.developer}"),
                ("Session", model.session_id),
                *([("Asked for", purpose)] if purpose else []),
            ]
        ),
        _text("Answer", HEADING),
        _box(found.headline, found.sentence, found.tone),
        _text("What it rests on", HEADING),
        _pairs(_basis(answer)),
        KeepTogether([_text("What this does not say", HEADING), *_limits(verdict)]),
        KeepTogether(
            [
                _text("The signed verdict, and how to check it", HEADING),
                _pairs(
                    [
                        ("Verdict", verdict.verdict_id),
                        ("Its digest", answer.digest),
                        ("Weights of the model", verdict.weights_digest),
                        ("Calibration", verdict.scores_digest),
                    ]
                ),
                Spacer(1, 4),
                *_check(f"{verdict.verdict_id}.dsse.json"),
            ]
        ),
    ]
    return _document(TITLE, story, auditor, f"Verdict {verdict.verdict_id}")


def batch_pdf(
    batches: Sequence[ShownBatch],
    *,
    auditor: str,
    purpose: str,
    at: datetime,
    false_discovery_rate: float,
    name: str,
) -> bytes:
    """Return the verdicts of an inquiry, model by model.

    Args:
        batches: one for each model.
        auditor: who answers.
        purpose: in the words of who asked.
        at: when it was asked.
        false_discovery_rate: of the discoveries.
        name: of the inquiry.

    """
    story: list[Flowable] = [
        _text(BATCH_TITLE, TITLE_STYLE),
        _text(f"{auditor}, {formatting.moment(at)}", QUIET),
        _text("Question", HEADING),
        _text(
            "Was the model told of these pictures as some of those that it was trained on?", BODY
        ),
        Spacer(1, 4),
        _pairs([("Asked for", purpose), ("Inquiry", name)]),
    ]
    for batch in batches:
        story += _batch(batch, false_discovery_rate)
    said = answers.limits_of_all(batches)
    story += [
        KeepTogether(
            [_text("What this does not say", HEADING), *(_statement(item) for item in said)]
        ),
        KeepTogether(
            [_text("How to check it", HEADING), *_check(f"inquiry-{name}.json")],
        ),
    ]
    return _document(BATCH_TITLE, story, auditor, f"Inquiry {name}")


def _basis(answer: ShownAnswer) -> list[tuple[str, str]]:
    verdict = answer.verdict
    rows = [
        ("p-value", formatting.p_value(verdict.p_value)),
        ("False-positive rate", formatting.nominal_percent(verdict.false_positive_rate)),
        ("Kind of evidence", answers.kind_words(verdict)),
        ("In the developer's list", answers.match_words(answer.match)),
        ("Record of the training", f"{verdict.level.name}: {verdict.level.meaning}"),
    ]
    if verdict.calibration_size:
        rows.insert(3, ("Compared with", f"{verdict.calibration_size:,} calibration samples"))
    return rows


def _batch(batch: ShownBatch, false_discovery_rate: float) -> list[Flowable]:
    head = [
        _text(text, SMALL_HEAD_RIGHT if right else SMALL_HEAD)
        for text, right in (
            ("Picture, and digest of the verdict", False),
            ("Answer", False),
            ("p-value", True),
            ("adjusted", True),
            ("discovery", True),
        )
    ]
    rows = [head, *(_row(answer, false_discovery_rate) for answer in batch.answers)]
    table = Table(rows, colWidths=BATCH_COLUMNS, repeatRows=1)
    table.setStyle(
        TableStyle(
            [
                ("VALIGN", (0, 0), (-1, -1), "TOP"),
                ("LINEBELOW", (0, 0), (-1, 0), 0.8, INK),
                ("LINEBELOW", (0, 1), (-1, -1), 0.4, RULE),
                ("LEFTPADDING", (0, 0), (0, -1), 0),
                ("RIGHTPADDING", (-1, 0), (-1, -1), 0),
            ]
        )
    )
    rate = formatting.nominal_percent(batch.false_positive_rate)
    return [
        _text(f"{batch.model.name}, of {batch.model.developer}", HEADING),
        _text(f"Session {batch.model.session_id}", QUIET),
        _text(
            f"{formatting.integer(batch.found)} of "
            f"{formatting.count_of(len(batch.answers), 'picture')} found or recognised at a "
            f"false-positive rate of {rate}. "
            + answers.DISCOVERY_WORDS.format(formatting.nominal_percent(false_discovery_rate)),
            BODY,
        ),
        *(
            _text(
                f"All together: {item.headline}. p-value {formatting.p_value(item.p_value)}. "
                f"{item.rests_on} {answers.SET_LIMIT.replace('`', '')}",
                BODY,
            )
            for item in batch.sets
        ),
        Spacer(1, 4),
        table,
    ]


def _row(answer: ShownAnswer, false_discovery_rate: float) -> list[Flowable]:
    verdict, adjusted = answer.verdict, answer.adjusted_p_value
    name = _escaped(answer.picture or verdict.sample_digest)
    digest = f'<font name="{DIGITS}" size="6" color="#515b69">{_escaped(answer.digest)}</font>'
    return [
        Paragraph(f"{name}<br/>{digest}", BODY),
        _text(answers.short_answer(verdict), BODY),
        _text(formatting.p_value(verdict.p_value), RIGHT),
        _text(formatting.ABSENT if adjusted is None else formatting.p_value(adjusted), RIGHT),
        _text("yes" if answer.is_discovery(false_discovery_rate) else "no", RIGHT),
    ]


def _limits(verdict: MembershipVerdict) -> list[Flowable]:
    return [_statement(item) for item in answers.limits(verdict)]


def _statement(item: Statement) -> Flowable:
    return Paragraph(f"<b>{_escaped(item.lead)}</b> {_escaped(item.text)}", POINT, bulletText="•")


def _check(file: str) -> list[Flowable]:
    return [
        _text(
            "This document is a rendering, and proves nothing by itself. What counts is the signed "
            "file beside it. With the auditor's trust root, received over another channel, anybody "
            "can check it on any machine, without the auditor's server:",
            BODY,
        ),
        _text(f"auditkit verify-verdict {file} --trust-root trust-root.json", CODE),
        _text(
            "The digest of each verdict is also in the auditor's public registry, which nobody can "
            "change without being noticed.",
            BODY,
        ),
    ]


def _pairs(rows: Sequence[tuple[str, str]]) -> Table:
    table = Table(
        [[_text(label, QUIET), _text(value, _style_of(value))] for label, value in rows],
        colWidths=(LABELS, WIDTH - LABELS),
    )
    table.setStyle(
        TableStyle(
            [
                ("VALIGN", (0, 0), (-1, -1), "TOP"),
                ("LINEBELOW", (0, 0), (-1, -1), 0.4, RULE),
                ("LEFTPADDING", (0, 0), (0, -1), 0),
                ("TOPPADDING", (0, 0), (-1, -1), 1.5),
                ("BOTTOMPADDING", (0, 0), (-1, -1), 3),
            ]
        )
    )
    return table


def _style_of(value: str) -> ParagraphStyle:
    is_digest = len(value) == 64 and not value.strip("0123456789abcdef")
    return CODE if is_digest else BODY


def _box(headline: str, sentence: str, tone: str) -> Table:
    style = ParagraphStyle("answer", HEADING, textColor=TONE[tone], spaceBefore=0)
    table = Table([[[_text(headline, style), Spacer(1, 2), _text(sentence, BODY)]]], [WIDTH])
    table.setStyle(
        TableStyle(
            [
                ("BACKGROUND", (0, 0), (-1, -1), SOFT[tone]),
                ("LINEBEFORE", (0, 0), (0, -1), 3, TONE[tone]),
                ("LEFTPADDING", (0, 0), (-1, -1), 10),
                ("TOPPADDING", (0, 0), (-1, -1), 7),
                ("BOTTOMPADDING", (0, 0), (-1, -1), 8),
            ]
        )
    )
    return table


def _text(text: str, style: ParagraphStyle) -> Paragraph:
    return Paragraph(_escaped(text), style)


def _escaped(text: str) -> str:
    """Return a text in which nothing is markup, and every character has a glyph."""
    glyphs = _fonts()
    written = (
        character if ord(character) in glyphs or character.isspace() else ascii(character)[1:-1]
        for character in text.translate(MINUS)
    )
    return escape("".join(written))


@cache
def _fonts() -> frozenset[int]:
    """Have the library know the document's fonts; return the characters that they have."""
    fonts = [TTFont(name, FONTS / f"{name}.ttf") for name in (REGULAR, BOLD)]
    for font in fonts:
        pdfmetrics.registerFont(font)
    pdfmetrics.registerFontFamily(REGULAR, normal=REGULAR, bold=BOLD)
    return frozenset.intersection(*(frozenset(font.face.charToGlyph) for font in fonts))


def _document(title: str, story: list[Flowable], author: str, footer: str) -> bytes:
    file = io.BytesIO()
    document = SimpleDocTemplate(
        file,
        pagesize=A4,
        leftMargin=MARGIN - FRAME_PADDING,
        rightMargin=MARGIN - FRAME_PADDING,
        topMargin=MARGIN,
        bottomMargin=MARGIN,
        title=title,
        author=author,
        creator=PRODUCT,
        subject=footer,
        lang="en",
        invariant=1,
    )
    draw = partial(_footer, text=footer)
    document.build(story, onFirstPage=draw, onLaterPages=draw)
    return file.getvalue()


def _footer(canvas: Canvas, document: SimpleDocTemplate, text: str) -> None:
    canvas.saveState()
    canvas.setFont(REGULAR, 7.5)
    canvas.setFillColor(MUTED)
    canvas.drawString(MARGIN, 12 * mm, text)
    canvas.drawRightString(A4[0] - MARGIN, 12 * mm, f"page {document.page}")
    canvas.restoreState()
