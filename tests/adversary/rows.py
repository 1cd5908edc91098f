"""One line of the threat model: what an attacker does, and what stands in the way."""

from dataclasses import dataclass
from typing import Literal

from schemas import AssuranceLevel

Section = Literal[
    "bundle",
    "file",
    "trust root",
    "registry",
    "monitor",
    "witnesses",
    "server",
    "codes",
    "containers",
    "replay",
    "execution",
    "hardware",
]


@dataclass(frozen=True)
class Row:
    """One attack, as the threat model tells it.

    Attributes:
        attack: what the attacker does.
        caught_by: a check of the verifier, a function of the monitor, or who else notices.
        error: the typed error.
        level: from which assurance level on it is caught.
        section: which table it stands in.
        test: `path::function` that carries it out, from the folder of all tests.
    """

    attack: str
    caught_by: str
    error: str
    level: AssuranceLevel
    section: Section
    test: str
