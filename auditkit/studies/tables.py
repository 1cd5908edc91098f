"""Tables of plain text that a terminal and a document can both show."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TextTable:
    """A titled table of plain text."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def markdown_table(table: TextTable) -> list[str]:
    """Return the lines of a table in Markdown, without its title."""
    rule = "|".join(["---"] * len(table.header))
    return [
        f"| {' | '.join(table.header)} |",
        f"|{rule}|",
        *(f"| {' | '.join(row)} |" for row in table.rows),
    ]
