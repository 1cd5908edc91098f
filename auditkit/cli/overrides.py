"""`--set key=value`: one setting of a configuration file, changed on the command line."""

import tomllib
from collections.abc import Sequence
from typing import Any

from auditkit.cli.errors import UsageError


def apply_overrides(document: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return the document with each `a.b=value` put in place; values are TOML, else plain text.

    Raises:
        UsageError: an override is not of that form, or goes through something that is no table.
    """
    result = dict(document)
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key:
            raise UsageError(f"--set {override!r}: expected KEY=VALUE, e.g. training.epochs=2")
        table = result
        *parents, name = key.split(".")
        for parent in parents:
            inner = table.get(parent, {})
            if not isinstance(inner, dict):
                raise UsageError(f"--set {override!r}: {parent!r} is not a table")
            table[parent] = inner = dict(inner)
            table = inner
        table[name] = _value(text)
    return result


def _value(text: str) -> Any:  # noqa: ANN401 - any TOML value
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
