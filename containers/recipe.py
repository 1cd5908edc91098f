"""A strict subset of the Dockerfile: what can be carried out by writing layers and nothing else.

One instruction per line, in upper case: `ARG BASE=<reference>` and `FROM ${BASE}` first, then any
of `COPY`, `ENV`, `LABEL`, `USER`, `WORKDIR` and `ENTRYPOINT`. Everything that a container engine
could understand in another way than we do is refused: `RUN`, flags, substitution, escapes,
wildcards, continued lines, several words where one is expected.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import MappingProxyType

from containers.errors import RecipeError

MAX_RECIPE_CHARACTERS = 100_000
"""Largest recipe; a Dockerfile without RUN has a few lines."""

PATH_WORD = r"[A-Za-z0-9_.][A-Za-z0-9_./-]*"
COPY_FORM = re.compile(rf"({PATH_WORD}) (/{PATH_WORD})")
PAIR_FORM = re.compile(r'([A-Za-z_][A-Za-z0-9_.-]*)=(?:([A-Za-z0-9_./:@,+-]+)|"([^"\\$]*)")')
REFERENCE_FORM = re.compile(r"BASE=([A-Za-z0-9][A-Za-z0-9_./:@-]*)")
USER_FORM = re.compile(r"[0-9]{1,9}:[0-9]{1,9}")
DIRECTIVE = re.compile(r"#\s*[A-Za-z][A-Za-z0-9]*\s*=")
FROM_BASE = "${BASE}"
ROOT = "/"


@dataclass(frozen=True)
class Copy:
    """Put a file, or all that is in a folder, into a layer of its own.

    Attributes:
        source: path below the context; ends with a slash when it is a folder.
        target: absolute path in the image; ends with a slash when the source does.
    """

    source: str
    target: str

    @property
    def is_folder(self) -> bool:
        """Whether the source is a folder."""
        return self.source.endswith("/")


@dataclass(frozen=True)
class Env:
    """Set an environment variable."""

    name: str
    value: str


@dataclass(frozen=True)
class Label:
    """Set a label."""

    name: str
    value: str


@dataclass(frozen=True)
class User:
    """Set who the program runs as: numbers of user and group, joined by a colon."""

    user: str


@dataclass(frozen=True)
class WorkingFolder:
    """Set where the program starts."""

    path: str


@dataclass(frozen=True)
class EntryPoint:
    """Set the program and its arguments; nothing is added to them."""

    command: tuple[str, ...]


Setting = Env | Label | User | WorkingFolder | EntryPoint
Instruction = Copy | Setting


@dataclass(frozen=True)
class Recipe:
    """What to build: the base by default, and what comes on top of it, in order."""

    default_base: str
    instructions: tuple[Instruction, ...]


def parse(text: str) -> Recipe:
    """Read a recipe.

    Raises:
        RecipeError: a line is not in the subset; the message names it.
    """
    if len(text) > MAX_RECIPE_CHARACTERS:
        raise RecipeError(
            f"expected a recipe of at most {MAX_RECIPE_CHARACTERS} characters, found {len(text)}"
        )
    lines = _lines(text)
    default_base = _expect(lines, "ARG", "ARG BASE=<reference of an image>", _reference)
    _expect(lines, "FROM", "FROM ${BASE}", _base)
    return Recipe(default_base, tuple(_instruction(*line) for line in lines))


def _lines(text: str) -> Iterator[tuple[int, str, str]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not (line.isascii() and line.isprintable()) or line.endswith("\\"):
            raise _refused(number, line, "printable ASCII characters, each instruction on one line")
        if DIRECTIVE.match(line):
            raise _refused(number, line, "no parser directive, which changes what follows")
        if line.strip() and not line.startswith("#"):
            keyword, _, rest = line.partition(" ")
            yield number, keyword, rest.strip()


def _expect(
    lines: Iterator[tuple[int, str, str]],
    expected: str,
    form: str,
    read: Callable[[str], str | None],
) -> str:
    number, keyword, rest = next(lines, (0, "", ""))
    value = read(rest) if keyword == expected else None
    if value is None:
        raise _refused(number, f"{keyword} {rest}", f"`{form}`")
    return value


def _instruction(number: int, keyword: str, rest: str) -> Instruction:
    if keyword not in READERS:
        raise _refused(number, f"{keyword} {rest}", f"one of {', '.join(READERS)}")
    form, read = READERS[keyword]
    instruction = read(rest)
    if instruction is None:
        raise _refused(number, f"{keyword} {rest}", f"`{form}`")
    return instruction


def _reference(rest: str) -> str | None:
    match = REFERENCE_FORM.fullmatch(rest)
    return match[1] if match else None


def _base(rest: str) -> str | None:
    return rest if rest == FROM_BASE else None


def _copy(rest: str) -> Copy | None:
    match = COPY_FORM.fullmatch(rest)
    if match is None:
        return None
    source, target = match[1], match[2]
    is_plain = all(
        part not in {"", ".", ".."}
        for path in (source, target[1:])
        for part in path.removesuffix("/").split("/")
    )
    if not is_plain or source.endswith("/") != target.endswith("/"):
        return None
    return Copy(source, target)


def _env(rest: str) -> Env | None:
    pair = _pair(rest)
    return Env(*pair) if pair else None


def _label(rest: str) -> Label | None:
    pair = _pair(rest)
    return Label(*pair) if pair else None


def _pair(rest: str) -> tuple[str, str] | None:
    match = PAIR_FORM.fullmatch(rest)
    return (match[1], match[2] or match[3] or "") if match else None


def _user(rest: str) -> User | None:
    return User(rest) if USER_FORM.fullmatch(rest) else None


def _working_folder(rest: str) -> WorkingFolder | None:
    return WorkingFolder(ROOT) if rest == ROOT else None


def _entry_point(rest: str) -> EntryPoint | None:
    try:
        command = json.loads(rest)
    except (ValueError, RecursionError):
        return None
    if not (isinstance(command, list) and command and command[0]):
        return None
    is_plain = all(isinstance(one, str) and one.isascii() and one.isprintable() for one in command)
    return EntryPoint(tuple(command)) if is_plain else None


READERS: MappingProxyType[str, tuple[str, Callable[[str], Instruction | None]]] = MappingProxyType(
    {
        "COPY": ("COPY file /path/of/file` or `COPY folder/ /path/of/folder/", _copy),
        "ENV": ('ENV NAME=value` or `ENV NAME="some value"', _env),
        "LABEL": ('LABEL name=value` or `LABEL name="some value"', _label),
        "USER": ("USER <number>:<number>", _user),
        "WORKDIR": ("WORKDIR /", _working_folder),  # any other folder would need a layer
        "ENTRYPOINT": ('ENTRYPOINT ["program", "argument"]', _entry_point),
    }
)


def _refused(number: int, found: str, expected: str) -> RecipeError:
    where = f"line {number}" if number else "end"
    return RecipeError(f"{where} of the recipe: expected {expected}, found {found.strip()[:200]!r}")
