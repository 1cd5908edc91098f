"""Example pictures of a model: known members and strangers, where their owner has published them.

They lie in the auditor's home, in `examples/<session>/`, as `member-1.png`, `silent-1.png` and
`stranger-1.png`. `auditkit demo` leaves some of its public handwritten digits there.
"""

import re
from dataclasses import dataclass
from typing import Literal, cast

from auditor_server.context import Auditor
from auditor_server.store import SessionRow

EXAMPLES_FOLDER = "examples"
MOST_EXAMPLES = 24
FILE = re.compile(r"(member|silent|stranger)-([0-9]{1,3})\.png")

ExampleKind = Literal["member", "silent", "stranger"]


@dataclass(frozen=True)
class Example:
    """One example picture of a model, and what is known of it."""

    session_id: str
    name: str
    kind: ExampleKind
    number: int


def list_examples(auditor: Auditor, session: SessionRow) -> list[Example]:
    """Return the example pictures of a session's model, members first."""
    folder = auditor.home.path / EXAMPLES_FOLDER / session.id
    if not folder.is_dir():
        return []
    found = [
        Example(session.id, path.name, cast("ExampleKind", match[1]), int(match[2]))
        for path in folder.iterdir()
        if (match := FILE.fullmatch(path.name)) and path.is_file()
    ]
    return sorted(found, key=lambda example: (example.kind, example.number))[:MOST_EXAMPLES]


def read_example(auditor: Auditor, session: SessionRow, name: str) -> bytes | None:
    """Return an example picture; None: there is none of this name."""
    if all(example.name != name for example in list_examples(auditor, session)):
        return None
    return (auditor.home.path / EXAMPLES_FOLDER / session.id / name).read_bytes()
