"""What all commands print with: people on a terminal, or one JSON document for machines."""

import json
import sys
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from schemas import Finding, VerificationReport

PLAIN_WIDTH = 140  # columns where output goes to a file or a pipe

console = Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH)
error_console = Console(stderr=True, highlight=False, emoji=False)

OUTCOME_STYLES = {
    "passed": ("✔", "green"),
    "warning": ("!", "yellow"),
    "failed": ("✘", "bold red"),
    "not_checked": ("–", "dim"),
}


def print_json(document: Any) -> None:  # noqa: ANN401 - any JSON value
    """Print one JSON document to standard output, without colours."""
    text = json.dumps(document, indent=2, ensure_ascii=False)
    # Names of files may hold bytes that are no UTF-8; JSON spells those as escapes.
    text = text.encode(errors="backslashreplace").decode()
    console.print(text, markup=False, soft_wrap=True)


def visible(text: str) -> str:
    """Return foreign text with control characters spelt out, so that it cannot steer a terminal."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


def quoted(text: object) -> str:
    """Return foreign text for printing as it is: no control character, and nothing read as markup.

    Rich takes square brackets for markup; evidence and names of files come from others.
    """
    return escape(visible(str(text)))


def print_error(message: str) -> None:
    """Print one error to standard error."""
    error_console.print("[bold red]error:[/bold red] ", end="")
    error_console.print(visible(message), markup=False, soft_wrap=True)


def findings_table(report: VerificationReport) -> Table:
    """Return the checks of a verification as a table."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("")
    table.add_column("check", no_wrap=True)
    table.add_column("found", overflow="fold")
    for finding in report.findings:
        mark, style = OUTCOME_STYLES[finding.outcome]
        table.add_row(f"[{style}]{mark}[/{style}]", finding.check, _detail(finding))
    return table


def print_verification(report: VerificationReport) -> None:
    """Print all findings, the outcome and the assurance level."""
    console.print(findings_table(report))
    counts = {
        outcome: sum(f.outcome == outcome for f in report.findings) for outcome in OUTCOME_STYLES
    }
    verdict = "[green]verified[/green]" if holds(report) else "[bold red]NOT verified[/bold red]"
    console.print(
        f"\nSession {quoted(report.session_id)}: {verdict} "
        f"({counts['passed']} passed, {counts['warning']} with a warning, "
        f"{counts['failed']} failed, {counts['not_checked']} not checked)"
    )
    console.print(f"Assurance level {report.assurance}")


def holds(report: VerificationReport) -> bool:
    """Tell whether the evidence holds: nothing failed, and at least level 1 was reached."""
    return report.passed and report.level >= 1


def _detail(finding: Finding) -> str:
    text = quoted(finding.detail)
    if finding.outcome == "failed":
        return f"[red]{finding.error}[/red]: {text}"
    return f"[dim]{text}[/dim]" if finding.outcome == "not_checked" else text
