"""Tables of plain text in a terminal."""

from itertools import groupby
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from auditkit.studies.tables import TextTable


def terminal_table(text: "TextTable") -> Table:
    """Return a table to print: the first column to the left, numbers to the right."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for number, heading in enumerate(text.header):
        table.add_column(heading, justify="left" if number == 0 else "right", no_wrap=number > 0)
    numbered = zip(text.groups or [""] * len(text.rows), text.rows, strict=True)
    for group, rows in groupby(numbered, key=lambda entry: entry[0]):
        indent = "  " if group else ""
        if group:
            table.add_row(Text(group, style="bold"))
        for _, (name, *cells) in rows:
            table.add_row(Text(indent + name), *(Text(cell) for cell in cells))
    return table
