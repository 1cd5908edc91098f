"""Tables of plain text that a terminal and a document can both show."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TextTable:
    """A titled table of plain text."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    groups: tuple[str, ...] = ()
    """The heading that each row belongs under, if there are headings."""
    note: str = ""
    """What a reader must know to read it."""


def markdown_table(table: TextTable) -> list[str]:
    """Return the lines of a table in Markdown, without its title and its note."""
    headed = bool(table.groups)
    header = ("", *table.header) if headed else table.header
    lines = [f"| {' | '.join(header)} |", f"|{'|'.join(['---'] * len(header))}|"]
    above = None
    for number, row in enumerate(table.rows):
        if headed:
            group = table.groups[number]
            lines.append(f"| {' | '.join((group if group != above else '', *row))} |")
            above = group
        else:
            lines.append(f"| {' | '.join(row)} |")
    return lines
