"""What the documents tell people to type or to open must exist."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.main import get_command

from auditkit.cli.application import app

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
COMMAND = re.compile(r"^    (auditkit .*)$", re.MULTILINE)
COMMANDS = sorted({line for page in PAGES for line in COMMAND.findall(page.read_text("utf-8"))})
LINK = re.compile(r"\]\((?!https?:)([^)#]+)\)")


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_in_a_guide_exists_with_its_options(
    line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUDITKIT_SERVER", "http://127.0.0.1:8470")
    command: Any = get_command(app)
    arguments = shlex.split(line)[1:]
    context: typer.Context | None = None
    while hasattr(command, "resolve_command"):
        context = typer.Context(command, parent=context)
        _, command, arguments = command.resolve_command(context, arguments)
    command.make_context(command.name, list(arguments))  # parses, and does not run it


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_links_between_documents_lead_somewhere(page: Path) -> None:
    targets = LINK.findall(page.read_text("utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_every_decision_is_listed() -> None:
    listed = LINK.findall((DOCS / "decisions" / "README.md").read_text("utf-8"))
    found = {path.name for path in (DOCS / "decisions").glob("*.md")} - {"README.md"}
    assert set(listed) == found


def test_the_guides_have_commands() -> None:
    assert len(COMMANDS) > 15
