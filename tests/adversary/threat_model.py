"""Write docs/threat-model.md: a frame written by hand, and tables of the attacks that are tried.

python tests/adversary/threat_model.py
"""

from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path

from catalogue import rows
from familiar import FAMILIAR, FamiliarAttack
from forge import Plot, stage
from rows import Row, Section

from schemas import Finding

HERE = Path(__file__).parent
FRAME = HERE / "threat_model.frame.md"
DOCUMENT = HERE.parents[1] / "docs" / "threat-model.md"
COMMAND = "PYTHONPATH=. python tests/adversary/threat_model.py"

TITLES: dict[Section, str] = {
    "bundle": "In the evidence of a session, from L1",
    "file": "In the file that carries it, from L1",
    "trust root": "On the auditor's keys, from L1",
    "registry": "By the auditor, in the registry, from L1",
    "monitor": "By the auditor, seen by a monitor of the registry",
    "witnesses": "By the auditor, where the order names witnesses, from L1",
    "server": "Refused by the server at once",
    "codes": "On membership codes, from L1",
    "containers": "On the image and its containers, from L2",
    "replay": "On a replay, from L3",
    "execution": "On the training itself, from L3",
    "hardware": "On attested hardware, from L4",
}


def document() -> str:
    """Return the whole threat model."""
    found = rows()
    parts = {
        "attacks": str(len(found)),
        "familiar": familiar_table(found),
        "checks": checks_table(found),
        "every_attack": every_attack(found),
    }
    text = FRAME.read_text()
    for name, part in parts.items():
        text = text.replace(f"{{{name}}}", part)
    return text


def familiar_table(found: Sequence[Row]) -> str:
    by_name = {row.attack: row for row in found}

    def line(familiar: FamiliarAttack) -> tuple[str, ...]:
        caught = sorted((by_name[name] for name in familiar.caught), key=lambda row: row.level)
        levels = (
            f"from L{int(level)}: {', '.join(dict.fromkeys(row.caught_by for row in here))}"
            for level, here in groupby(caught, key=lambda row: row.level)
        )
        return familiar.name, "; ".join(levels) or "nothing", familiar.remains

    return table(("attack", "caught by", "what remains"), map(line, FAMILIAR))


def checks_table(found: Sequence[Row]) -> str:
    def line(check: Finding) -> tuple[str, ...]:
        caught = [row for row in found if f"`{check.check}`" in row.caught_by]
        level = f"L{int(min(row.level for row in caught))}"
        return f"`{check.check}`", check.claim, level, str(len(caught))

    return table(("check", "says", "from", "attacks"), map(line, checks()))


def checks() -> tuple[Finding, ...]:
    """Return every check of the verifier, as it speaks of an honest session."""
    return stage(Plot()).report().findings


def every_attack(found: Sequence[Row]) -> str:
    sections = list(TITLES)
    ordered = sorted(found, key=lambda row: (sections.index(row.section), row.caught_by))
    tables = (
        f"### {TITLES[section]}\n\n"
        + table(
            ("attack", "caught by", "error"),
            ((row.attack, row.caught_by, f"`{row.error}`" if row.error else "") for row in here),
        )
        for section, here in groupby(ordered, key=lambda row: row.section)
    )
    return "\n\n".join(tables)


def table(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(cells)} |".replace("  |", " |") for cells in lines)


if __name__ == "__main__":
    DOCUMENT.write_text(document())
