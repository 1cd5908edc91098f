"""A report as its reader sees it, and reports with other findings."""

from dataclasses import replace
from html.parser import HTMLParser

from auditkit.reports import ReportInput, render_html
from schemas import AssuranceLevel, Finding, VerificationReport

VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """Parses a page strictly: every element must be closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] != "style":
            self.text += f" {data}"

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def page(report: ReportInput) -> Page:
    return Page(render_html(report))


def with_findings(report: ReportInput, level: AssuranceLevel, *findings: Finding) -> ReportInput:
    verification = VerificationReport(
        session_id="ses-4f1c",
        verified_at=report.verification.verified_at,
        findings=findings,
        level=level,
    )
    return replace(report, verification=verification)


def found(check: str, outcome: str, detail: str = "", error: str | None = None) -> Finding:
    return Finding(
        check=check, claim=f"Claim of {check}", outcome=outcome, detail=detail, error=error
    )
