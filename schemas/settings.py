"""Files that people write: TOML, read against a schema, and how to mend their mistakes."""

import difflib
import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import ValidationError

from schemas.base import Schema

S = TypeVar("S", bound=Schema)


class SettingsError(Exception):
    """A file of settings is missing, no TOML, or breaks its schema."""


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        SettingsError: it cannot be read, or is no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(
            f"cannot read the configuration {path}: {error.strerror}; give the path of a TOML "
            "file like those in examples/"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not valid TOML: {error}") from error


def parse_settings(model: type[S], document: dict[str, Any], source: str) -> S:
    """Validate settings that were read from `source`.

    Raises:
        SettingsError: with the place of each mistake, and the likely correct name for a typo.
    """
    try:
        # Through JSON: TOML's arrays and strings are then read as the schema's own types.
        return model.from_bytes(json.dumps(document, default=str))
    except ValidationError as error:
        lines = [_explain(model, dict(problem)) for problem in error.errors(include_url=False)]
        raise SettingsError(
            "\n  ".join([f"{source} is not a valid configuration:", *lines])
        ) from error


def _explain(model: type[Schema], problem: dict[str, Any]) -> str:
    place = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        *parents, name = problem["loc"]
        known = list(_schema_at(model, parents).model_fields)
        close = difflib.get_close_matches(str(name), known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
        return f"{place}: unknown setting; {hint}"
    where = f"{place}: " if place else ""
    # Where a section as a whole is at fault, repeating it would bury the message.
    found = "" if isinstance(problem["input"], dict | list) else f" (found {problem['input']!r})"
    return f"{where}{problem['msg']}{found}"


def _schema_at(model: type[Schema], path: Sequence[str | int]) -> type[Schema]:
    for part in path:
        section = _section(model, str(part))
        # The number of an entry of a list leads no further: the entry has the list's schema.
        model = section or model
    return model


def _section(model: type[Schema], name: str) -> type[Schema] | None:
    """Return the schema of a nested section: `Section`, `Section | None`, `tuple[Section, ...]`."""
    if name not in model.model_fields:
        return None
    annotation = model.model_fields[name].annotation
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, Schema):
            return candidate
    return None
